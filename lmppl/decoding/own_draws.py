"""Texts that a model draws by itself, where it tells no laws of next tokens: from it as it is,
unmasked, at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding.batch import Beginning
from lmppl.decoding.stopping import Stopping
from lmppl.lm import Drawn, Tokens

SEEDS = 2.0**53  # as many as a uniform tells apart


def own_draws(
    beginning: Beginning, stopping: Stopping, uniforms: NDArray[np.float64]
) -> list[tuple[Tokens, NDArray[np.float64]]]:
    """Per row, a text without its end token, and log p of each scored position, the end's as well.

    uniforms: (B, maximum), of which the first is a row's seed. Where `until` ends texts and the
    model ends one before, the text is what it is then: no legal one, of density 0.
    """
    assert stopping.tools is None
    seeds = [int(seed) for seed in uniforms[:, 0] * SEEDS]
    asked = beginning.tails, seeds, stopping.maximum, stopping.until
    return [_cut(one, stopping) for one in beginning.model.sample(beginning.prompt, *asked)]


def _cut(drawn: Drawn, stopping: Stopping) -> tuple[Tokens, NDArray[np.float64]]:
    """A text up to where the stopping process ends it."""
    length = _length(drawn.tokens, stopping)
    tokens = drawn.tokens[:length]
    return tokens[:-1] if tokens[-1] == stopping.end else tokens, drawn.log_probs[:length]


def _length(tokens: Sequence[int], stopping: Stopping) -> int:
    """How many tokens are drawn until a text is over, its end token among them."""
    for length, token in enumerate(tokens, 1):
        if token == stopping.end or stopping.closes(tokens[:length]):
            return length
    return len(tokens)
