"""Checking patterns: that they are read, and that an automaton follows those that a latent must
match.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from lmppl.errors import Diagnostic
from lmppl.expressions import PatternError, ReadPattern, read_pattern
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.parsing import walk
from lmppl.source import Source, Span


def pattern_findings(pattern: ast.Pattern, source: Source) -> Iterator[Diagnostic]:
    """What is wrong with a pattern."""
    try:
        read_pattern(pattern.text)
    except PatternError as reason:
        yield findings.bad_pattern(source, _inside(pattern, reason.place), reason.message)


def unguided_findings(
    constraint: ast.Expression, latents: Collection[str], source: Source
) -> Iterator[Diagnostic]:
    """Patterns in a constraint that a latent must match and that no automaton follows."""
    for call in walk(constraint):
        if (
            isinstance(call, ast.Call)
            and call.function.text == "matches"
            and len(call.arguments) == 2
        ):
            subject, pattern = call.arguments
            read = any(
                isinstance(node, ast.Name) and node.text in latents for node in walk(subject)
            )
            if read and isinstance(pattern, ast.Pattern) and (found := _unguided(pattern)):
                yield findings.unguided(source, _inside(pattern, found.place), found.why)


def _unguided(pattern: ast.Pattern) -> ReadPattern | None:
    """A pattern that has no automaton, as it is read instead."""
    try:
        found = read_pattern(pattern.text)
    except PatternError:
        return None
    return found if found.why else None


def _inside(pattern: ast.Pattern, place: int) -> Span:
    """One character of a pattern's text, where it was written."""
    written = [match.start() for match in re.finditer(r"\\/|.", pattern.raw[1:-1], re.DOTALL)]
    start = pattern.span.start + 1 + written[min(place, len(written) - 1)]
    return Span(start, start + 1)
