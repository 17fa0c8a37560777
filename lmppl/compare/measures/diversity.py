"""How varied texts are: distinct n-grams, BLEU among themselves, distance of embeddings where a
model is at hand.

Texts are those of equal-weight draws. All measures depend on how many there are: compare like with
like.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmppl.compare.measures.embedding import embed
from lmppl.compare.measures.overlap import bleu, words


def distinct(texts: Sequence[str], n: int) -> float | None:
    """Distinct n-grams of words over all n-grams (Li et al. 2016); None where no text is that
    long.
    """
    grams = [
        tuple(split[i : i + n])
        for text in texts
        if (split := words(text))
        for i in range(len(split) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else None


def self_bleu(texts: Sequence[str]) -> float | None:
    """Mean BLEU-4 of each text against all others (Zhu et al. 2018): 1 where all say the same."""
    if len(texts) < 2:
        return None
    return float(
        np.mean([bleu(text, [*texts[:i], *texts[i + 1 :]]) for i, text in enumerate(texts)])
    )


def embedding_distance(texts: Sequence[str]) -> float | None:
    """Mean cosine distance of pairs of texts; None without the embedding package or a second
    text.
    """
    vectors = embed(texts) if len(texts) > 1 else None
    if vectors is None:
        return None
    count = len(vectors)
    return float(1 - ((vectors @ vectors.T).sum() - count) / (count * (count - 1)))
