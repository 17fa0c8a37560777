"""Texts in double quotes: their escapes, and the templates that contexts are written as."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lmppl import findings
from lmppl.errors import Diagnostic
from lmppl.source import Source, Span
from lmppl.syntax import ast

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'", "0": "\0"}


SURROGATE = re.compile("[\ud800-\udfff]")  # half a character of UTF-16: none by itself
_PLAIN = re.compile(r"[^\\{}]+")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_HEXADECIMAL = re.compile(r"u[0-9a-fA-F]{4}(\\u[0-9a-fA-F]{4})?")


def pieces_of(raw: str, start: int) -> Iterator[tuple[str, Span]]:
    """What a text means, with where it was written: braces and escapes one by one, other characters in runs.

    Bad escapes come with the text '' .
    """
    i = 1
    while i < len(raw) - 1:
        if raw[i] != "\\":
            plain = _PLAIN.match(raw, i, len(raw) - 1)
            end = plain.end() if plain else i + 1
            yield raw[i:end], Span(start + i, start + end)
            i = end
            continue
        length = 12 if _PAIR.match(raw, i) else 6 if raw[i + 1] == "u" else 2
        span = Span(start + i, start + min(i + length, len(raw) - 1))
        yield _unescape(raw[i + 1 : min(i + length, len(raw) - 1)]), span
        i += length


def _unescape(code: str) -> str:
    if code[:1] != "u":
        return ESCAPES.get(code, "")
    if not _HEXADECIMAL.fullmatch(code):
        return ""
    units = bytes.fromhex(code.replace("\\u", "")[1:])  # of UTF-16
    return units.decode("utf-16-be", "surrogatepass")


def read_text(source: Source, raw: str, span: Span) -> tuple[ast.Text, list[Diagnostic]]:
    """A text node, and its bad escapes."""
    pieces = list(pieces_of(raw, span.start))
    bad = [findings.bad_escape(source, place) for piece, place in pieces if not piece]
    for piece, place in pieces:
        places = [Span(place.start + half.start(), place.start + half.end()) for half in SURROGATE.finditer(piece)]
        bad += [findings.no_character(source, one if len(piece) > 1 else place) for one in places]
    return ast.Text("".join(piece for piece, _ in pieces), raw, span), bad


@dataclass(frozen=True)
class Placeholder:
    """{NAME} in a template."""

    name: str
    span: Span  # of the name


def split_template(source: Source, text: ast.Text) -> tuple[list[str | Placeholder], list[Diagnostic]]:
    """A template's literal runs and placeholders. `{{` and `}}` are braces."""
    parts: list[str | Placeholder] = []
    literal: list[str] = []
    found: list[Diagnostic] = []
    pieces = list(pieces_of(text.raw, text.span.start))
    i = 0
    while i < len(pieces):
        character, span = pieces[i]
        twice = i + 1 < len(pieces) and pieces[i + 1][0] == character
        if character not in "{}" or not character or twice:
            literal.append(character)
            i += 2 if twice and character in ("{", "}") else 1
            continue
        end = next((j for j in range(i + 1, len(pieces)) if pieces[j][0] in ("{", "}")), None)
        if character == "}" or end is None or pieces[end][0] != "}":
            found.append(findings.lone_brace(source, span, character))
            i += 1
            continue
        name = "".join(piece for piece, _ in pieces[i + 1 : end]).strip()
        inside = Span(pieces[i + 1][1].start, pieces[end][1].start) if end > i + 1 else span
        if name.isidentifier():
            parts += ["".join(literal), Placeholder(name, inside)]
            literal = []
        else:
            found.append(findings.bad_placeholder(source, Span(span.start, pieces[end][1].end), name))
        i = end + 1
    return [part for part in (*parts, "".join(literal)) if part != ""], found
