"""Drawing texts by a decoder's laws: what `sample` is where a model has no way of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmppl.lm.protocol import Decoder, Drawn, Tokens

Floats = NDArray[np.float64]


def sample_by_laws(
    model: Decoder,
    prompt: Tokens,
    suffixes: Sequence[Tokens],
    seeds: Sequence[int],
    maximum: int,
    until: str | None = None,
) -> list[Drawn]:
    """See Sampler.sample. Tokens are drawn by inverting the distribution function at uniforms of
    each row's seed, so that a row does not depend on its neighbours.
    """
    uniforms = [np.random.default_rng(seed).random(maximum) for seed in seeds]
    texts: list[Tokens] = [()] * len(seeds)
    scores: list[list[float]] = [[] for _ in seeds]
    growing = np.arange(len(seeds))
    stream = model.stream(prompt, suffixes)
    for position in range(maximum if len(seeds) else 0):
        laws = stream.log_probs().double().cpu().numpy()
        at = np.array([uniforms[row][position] for row in growing])
        drawn = _inverted(np.exp(laws).cumsum(1), at)
        for i, row in enumerate(growing):
            texts[row] = (*texts[row], int(drawn[i]))
            scores[row].append(float(laws[i, drawn[i]]))
        over = [_is_over(model, texts[row], until) for row in growing]
        kept = np.flatnonzero(~np.array(over))
        if not len(kept) or position == maximum - 1:
            break
        stream.keep(kept)
        stream.push(drawn[kept])
        growing = growing[kept]
    return [Drawn(text, np.array(own)) for text, own in zip(texts, scores, strict=True)]


def _inverted(cumulative: Floats, uniforms: Floats) -> NDArray[np.int64]:
    """(B,) the first token whose sum (B, V) is above the uniform's share of the whole."""
    return (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(1)


def _is_over(model: Decoder, text: Tokens, until: str | None) -> bool:
    return text[-1] == model.end or (until is not None and until in model.decode(text))
