"""What stands between double quotes: its escapes, and the pieces that it has as a template."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

from lmppl.source import Span

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
_PIECE = re.compile(
    rf"(?P<twice>(?:{_OPEN}{_OPEN})+|(?:{_CLOSE}{_CLOSE})+)|{_OPEN}(?P<name>{_OTHER}){_CLOSE}|(?P<lone>{_OPEN}|{_CLOSE})"
    rf"|(?P<other>{_OTHER})",
    re.DOTALL,
)


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


class Misplaced(NamedTuple):
    """A brace by itself, or two around what is no name."""

    text: str
    span: Span
    lone: bool


def cut_up(raw: str, start: int) -> tuple[Sequence[str | Placeholder], Sequence[Misplaced]]:
    """Literal runs and placeholders of a text, and what is neither. `{{` and `}}` are braces.

    raw: as it was written, quotes included; start: where that is.
    """
    parts: list[str | Placeholder] = []
    literal: list[str] = []
    misplaced: list[Misplaced] = []
    for piece in _PIECE.finditer(raw, 1, len(raw) - 1):
        kind = piece.lastgroup
        if kind == "name" and (name := _named(piece["name"])):
            if literal:
                parts += _joined(literal)
                literal = []
            first, last = piece.span("name")
            parts.append(Placeholder(name, Span(start + first, start + last)))
        elif kind == "other":
            literal.append(meaning(piece[0]))
        elif kind == "twice":
            braces = meaning(piece[0])
            literal.append(braces[: len(braces) // 2])
        else:
            text = meaning(piece[piece.lastgroup or 0]).strip()
            span = Span(start + piece.start(), start + piece.end())
            misplaced.append(Misplaced(text, span, kind == "lone"))
    return parts + _joined(literal), misplaced


def _joined(pieces: list[str]) -> list[str]:
    return ["".join(pieces)] if any(pieces) else []


@functools.lru_cache(maxsize=4096)
def _named(raw: str) -> str:
    """The name within braces; '' where it is none."""
    name = meaning(raw).strip()
    return name if name.isidentifier() else ""
