"""The one exception that users see, which carries findings; and what is known of exceptions of
others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from lmppl.errors.diagnostic import Diagnostic, abridged
from lmppl.errors.rendering import render_full
from lmppl.screen import in_python
from lmppl.source import Source, Span


class LmpplError(Exception):
    """One or more findings, at least one of them an error. The only exception users see."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__(*diagnostics)
        self.diagnostics = diagnostics
        # what a run from Python had found before the error, where it had
        self.posterior: Any = None

    def __str__(self) -> str:
        """Every finding whole, with its place and its lines, in the words of Python."""
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
    words = {
        name: in_python(text)
        for name in ("message", "expected", "help")
        if (text := vars(diagnostic)[name])
    }
    return replace(diagnostic, **words)


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
        raise LmpplError(
            *(one if one.source else replace(one, source=source, span=span) for one in found)
        ) from None


# what libraries say of it that raise no MemoryError: torch's allocator, the loader of shared
# objects, the system
_NO_MEMORY = re.compile(
    "can't allocate memory|failed to map segment|cannot allocate memory", re.IGNORECASE
)


def ran_out_of_memory(reason: BaseException) -> bool:
    """Whether an error, or one that led to it, is the machine's: of Python, of CUDA, or of a
    library that says so.
    """
    kinds = {kind.__name__ for kind in type(reason).__mro__}
    if kinds & {"MemoryError", "OutOfMemoryError"} or _NO_MEMORY.search(str(reason)):
        return True
    before = reason.__cause__ or reason.__context__
    return before is not None and ran_out_of_memory(before)
