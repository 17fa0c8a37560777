"""Texts in quotes: their escapes, and the templates that contexts are written as."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lmppl.errors import Diagnostic
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.templates import (
    ESCAPE,
    Misplaced,
    Placeholder,
    body,
    character,
    meaning,
)
from lmppl.source import Source, Span

SURROGATE = re.compile("[\ud800-\udfff]")  # half a character of UTF-16: none by itself


def read_text(source: Source, raw: str, span: Span) -> tuple[ast.Text, list[Diagnostic]]:
    """A text node, and its bad escapes."""
    text = ast.Text(meaning(body(raw, span.start).text), raw, span)
    if "\\" not in raw:
        return text, []
    found = []
    for escape in ESCAPE.finditer(raw, 1, len(raw) - 1):
        one = character(escape[1])
        if not one or "\ud800" <= one <= "\udfff":
            place = Span(span.start + escape.start(), span.start + escape.end())
            found.append((findings.no_character if one else findings.bad_escape)(source, place))
    return text, found


def split_template(
    source: Source, text: ast.Text
) -> tuple[Sequence[str | Placeholder], list[Diagnostic]]:
    """A template's literal runs and placeholders, and findings about its other braces."""
    parts, misplaced = text.template
    return parts, brace_findings(source, misplaced)


def pieces_of(item: ast.Item) -> Sequence[str | Placeholder]:
    """What an item of a context is made of, as it is written."""
    return item.template[0] if isinstance(item, ast.Text) else [Placeholder(item.text, item.span)]


def brace_findings(source: Source, misplaced: Sequence[Misplaced]) -> list[Diagnostic]:
    """About braces of a template that are no part of a placeholder."""
    return [
        (findings.lone_brace if one.lone else findings.bad_placeholder)(source, one.span, one.text)
        for one in misplaced
    ]


def begins_a_word(before: str, first: str) -> bool:
    """Whether a text that goes on with this character would usually have a space before it."""
    cased = first.lower() != first.upper()
    if before.isdigit() or before.lower() != before.upper():
        return cased or (first.isdigit() and not before.isdigit())
    return before in tuple(".,:;!?)") and (cased or first.isdigit())
