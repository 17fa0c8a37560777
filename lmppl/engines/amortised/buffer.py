"""Replay: for every row, states that were drawn before, with what the program says of them,
untempered.

Forbidden states and exact repeats are left out; of two texts that are nearly the same the better
one stays. A value: `add` gives a new buffer. Tokens are kept as ids, so a state is scored as it was
drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lmppl.density import Floats, State
from lmppl.engines.amortised.reward import Rewarded, joined

SAMPLING = ("uniform", "reward", "recency")
ALIKE = 0.9  # share of equal tokens, place by place, from which two texts count as nearly the same


@dataclass(frozen=True)
class Buffer:
    """States by row number, oldest first, at most `size` a row."""

    size: int
    rows: dict[int, Rewarded] = field(default_factory=dict)

    def add(self, row: int, rewarded: Rewarded) -> Buffer:
        """With more states of a row, forbidden ones left out; the worst leave where there are too
        many.
        """
        rewarded = rewarded.rows(np.flatnonzero(rewarded.broken == 0).tolist())
        if not rewarded.states:
            return self
        known = len(self.rows[row].states) if row in self.rows else 0
        merged = joined([self.rows[row], rewarded]) if known else rewarded
        merged = merged.rows(_distinct(merged, known))
        if len(merged.states) > self.size:
            best = np.argsort(-_worth(merged), kind="stable")[: self.size]
            merged = merged.rows(sorted(best.tolist()))
        return Buffer(self.size, {**self.rows, row: merged})

    def sample(self, row: int, uniforms: Floats, by: str) -> list[int]:
        """Places of states of a row, one a uniform; empty where there are none."""
        if row not in self.rows or not len(self.rows[row].states):
            return []
        count = len(self.rows[row].states)
        weights = np.ones(count)
        if by == "recency":
            weights = np.arange(1.0, count + 1)
        elif by == "reward":
            worth = _worth(self.rows[row])
            weights = np.exp(np.maximum(worth - worth.max(), -50))
        cumulative = np.cumsum(weights) / weights.sum()
        return np.minimum(np.searchsorted(cumulative, uniforms, side="right"), count - 1).tolist()


def _worth(rewarded: Rewarded) -> Floats:
    """What states are kept for: log γ."""
    return rewarded.total


def _distinct(rewarded: Rewarded, known: int) -> list[int]:
    """Places of states that are no repeat, and of near repeats the best; the first, known ones
    repeat nothing.
    """
    worth = _worth(rewarded)
    kept = list(range(known))
    for i in range(known, len(rewarded.states)):
        twin = next((k for k in kept if _alike(rewarded.states[k], rewarded.states[i])), None)
        if twin is None:
            kept.append(i)
        elif worth[i] > worth[twin]:
            kept[kept.index(twin)] = i
    return kept


def _alike(left: State, right: State) -> bool:
    return left == right or all(_nearly(left[name], right[name]) for name in left)


def _nearly(left: Sequence[int] | int, right: Sequence[int] | int) -> bool:
    if isinstance(left, int) or isinstance(right, int):
        return left == right
    if len(left) != len(right):
        return False
    return sum(a == b for a, b in zip(left, right, strict=True)) >= ALIKE * len(left)
