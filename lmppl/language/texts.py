"""Texts in double quotes: their escapes, and the templates that contexts are written as."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from lmppl.errors import Diagnostic
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.source import Source, Span

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'", "0": "\0"}

SURROGATE = re.compile("[\ud800-\udfff]")  # half a character of UTF-16: none by itself
_PAIR = (
    r"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # the two halves of one character
)
_CODE = rf"{_PAIR}|u.{{0,4}}|[^u]"  # what stands behind the backslash
_ESCAPE = re.compile(rf"\\({_CODE})", re.DOTALL)
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


def _meaning(raw: str) -> str:
    """What a stretch of a text means; bad escapes mean nothing."""
    return _ESCAPE.sub(lambda escape: _character(escape[1]), raw) if "\\" in raw else raw


@functools.lru_cache(maxsize=4096)  # a long text has the same few many times
def _character(code: str) -> str:
    """What stands for a backslash and this; '' where there is no such escape."""
    if code[0] != "u":
        return ESCAPES.get(code, "")
    if not _HEXADECIMAL.fullmatch(code):
        return ""
    units = bytes.fromhex(code.replace("\\u", "")[1:])  # of UTF-16
    return units.decode("utf-16-be", "surrogatepass")


def read_text(source: Source, raw: str, span: Span) -> tuple[ast.Text, list[Diagnostic]]:
    """A text node, and its bad escapes."""
    text = ast.Text(_meaning(raw[1:-1]), raw, span)
    if "\\" not in raw:
        return text, []
    found = []
    for escape in _ESCAPE.finditer(raw, 1, len(raw) - 1):
        character = _character(escape[1])
        if not character or "\ud800" <= character <= "\udfff":
            place = Span(span.start + escape.start(), span.start + escape.end())
            found.append(
                (findings.no_character if character else findings.bad_escape)(source, place)
            )
    return text, found


@dataclass(frozen=True)
class Placeholder:
    """{NAME} in a template."""

    name: str
    span: Span  # of the name


def split_template(
    source: Source, text: ast.Text
) -> tuple[list[str | Placeholder], list[Diagnostic]]:
    """A template's literal runs and placeholders. `{{` and `}}` are braces."""
    parts: list[str | Placeholder] = []
    literal: list[str] = []
    found: list[Diagnostic] = []
    for piece in _PIECE.finditer(text.raw, 1, len(text.raw) - 1):
        kind, span = (
            piece.lastgroup,
            Span(text.span.start + piece.start(), text.span.start + piece.end()),
        )
        if kind == "other":
            literal.append(_meaning(piece[0]))
        elif kind == "twice":
            braces = _meaning(piece[0])
            literal.append(braces[: len(braces) // 2])
        elif kind == "lone":
            found.append(findings.lone_brace(source, span, _meaning(piece[0])))
        elif (name := _meaning(piece["name"]).strip()).isidentifier():
            parts += [
                "".join(literal),
                Placeholder(name, Span(*(text.span.start + i for i in piece.span("name")))),
            ]
            literal = []
        else:
            found.append(findings.bad_placeholder(source, span, name))
    return [part for part in (*parts, "".join(literal)) if part != ""], found
