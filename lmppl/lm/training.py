"""What learns goes by a few rows at a time: how many, and what their laws with gradients add up to.

Knows tensors of any `Trainable`, no networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch

from lmppl.lm.protocol import Rows, Tokens

OPEN_TOKENS = 1024  # of prompts that are run with gradients at a time, where one row has not more
T = TypeVar("T")


def together(items: Sequence[T], sizes: Sequence[float], most: float) -> Iterator[list[T]]:
    """Items in their order, as many at a time as add up to no more than `most`; a larger one by
    itself.
    """
    group: list[T] = []
    total = 0.0
    for item, size in zip(items, sizes, strict=True):
        if group and total + size > most:
            yield group
            group, total = [], 0.0
        group.append(item)
        total += size
    if group:
        yield group


def padded(rows: Sequence[Tokens], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, width) tokens of rows, 0 behind the last of each, and which of them are the row's."""
    index = torch.zeros((len(rows), width), dtype=torch.long)
    within = torch.zeros((len(rows), width), dtype=torch.bool)
    for b, row in enumerate(rows):
        index[b, : len(row)] = torch.tensor(row, dtype=torch.long)
        within[b, : len(row)] = True
    return index, within


def summed(logits: torch.Tensor, rows: Rows) -> torch.Tensor:
    """(B,) log probability of the tokens asked about under their laws (B, S, V), of each row
    together, with gradients. Nats. logits: what `OpenPrompts.laws` gives for the rows.
    """
    scored = [row[start:] for row, start in zip(rows.tokens, rows.starts, strict=True)]
    index, within = padded(scored, logits.shape[1])
    chosen = logits.gather(-1, index.to(logits.device)[..., None])[..., 0] - torch.logsumexp(
        logits, -1
    )
    return chosen.masked_fill(~within.to(logits.device), 0.0).sum(1)
