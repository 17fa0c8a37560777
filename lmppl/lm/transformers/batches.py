"""Which rows go through a network together: those of similar length, whatever prompt is before
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from lmppl.lm.tree import Carrier

T = TypeVar("T")
R = TypeVar("R")
PADDING = 64  # tokens that cost about as much as a pass by itself


@dataclass(frozen=True)
class Placed:
    """A row that is run behind the prompt of the entry of this number."""

    entry: int
    carrier: Carrier


def batches(work: Sequence[Placed], most: int) -> Iterator[list[Placed]]:
    """As many rows together as there is room for, in the order of their prompts.

    most: laws of a pass. A row has one of every input from the first that is asked about, and two
    besides.
    """
    batch: list[Placed] = []
    prompts: set[int] = set()
    least = tokens = 0
    for one in sorted(work, key=lambda one: (len(one.carrier.inputs), one.carrier.start)):
        width = len(one.carrier.inputs)
        least = min(least, one.carrier.start) if batch else one.carrier.start
        room = (len(batch) + 1) * (width - least + 2) <= most
        # where prompts differ
        padding = len(batch) * width - tokens if prompts - {one.entry} else 0
        if batch and not (room and padding <= PADDING):
            yield sorted(batch, key=lambda other: other.entry)
            batch, prompts, least, tokens = [], set(), one.carrier.start, 0
        batch.append(one)
        prompts.add(one.entry)
        tokens += width
    if batch:
        yield sorted(batch, key=lambda other: other.entry)


def halving(run: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R]:
    """What `run` gives for each item, from fewer at a time where memory runs out."""
    try:
        return list(run(items))
    except torch.cuda.OutOfMemoryError:
        if len(items) == 1:
            raise
    half = len(items) // 2
    return halving(run, items[:half]) + halving(run, items[half:])
