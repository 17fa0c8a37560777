"""What a finding is: what is wrong, where, and what to do.

Stages return diagnostics as values; only `raise_errors` and the code that runs after binding raise.
The findings themselves are constructed in `findings/`, one function each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from lmppl.source import Source, Span

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Diagnostic:
    """One finding: what is wrong, where, what was expected and found, and what to do.

    `source` and `span` are None where nothing the user wrote is to blame (no network, say).
    """

    severity: Severity
    code: str  # kebab-case, stable: "unknown-name"
    message: str
    source: Source | None = None
    span: Span | None = None
    expected: str | None = None
    found: str | None = None
    help: str | None = None


SHOWN = 10  # findings of one kind that are shown


def abridged(findings: Iterable[Diagnostic], most: int = SHOWN) -> list[tuple[Diagnostic, int]]:
    """Findings to show, each with how many more of its kind are not: of one kind, as over many
    rows, the first few.

    Of a kind are findings of one code that say the same but for numbers and quoted values.
    """
    kinds: dict[tuple[str, str, str], list[Diagnostic]] = {}
    for finding in findings:
        shape = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|[0-9]+", "", finding.message)
        kinds.setdefault((finding.severity, finding.code, shape), []).append(finding)
    more = {id(kind[min(most, len(kind)) - 1]): len(kind) - most for kind in kinds.values()}
    shown = {id(finding) for kind in kinds.values() for finding in kind[:most]}
    ordered = (finding for kind in kinds.values() for finding in kind)
    return [
        (finding, max(more.get(id(finding), 0), 0)) for finding in ordered if id(finding) in shown
    ]


def error(
    code: str,
    message: str,
    source: Source | None = None,
    span: Span | None = None,
    **more: str | None,
) -> Diagnostic:
    """An error; `more` may hold expected, found and help."""
    return Diagnostic("error", code, message, source, span, **more)


def warning(
    code: str,
    message: str,
    source: Source | None = None,
    span: Span | None = None,
    **more: str | None,
) -> Diagnostic:
    """A warning; `more` may hold expected, found and help."""
    return Diagnostic("warning", code, message, source, span, **more)


LISTED = 40  # names that are listed where none is close


def is_like(name: str, candidates: Iterable[str]) -> bool:
    """Whether a name may be meant for one of these."""
    return bool(get_close_matches(name, sorted(set(candidates)), n=1))


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """A help line that names the closest candidate, or lists them all when none is close."""
    names = sorted(set(candidates))
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    more = f", … and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"known here: {', '.join(names[:LISTED])}{more}" if names else None
