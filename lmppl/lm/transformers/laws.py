"""What logits mean: log probabilities of tokens, in float32, with all end tokens as one.

A local law comes before that, token by token: ends are cut away one by one, as other tokens are.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl import ir
from lmppl.lm.local_law import shaped

Integers = NDArray[np.int64]


def log_law(
    logits: torch.Tensor, ends: Sequence[int], local: ir.LocalLaw | None = None
) -> torch.Tensor:
    """Log probabilities of logits (…, V). The first of the end tokens stands for all of them."""
    law = torch.log_softmax(under(logits, local), dim=-1)
    if len(ends) > 1:
        total = torch.logsumexp(law[..., list(ends)], dim=-1)
        law[..., list(ends)] = -torch.inf
        law[..., ends[0]] = total
    return law


def under(logits: torch.Tensor, local: ir.LocalLaw | None) -> torch.Tensor:
    """Logits (…, V) in float32, as a local law leaves them."""
    return logits.float() if local is None else shaped(logits.float(), local)


def picked(
    logits: torch.Tensor,
    places: Sequence[int] | Integers,
    tokens: Sequence[int] | Integers,
    ends: Sequence[int],
    local: ir.LocalLaw | None = None,
) -> NDArray[np.float64]:
    """(R,) log probabilities of tokens, each under the law of logits (N, V) at one place."""
    law = torch.log_softmax(under(logits, local), dim=-1)  # one kernel, where logsumexp is five
    place = torch.from_numpy(np.asarray(places, dtype=np.int64)).to(law.device)
    index = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).to(law.device)
    scores = law[place, index]
    if len(ends) > 1:
        total = torch.logsumexp(law[:, list(ends)], dim=-1)
        scores = torch.where(index == ends[0], total[place], scores)
        scores = scores.masked_fill(torch.isin(index, index.new_tensor(ends[1:])), -torch.inf)
    return scores.double().cpu().numpy()


def picked_rows(
    logits: torch.Tensor,
    rows: Sequence[tuple[int, Sequence[int]]],
    ends: Sequence[int],
    local: ir.LocalLaw | None = None,
) -> list[NDArray[np.float64]]:
    """Per row, log probabilities (T,) of its tokens, the first under the law of logits (N, V) at
    the row's place, the next under that after it.
    """
    places = [place for first, tokens in rows for place in range(first, first + len(tokens))]
    found = picked(logits, places, [token for _, tokens in rows for token in tokens], ends, local)
    bounds = [0, *accumulate(len(tokens) for _, tokens in rows)]
    return [found[begin:end] for begin, end in pairwise(bounds)]
