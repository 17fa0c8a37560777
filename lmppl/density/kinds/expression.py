"""Constraints and scores: expressions of texts and numbers, of which no model is asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.density.binder import Binder
from lmppl.density.kinds.guards import BoundGuard, bind_guard
from lmppl.density.terms import BoundTerm
from lmppl.density.views import View
from lmppl.errors import LmpplError, error
from lmppl.expressions import EvaluationError, evaluate, interval, number, truth
from lmppl.source import Source, Span


@dataclass(frozen=True)
class BoundExpression:
    """A constraint, whose value is 0 or -inf, or a score, whose value is the expression's."""

    factor: ir.Constraint | ir.Score
    reads: frozenset[str]  # latents
    whole: ir.Expression  # the factor's, with what derived names stand for in their place
    source: Source
    absent: frozenset[str] = frozenset()  # latents that need not be there
    guard: BoundGuard | None = None

    @property
    def name(self) -> str:
        """The factor's."""
        return self.factor.name

    @property
    def terms(self) -> tuple[BoundTerm, ...]:
        """None: no model is asked."""
        return ()

    def upper_bound(self, limits: dict[str, int]) -> float:
        """limits: most tokens of each text latent. inf where there is none."""
        if self.factor.hard:
            return 0.0
        most = interval(self.whole, limits, self.absent)[1]
        return most if self.guard is None else max(0.0, most)

    def value(self, view: View) -> float:
        """The factor's value, in nats. Raises LmpplError where it has none."""
        if self.guard is not None and not self.guard.holds(view):
            return 0.0
        expression = self.factor.expression
        try:
            found = evaluate(expression, view.environment)
            if self.factor.hard:
                return 0.0 if truth(found, expression) else -np.inf
            value = number(found, expression)
        except EvaluationError as reason:
            raise self._failed(str(reason), reason.span, view) from None
        if np.isnan(value) or value == np.inf:
            raise self._failed(f"`{self.name}` is {value}", self.factor.span, view)
        return value

    def _failed(self, message: str, span: Span, view: View) -> LmpplError:
        shown = ", ".join(f"{name} = {text!r:.100}" for name, text in view.texts.items())
        help = "exclude such values with a `constrain`: constraints are checked first"
        return LmpplError(
            error("evaluation-failed", message, self.source, span, found=shown, help=help)
        )


def bind_expression(binder: Binder, factor: ir.Constraint | ir.Score) -> BoundExpression:
    """The factor, which needs no model."""
    program, guard = binder.program, bind_guard(binder, factor)
    whole = program.expanded(factor.expression)
    own = program.scope(factor), whole, program.source, program.guarded
    return BoundExpression(factor, *own, guard)
