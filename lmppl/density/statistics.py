"""Statistics that a program declares: the number that a state has.

A statistic adds nothing to the density, so that nothing it does ends a run: where an expression has
no value, it is no number (NaN), and where it has a limit, such as log(0), it is that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lmppl.expressions import Environment, EvaluationError, evaluate, number
from lmppl.ir import Expression


@dataclass(frozen=True)
class Number:
    """A statistic of one state. reason: why it is no number, where something failed; else empty."""

    value: float
    reason: str = ""


def number_of(expression: Expression, environment: Environment) -> Number:
    """The number that an expression has; truths are 0 or 1."""
    try:
        return Number(number(evaluate(expression, replace(environment, limits=True)), expression))
    except EvaluationError as reason:
        return Number(math.nan, str(reason))
