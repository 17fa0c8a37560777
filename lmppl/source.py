"""A program's text and places in it. Knows offsets, lines and columns, and nothing of the
language.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple


class Span(NamedTuple):  # a long program has many: a dataclass takes three times as long to make
    """Half-open range of character offsets [start, end) in a source."""

    start: int
    end: int


@dataclass(frozen=True)
class Source:
    """A text and the name it is shown under (a path, or something like "<string>")."""

    path: str
    text: str = field(repr=False)

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(i + 1 for i, character in enumerate(self.text) if character == "\n")]

    def position(self, offset: int) -> tuple[int, int]:
        """One-based (line, column) of an offset."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """Text of a one-based line, without its line break; empty beyond the end."""
        if not 1 <= number <= self.num_lines:
            return ""
        start = self._line_starts[number - 1]
        end = self._line_starts[number] - 1 if number < self.num_lines else len(self.text)
        return self.text[start:end].rstrip("\r")

    @property
    def num_lines(self) -> int:
        return len(self._line_starts)

    def slice(self, span: Span) -> str:
        return self.text[span.start : span.end]
