"""Texts that a model draws by itself, where it tells no laws of next tokens: from it as it is,
unmasked, at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding.batch import Beginning
from lmppl.decoding.stopping import Stopping
from lmppl.lm import Tokens

SEEDS = 2.0**53  # as many as a uniform tells apart


def own_draws(
    beginning: Beginning, stopping: Stopping, uniforms: NDArray[np.float64]
) -> list[tuple[Tokens, NDArray[np.float64]]]:
    """Per row, a text without its end token, and log p of each scored position, the end's as well.

    uniforms: (B, maximum), of which the first is a row's seed. Where `until` ends texts and the
    model ends one before, the text is what it is then: no legal one, of density 0.
    """
    assert stopping.tools is None
    texts: list[Tokens] = [()] * len(uniforms)
    scores = [np.empty(0)] * len(uniforms)
    growing = range(len(uniforms))
    while growing:  # a model may stop before a text is over: at an end that is none here, say
        tails = [beginning.tails[row] + texts[row] for row in growing]
        lengths = [len(texts[row]) for row in growing]
        seeds = uniforms[growing, lengths] * SEEDS
        most = stopping.maximum - min(lengths)
        asked = tails, [int(seed) for seed in seeds], most, stopping.until
        drawn_rows = beginning.model.sample(beginning.prompt, *asked)
        for row, drawn in zip(growing, drawn_rows, strict=True):
            length = _length((*texts[row], *drawn.tokens), stopping)
            scores[row] = np.concatenate([scores[row], drawn.log_probs])[:length]
            texts[row] = (*texts[row], *drawn.tokens)[:length]
        growing = [row for row in growing if not _is_over(texts[row], stopping)]
    return [(_without_end(text, stopping), own) for text, own in zip(texts, scores, strict=True)]


def _length(tokens: Sequence[int], stopping: Stopping) -> int:
    """How many tokens are drawn until a text is over, its end token among them."""
    for length in range(1, len(tokens)):
        if _is_over(tokens[:length], stopping):
            return length
    return len(tokens)


def _is_over(tokens: Sequence[int], stopping: Stopping) -> bool:
    return tokens[-1] == stopping.end or stopping.closes(tokens)


def _without_end(tokens: Tokens, stopping: Stopping) -> Tokens:
    return tokens[:-1] if tokens[-1] == stopping.end else tokens
