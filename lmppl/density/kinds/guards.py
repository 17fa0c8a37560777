"""What stands behind `when`, bound to a row: which of some states have what it guards.

What a row decides by itself is decided before anything is bound (density/branches.py), so that a
bound guard always reads a choice that is to be inferred.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.density.binder import Binder
from lmppl.density.branches import is_never
from lmppl.density.context import Fixed
from lmppl.density.scoring import Entry, Scored
from lmppl.density.views import View
from lmppl.errors import LmpplError
from lmppl.expressions import EvaluationError, evaluate, truth
from lmppl.findings import branches as findings
from lmppl.lm import Tokens
from lmppl.source import Source


@dataclass(frozen=True)
class BoundGuard:
    """A guard that choices decide. Its answers are kept: choices have few values."""

    guard: ir.Guard
    reads: frozenset[str]  # choices
    source: Source
    _known: dict[tuple, bool] = field(default_factory=dict, repr=False, compare=False)

    def holds(self, view: View) -> bool:
        """Whether a state has what is guarded. Raises LmpplError where that cannot be told."""
        key = tuple(view.choices[name] for name in sorted(self.reads))
        if key not in self._known:
            self._known[key] = self._evaluated(view)
        return self._known[key]

    def _evaluated(self, view: View) -> bool:
        expression = self.guard.expression
        try:
            return truth(evaluate(expression, view.environment), expression)
        except EvaluationError as reason:
            finding = findings.guard_failed(self.source, reason.span, str(reason))
            raise LmpplError(finding) from None


def bind_guard(binder: Binder, part: ir.Latent | ir.ScoredText | ir.Expressed) -> BoundGuard | None:
    """The guard of a latent or a factor; None where it has none."""
    if part.guard is None:
        return None
    reads = binder.program.latents_behind(part.guard.reads)
    return BoundGuard(part.guard, reads, binder.program.source)


def observe_absent(binder: Binder, latent: ir.Latent, value: Tokens | int) -> None:
    """Take the latent as one that the row has not; a finding where the row has a value of it."""
    if latent.shown in binder.row.observed and not _arms(binder, latent):
        binder.findings.append(findings.observed_absent(latent, binder.program.source))
    binder.observed[latent.name] = Fixed("", ()), value


def is_observed(binder: Binder, latent: ir.Latent) -> bool:
    """Whether the row has a value of a latent that it may have; a finding where it cannot be told
    of which arm that is.
    """
    if latent.shown not in binder.row.observed:
        return False
    if latent.guard is not None and _arms(binder, latent):
        binder.findings.append(findings.observed_arm(binder.program.source, latent))
        return False
    return True


def _arms(binder: Binder, latent: ir.Latent) -> list[ir.Latent]:
    """Other arms of a latent's name that the row may have."""
    return [
        other
        for other in binder.program.latents
        if other.shown == latent.shown and other is not latent and not is_never(other.guard)
    ]


def reads_of(guard: BoundGuard | None) -> frozenset[str]:
    """Choices that a guard reads."""
    return frozenset() if guard is None else guard.reads


def present(guard: BoundGuard | None, views: Sequence[View]) -> NDArray[np.bool_]:
    """(N,) which states have what is guarded: all, where nothing guards it."""
    return np.array([guard is None or guard.holds(view) for view in views], dtype=bool)


def where_present(
    guard: BoundGuard | None, views: Sequence[View], ask: Callable[[Sequence[View]], Entry]
) -> Entry:
    """What is asked of the states that have what is guarded; of the others nothing, which are 0."""
    if guard is None:
        return ask(views)
    rows = np.flatnonzero(present(guard, views)).tolist()
    entry = ask([views[row] for row in rows])
    scored = [_of_rows(one, rows) for one in entry.scored]
    return Entry(
        scored, lambda scores, fold: fold.placed(rows, entry.fold(scores, fold), len(views))
    )


def _of_rows(asked: Scored, rows: Sequence[int]) -> Scored:
    """What is asked of some of the states, by their places among all."""
    return replace(asked, owners=[rows[owner] for owner in asked.owners])
