"""What a finding is, and the one exception that carries findings to the user.

Stages return diagnostics as values; only `raise_errors` and the code that runs after binding raise.
The findings themselves are constructed in `findings.py`, one function each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

from lmppl.source import Source, Span
from lmppl.wording import in_python

if TYPE_CHECKING:
    from lmppl.posterior import Posterior

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


class LmpplError(Exception):
    """One or more findings, at least one of them an error. The only exception users see."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__(*diagnostics)
        self.diagnostics = diagnostics
        self.posterior: Posterior | None = None  # what a run from Python had found before the error, where it had

    def __str__(self) -> str:
        """Every finding whole, with its place and its lines, in the words of Python."""
        from lmppl.report.diagnostics import render_full

        return "\n".join(
            render_full(_in_python(finding)) + (f"\n(and {more} more of this kind)" if more else "")
            for finding, more in abridged(self.diagnostics)
        )

    @property
    def message(self) -> str:
        """What is wrong, in short, in the words of the command."""
        return "; ".join(
            f"{finding.message} (and {more} more of this kind)" if more else finding.message
            for finding, more in abridged(self.diagnostics)
        )


def _in_python(diagnostic: Diagnostic) -> Diagnostic:
    words = {name: in_python(text) for name in ("message", "expected", "help") if (text := vars(diagnostic)[name])}
    return replace(diagnostic, **words)


SHOWN = 10  # findings of one kind that are shown


def abridged(findings: Iterable[Diagnostic], most: int = SHOWN) -> list[tuple[Diagnostic, int]]:
    """Findings to show, each with how many more of its kind are not: of one kind, as over many rows, the first few.

    Of a kind are findings of one code that say the same but for numbers and quoted values.
    """
    kinds: dict[tuple[str, str, str], list[Diagnostic]] = {}
    for finding in findings:
        shape = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`|[0-9]+", "", finding.message)
        kinds.setdefault((finding.severity, finding.code, shape), []).append(finding)
    more = {id(kind[min(most, len(kind)) - 1]): len(kind) - most for kind in kinds.values()}
    shown = {id(finding) for kind in kinds.values() for finding in kind[:most]}
    ordered = (finding for kind in kinds.values() for finding in kind)
    return [(finding, max(more.get(id(finding), 0), 0)) for finding in ordered if id(finding) in shown]


def error(
    code: str, message: str, source: Source | None = None, span: Span | None = None, **more: str | None
) -> Diagnostic:
    """An error; `more` may hold expected, found and help."""
    return Diagnostic("error", code, message, source, span, **more)


def warning(
    code: str, message: str, source: Source | None = None, span: Span | None = None, **more: str | None
) -> Diagnostic:
    """A warning; `more` may hold expected, found and help."""
    return Diagnostic("warning", code, message, source, span, **more)


LISTED = 40  # names that are listed where none is close


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """A help line that names the closest candidate, or lists them all when none is close."""
    names = sorted(set(candidates))
    close = get_close_matches(name, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    more = f", … and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"known here: {', '.join(names[:LISTED])}{more}" if names else None


def first_line(reason: BaseException) -> str:
    """The first line that says something of another library's error, cut; its kind where none does.

    A line that ends in a colon announces the next.
    """
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    said = [line for line in lines if not line.endswith(":")]
    return (said or lines or [type(reason).__name__])[0][:200]


def raise_errors(diagnostics: Iterable[Diagnostic]) -> None:
    """Raise LmpplError with all findings if any of them is an error."""
    found = tuple(diagnostics)
    if any(diagnostic.severity == "error" for diagnostic in found):
        raise LmpplError(*found)


@contextmanager
def at(source: Source, span: Span) -> Iterator[None]:
    """Within it, findings that are raised without a place are at this one."""
    try:
        yield
    except LmpplError as reason:
        found = reason.diagnostics
        raise LmpplError(*(one if one.source else replace(one, source=source, span=span) for one in found)) from None


# what libraries say of it that raise no MemoryError: torch's allocator, the loader of shared objects, the system
_NO_MEMORY = re.compile("can't allocate memory|failed to map segment|cannot allocate memory", re.IGNORECASE)


def ran_out_of_memory(reason: BaseException) -> bool:
    """Whether an error, or one that led to it, is the machine's: of Python, of CUDA, or of a library that says so."""
    kinds = {kind.__name__ for kind in type(reason).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"} or _NO_MEMORY.search(str(reason)):
        return True
    before = reason.__cause__ or reason.__context__
    return before is not None and ran_out_of_memory(before)
