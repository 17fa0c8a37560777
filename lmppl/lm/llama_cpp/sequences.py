"""Which texts a context holds, and what is left to run of others. Knows no llama.cpp.

A context has a number of sequences, each of which holds a text: keys and values in cells, one a
token. Sequences whose texts begin alike may share cells. A text that is to be run goes on from the
sequence that holds most of its beginning, and tokens that several texts begin with are run once.

Every token that is run takes the next cell, and no cell is used again before all are cleared. So
the cells of every text stand in its order, whatever was run beside it: see context.py for why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lmppl.lm.protocol import Row, Tokens


@dataclass(frozen=True)
class Place:
    """Where a row is run: in the sequence `home`, from the `length` tokens on that it has in common
    with what the sequence `source` holds.
    """

    home: int
    source: int
    length: int


@dataclass
class Node:
    """A token that is to be run, in every sequence whose text has it. asked: whether the law after
    it is.
    """

    token: int
    position: int
    sequences: list[int] = field(default_factory=list)
    asked: bool = False


@dataclass(frozen=True)
class Plan:
    """How rows are run. paths: per row, the nodes of its tokens after those that it goes on from;
    rows that begin alike share them.
    """

    places: Sequence[Place]
    paths: Sequence[Sequence[Node]]

    @property
    def nodes(self) -> list[Node]:
        """Every node once, behind those that it follows."""
        return list({id(node): node for path in self.paths for node in path}.values())


class Sequences:
    """The texts that a context holds, by the numbers of its sequences."""

    def __init__(self, count: int) -> None:
        self.held: dict[int, Tokens] = dict.fromkeys(range(count), ())  # used last: stands last

    def clear(self) -> None:
        """Nothing is held any more."""
        self.held = dict.fromkeys(self.held, ())

    def plan(self, rows: Sequence[Row]) -> Plan:
        """How to run different rows, at most as many as there are sequences. What a row asks for is
        run even where it is held. The rows are held from then on.
        """
        places = self._places(rows)
        self._settle(places)
        return Plan(places, self._grow(rows, places))

    def _places(self, rows: Sequence[Row]) -> list[Place]:
        """A sequence of its own for each row, with what it can go on from."""
        found = [self._longest(tokens, first - 1) for tokens, first in rows]
        sources = {source for source, length in found if length}
        free = sorted(self.held, key=lambda number: bool(self.held[number]))  # empty ones first
        spare = iter([number for number in free if number not in sources])
        places = []
        for source, length in found:
            if length and source in sources:
                sources.remove(source)  # the next one that goes on from it is run elsewhere
                places.append(Place(source, source, length))
            else:
                home = next(spare)
                places.append(Place(home, source if length else home, length))
        return places

    def _longest(self, tokens: Tokens, most: int) -> tuple[int, int]:
        """The sequence that holds most of a text's first so many tokens, and how many it holds."""
        number, length = 0, 0
        for other, held in self.held.items():
            if held[: length + 1] == tokens[: length + 1]:
                common = _in_common(held, tokens[:most])
                number, length = (other, common) if common > length else (number, length)
        return number, length

    def _settle(self, places: Sequence[Place]) -> None:
        """Let every row's sequence hold what it goes on from, and no more."""
        begun = {place.home: self.held[place.source][: place.length] for place in places}
        for number, tokens in begun.items():
            del self.held[number]
            self.held[number] = tokens

    def _grow(self, rows: Sequence[Row], places: Sequence[Place]) -> list[list[Node]]:
        """See Plan."""
        known: dict[tuple, Node] = {}
        paths = []
        for (tokens, first), place in zip(rows, places, strict=True):
            key: tuple = tokens[: place.length]
            path = []
            for position in range(place.length, len(tokens)):
                token = tokens[position]
                key = (key, token) if position == place.length else (id(path[-1]), token)
                node = known.setdefault(key, Node(token, position))
                node.sequences.append(place.home)
                node.asked |= position >= first - 1
                path.append(node)
            self.held[place.home] = tokens
            paths.append(path)
        return paths


def _in_common(left: Tokens, right: Tokens) -> int:
    """How many tokens two texts begin with in common."""
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while high - low > 1:  # equal up to low, unequal up to high
        middle = (low + high) // 2
        low, high = (middle, high) if left[:middle] == right[:middle] else (low, middle)
    return low
