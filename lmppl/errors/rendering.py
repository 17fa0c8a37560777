"""Findings as text: full with the lines around, concise one to a line, or as JSON values for
editors.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from lmppl.errors.diagnostic import Diagnostic
from lmppl.screen import visible
from lmppl.shapes import Document
from lmppl.source import Source, Span

WIDTH = 200  # characters of a line that are shown, its place among them
WORDS = 1000  # of what is said
AROUND = 2  # lines shown before and after
_COLOURS = {
    "error": "\033[1;31m",
    "warning": "\033[1;33m",
    "place": "\033[36m",
    "off": "\033[0m",
    "bold": "\033[1m",
}


def render_full(diagnostic: Diagnostic, color: bool = False) -> str:
    """Kind and code, place, the lines around with carets, and what was expected, found and can be
    done.
    """
    paint = _COLOURS if color else dict.fromkeys(_COLOURS, "")
    kind = f"{paint[diagnostic.severity]}{diagnostic.severity}[{diagnostic.code}]{paint['off']}"
    lines = [f"{kind}: {paint['bold']}{_words(diagnostic.message)}{paint['off']}"]
    if diagnostic.source is not None:
        lines.append(f"  {paint['place']}-->{paint['off']} {visible(place(diagnostic))}")
        if diagnostic.span is not None:
            lines += _excerpt(
                diagnostic.source, diagnostic.span, paint[diagnostic.severity], paint["off"]
            )
    for label, text in _details(diagnostic):
        lines.append(f"  = {label}: {_words(text)}")
    return "\n".join(lines)


def render_concise(diagnostic: Diagnostic) -> str:
    """path:line:column: kind[code] message."""
    where = f"{place(diagnostic)}: " if diagnostic.source is not None else ""
    return _words(f"{where}{diagnostic.severity}[{diagnostic.code}] {diagnostic.message}")


def to_document(diagnostic: Diagnostic, more: int = 0) -> Document:
    """JSON form; line, column and the like are null where there is no place. more: findings of its
    kind not listed.
    """
    start = end = (None, None)
    if diagnostic.source is not None and diagnostic.span is not None:
        start = diagnostic.source.position(diagnostic.span.start)
        end = diagnostic.source.position(diagnostic.span.end)
    return {
        "severity": diagnostic.severity,
        "code": diagnostic.code,
        "message": diagnostic.message,
        "path": diagnostic.source.path if diagnostic.source else None,
        "line": start[0],
        "column": start[1],
        "end_line": end[0],
        "end_column": end[1],
        "expected": diagnostic.expected,
        "found": diagnostic.found,
        "help": diagnostic.help,
        "more": more,
    }


def place(diagnostic: Diagnostic) -> str:
    """path:line:column, as far as it is known."""
    assert diagnostic.source is not None
    if diagnostic.span is None:
        return diagnostic.source.path
    line, column = diagnostic.source.position(diagnostic.span.start)
    return f"{diagnostic.source.path}:{line}:{column}"


def _details(diagnostic: Diagnostic) -> list[tuple[str, str]]:
    pairs = [
        ("expected", diagnostic.expected),
        ("found", diagnostic.found),
        ("help", diagnostic.help),
    ]
    return [(label, text) for label, text in pairs if text]


def _excerpt(source: Source, span: Span, paint: str, off: str) -> Sequence[str]:
    first, column = source.position(span.start)
    last, end_column = source.position(span.end)
    if last > first:  # carets run to the end of the first line only
        end_column = len(source.line(first)) + 1
    width = len(str(min(first + AROUND, source.num_lines)))
    lines = [f"{'':>{width}} |"]
    for number in range(max(1, first - AROUND), min(first + AROUND, source.num_lines) + 1):
        line = source.line(number)
        start = _first_shown(line, column - 1, end_column - 1)
        text = line[start : start + WIDTH]
        left, right = "…" if start else "", "…" if start + WIDTH < len(line) else ""
        lines.append(f"{number:>{width}} | {left}{visible(text)}{right}".rstrip())
        if number == first:
            before = len(left) + _columns(line[start : column - 1])
            under = max(
                1, _columns(text[max(0, column - 1 - start) : max(0, end_column - 1 - start)])
            )
            lines.append(f"{'':>{width}} | {' ' * before}{paint}{'^' * under}{off}")
    return [f" {line}" for line in lines]


def _first_shown(line: str, start: int, end: int) -> int:
    """Where the part of a line begins that is shown: with the place in it, its beginning at
    least.
    """
    middle = (start + min(end, start + WIDTH)) // 2
    return max(0, min(middle - WIDTH // 2, len(line) - WIDTH)) if len(line) > WIDTH else 0


def _words(text: str) -> str:
    """What is said, cut where it is beyond all measure."""
    return visible(text if len(text) <= WORDS else f"{text[:WORDS]}…")


def _columns(text: str) -> int:
    """Columns that a piece of a line takes on a terminal."""
    return sum(_column(character) for character in text.replace("\t", "    "))


def _column(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
