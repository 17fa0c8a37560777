"""What stands between quotes: its lines, its escapes, and the pieces that it has as a template."""

from __future__ import annotations

import functools
import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

from lmppl.source import Source, Span

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'", "0": "\0"}

# the two halves of one character
_PAIR = r"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_CODE = rf"{_PAIR}|u.{{0,4}}|[^u]"  # what stands behind the backslash
ESCAPE = re.compile(rf"\\({_CODE})", re.DOTALL)
_HEXADECIMAL = re.compile(rf"{_PAIR}|u[0-9a-fA-F]{{4}}")

# A template cut up: braces may be written as escapes as well. Braces that stand twice go many at a
# time, as other characters do, so that a long text is few pieces.
_OPEN, _CLOSE = r"(?:\{|\\u007[bB])", r"(?:\}|\\u007[dD])"
_OTHER = rf"[^\\{{}}]*(?:\\(?!u007[bBdD])(?:{_CODE})[^\\{{}}]*)*"


def _pieces(opening: str, closing: str, other: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<twice>(?:{opening}{opening})+|(?:{closing}{closing})+)"
        rf"|{opening}(?P<name>{other}){closing}|(?P<lone>{opening}|{closing})|(?P<other>{other})",
        re.DOTALL,
    )


_PIECE = _pieces(_OPEN, _CLOSE, _OTHER)
_PLAIN_PIECE = _pieces(r"\{", r"\}", r"[^{}]*")  # of a file, in which a backslash is one


def meaning(raw: str) -> str:
    """What a stretch of a text means; bad escapes mean nothing."""
    return ESCAPE.sub(lambda escape: character(escape[1]), raw) if "\\" in raw else raw


@functools.lru_cache(maxsize=4096)  # a long text has the same few many times
def character(code: str) -> str:
    """What stands for a backslash and this; '' where there is no such escape."""
    if code[0] != "u":
        return ESCAPES.get(code, "")
    if not _HEXADECIMAL.fullmatch(code):
        return ""
    units = bytes.fromhex(code.replace("\\u", "")[1:])  # of UTF-16
    return units.decode("utf-16-be", "surrogatepass")


class Placeholder(NamedTuple):  # a dataclass takes three times as long to make
    """{NAME} in a template."""

    name: str
    span: Span  # of the name
    source: Source | None = None  # where it stands in a file, and not in the program


class Misplaced(NamedTuple):
    """A brace by itself, or two around what is no name."""

    text: str
    span: Span
    lone: bool


class Body(NamedTuple):
    """The characters of a text, and where each of its stretches begins: (in it, where it is
    written).
    """

    text: str
    starts: Sequence[tuple[int, int]]

    def span(self, first: int, last: int) -> Span:
        """Where a part of it is written; it is taken to lie within one line."""
        line = bisect_right(self.starts, (first, math.inf)) - 1
        shift = self.starts[line][1] - self.starts[line][0]
        return Span(first + shift, last + shift)


def body(raw: str, start: int) -> Body:
    """A text without its quotes; one over several lines without its first line break and common
    indentation.

    raw: as it was written; start: where that is.
    """
    if not raw.startswith('"""'):
        return Body(raw[1:-1], ((0, start + 1),))
    first, *others = raw[3:-3].split("\n")
    common = _common([_indentation(line) for line in others if line.strip()])
    lines = [(first, start + 3)] if first.strip() or not others else []
    place = start + 3 + len(first) + 1
    for line in others:
        cut = common if line.strip() else len(_indentation(line))  # a blank line is empty
        lines.append((line[cut:], place + cut))
        place += len(line) + 1
    return _joined_lines(lines)


def _indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _common(beginnings: Sequence[str]) -> int:
    """How many characters all of them begin with."""
    if not beginnings:
        return 0
    pairs = zip(min(beginnings), max(beginnings), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _joined_lines(lines: Sequence[tuple[str, int]]) -> Body:
    """lines: each with where it begins. A line break is one character, however it is written."""
    starts, offset = [], 0
    for line, place in lines:
        starts.append((offset, place))
        offset += len(line.removesuffix("\r")) + 1
    return Body("\n".join(line.removesuffix("\r") for line, _ in lines), starts)


def cut_up(
    body: Body, escapes: bool = True
) -> tuple[Sequence[str | Placeholder], Sequence[Misplaced]]:
    """Literal runs and placeholders of a text, and what is neither. `{{` and `}}` are braces.

    escapes: a backslash begins one.
    """
    parts: list[str | Placeholder] = []
    literal: list[str] = []
    misplaced: list[Misplaced] = []
    means = meaning if escapes else str
    for piece in (_PIECE if escapes else _PLAIN_PIECE).finditer(body.text):
        kind = piece.lastgroup
        if kind == "name" and (name := _named(piece["name"])):
            if literal:
                parts += _joined(literal)
                literal = []
            parts.append(Placeholder(name, body.span(*piece.span("name"))))
        elif kind == "other":
            literal.append(means(piece[0]))
        elif kind == "twice":
            braces = means(piece[0])
            literal.append(braces[: len(braces) // 2])
        else:
            text = means(piece[piece.lastgroup or 0]).strip()
            misplaced.append(Misplaced(text, body.span(*piece.span()), kind == "lone"))
    return parts + _joined(literal), misplaced


def _joined(pieces: list[str]) -> list[str]:
    return ["".join(pieces)] if any(pieces) else []


@functools.lru_cache(maxsize=4096)
def _named(raw: str) -> str:
    """The name within braces; '' where it is none."""
    name = meaning(raw).strip()
    return name if name.isidentifier() else ""
