"""The rows of a run, bound when they are asked for: a few at a time are held, however many there
are.

All are bound once before anything is drawn, so that every finding comes first; where rows are many,
each is bound again when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, overload

from lmppl.errors import Diagnostic
from lmppl.screen import Progress

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.density import Target

Bound = tuple["Target", Sequence[Diagnostic]]

HELD = 128  # rows: as many as are drawn together, and some


class BoundRows(Sequence["Target"]):
    """The targets of some rows, and what binding each has found."""

    def __init__(
        self,
        rows: Sequence[Row],
        bind: Callable[[Row], Bound],
        progress: Progress,
        hold: int = HELD,
    ) -> None:
        """Raises LmpplError for the first row that cannot be bound. hold: rows that are kept at
        once.
        """
        self._rows, self._bind, self._hold = rows, bind, hold
        self._held: dict[int, Bound] = {}  # the one that was made last is last
        self._lend: Callable[[Target], None] = lambda target: None
        self.open: list[int] = []  # rows with something to infer
        for number in range(len(rows)):
            progress("reading rows", number, len(rows))
            if self[number].latents:
                self.open.append(number)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Target: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Target]: ...
    def __getitem__(self, index: int | slice) -> Target | Sequence[Target]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return self._bound(range(len(self))[index])[0]

    def findings(self, number: int) -> Sequence[Diagnostic]:
        """Warnings of binding a row."""
        return self._bound(number)[1]

    def lent(self, lend: Callable[[Target], None]) -> None:
        """Give every target something, now or when it is bound."""
        self._lend = lend
        for target, _ in self._held.values():
            lend(target)

    def _bound(self, number: int) -> Bound:
        if number not in self._held:
            if len(self._held) >= self._hold:
                del self._held[next(iter(self._held))]
            bound = self._bind(self._rows[number])
            self._lend(bound[0])
            self._held[number] = bound
        return self._held[number]
