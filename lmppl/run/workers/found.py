"""Rows as they come from workers, in any order: in memory, or on disk where a run has a folder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

from lmppl.posterior import Keeper, RowPosterior, WrittenRow


class Found(Protocol):
    """What was found until now."""

    earlier: float  # seconds that were spent before this process
    cost: dict[str, float]

    def has(self, number: int) -> bool:
        """Whether a row is there."""
        ...

    def add(self, row: WrittenRow, seconds: float) -> None:
        """Take a row. seconds: that the run has taken."""
        ...

    def first_rows(self) -> int:
        """How many rows there are before the first that is not there."""
        ...

    def rows(self, count: int) -> Sequence[RowPosterior]:
        """The first rows, so many."""
        ...


class InMemory:
    """Implements Found."""

    earlier = 0.0

    def __init__(self, engine: str, count: int) -> None:
        self._engine = engine
        self._found: list[RowPosterior | None] = [None] * count
        self.cost: dict[str, float] = {}

    def has(self, number: int) -> bool:
        return self._found[number] is not None

    def add(self, row: WrittenRow, seconds: float) -> None:
        self._found[row.number] = row.posterior(self._engine)
        for name, amount in row.cost.items():
            self.cost[name] = self.cost.get(name, 0) + amount

    def first_rows(self) -> int:
        return sum(1 for _ in takewhile(lambda row: row is not None, self._found))

    def rows(self, count: int) -> Sequence[RowPosterior]:
        return [row for row in self._found[:count] if row is not None]


class OnDisk:
    """Implements Found."""

    def __init__(self, engine: str, keeper: Keeper) -> None:
        self._engine, self._keeper = engine, keeper
        self.earlier, self.cost = keeper.seconds, keeper.cost

    def has(self, number: int) -> bool:
        return number in self._keeper.places

    def add(self, row: WrittenRow, seconds: float) -> None:
        self._keeper.add(row, seconds)

    def first_rows(self) -> int:
        return sum(1 for _ in takewhile(self.has, range(self._keeper.places.count)))

    def rows(self, count: int) -> Sequence[RowPosterior]:
        return self._keeper.rows(count, self._engine)
