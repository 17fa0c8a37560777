"""Overlap of a text with references: BLEU-4 (Papineni et al. 2002) and GLEU-4 (Wu et al. 2016), by
NLTK.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from nltk.tokenize import wordpunct_tokenize
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.gleu_score import sentence_gleu

_SMOOTHING = SmoothingFunction().method1  # a short text without a common 4-gram is not worth 0


def words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return wordpunct_tokenize(text.lower())


def bleu(text: str, references: Sequence[str]) -> float:
    """Sentence BLEU-4, smoothed; 0 to 1."""
    if not words(text):
        return 0.0
    found: Any = sentence_bleu(
        [words(other) for other in references], words(text), smoothing_function=_SMOOTHING
    )
    return float(found)


def gleu(text: str, references: Sequence[str]) -> float:
    """Sentence GLEU-4: the lesser of n-gram precision and recall; 0 to 1."""
    if not words(text):
        return 0.0
    return float(sentence_gleu([words(other) for other in references], words(text)))


def bert_score(texts: Sequence[str], references: Sequence[str]) -> float | None:
    """Mean BERTScore F1 (Zhang et al. 2020); None without the package `bert-score` or its model."""
    if find_spec("bert_score") is None:
        return None
    from bert_score import score  # pyright: ignore[reportMissingImports]

    try:
        return float(score(list(texts), list(references), lang="en")[2].mean())
    except OSError:  # it fetches its model when it is first used
        return None
