"""Draws that take few states: each state is kept once, and which one a draw takes is asked for when
it is read.

So a law that is known exactly costs a row its states, and not its draws, whose thousands would say
the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")


@dataclass(frozen=True)
class Repeated(Sequence[T], Generic[T]):
    """A sequence of draws, chain by chain. Each is one of `kinds` under its own numbers of chain
    and draw.

    taken: gives the place in `kinds` of every draw, (chains × draws,), the same ones whenever it is
    asked. All draws have the same weight.
    """

    kinds: Sequence[Any]  # dataclasses with the fields `chain` and `draw`
    shape: tuple[int, int]  # (chains, draws a chain)
    taken: Callable[[], NDArray[Any]]

    @cached_property
    def places(self) -> NDArray[np.int32]:
        return self.taken().astype(np.int32)

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        chain, draw = divmod(place, self.shape[1])
        return replace(self.kinds[self.places[place]], chain=chain, draw=draw)

    def of(self, make: Callable[[T], U]) -> Repeated[U]:
        """The same draws made into something else, each kind once. These are not kept for it."""
        return Repeated([make(kind) for kind in self.kinds], self.shape, self.taken)


def each(draws: Sequence[T], make: Callable[[T], U]) -> Sequence[U]:
    """Draws made into something else; those that repeat each other stay so."""
    return draws.of(make) if isinstance(draws, Repeated) else [make(draw) for draw in draws]


def paired(draws: Sequence[T], others: Sequence[U], make: Callable[[T, U], V]) -> Sequence[V]:
    """As `each`, of two sequences of the same draws."""
    if isinstance(draws, Repeated) and isinstance(others, Repeated):
        kinds = [make(one, other) for one, other in zip(draws.kinds, others.kinds, strict=True)]
        return Repeated(kinds, draws.shape, draws.taken)
    return [make(one, other) for one, other in zip(draws, others, strict=True)]
