"""Statistics and derived values that a program declares: what a state has of them.

A statistic adds nothing to the density, so that nothing it does ends a run: where an expression has
no value, it is no number (NaN), and where it has a limit, such as log(0), it is that. So it is of
derived values that are reported: one that has no value is absent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lmppl.expressions import Absent, Environment, EvaluationError, Value, evaluate, number, truth
from lmppl.ir import Guard, Statistic


@dataclass(frozen=True)
class Number:
    """A statistic of one state. reason: why it is no number, where something failed; else empty."""

    value: float
    reason: str = ""


def number_of(statistic: Statistic, environment: Environment) -> Number:
    """The number that a statistic has; truths are 0 or 1. There is none where its guard does not
    hold.
    """
    expression, environment = statistic.expression, replace(environment, limits=True)
    try:
        guard = statistic.guard
        if guard is not None and not _holds(guard, environment):
            return Number(math.nan, f"`when {guard.written}` does not hold")
        return Number(number(evaluate(expression, environment), expression))
    except EvaluationError as reason:
        return Number(math.nan, str(reason))


def _holds(guard: Guard, environment: Environment) -> bool:
    return truth(evaluate(guard.expression, environment), guard.expression)


def value_of(name: str, environment: Environment) -> Value:
    """The value that a derived name has, or the reason why there is none."""
    try:
        return environment.value(name)
    except EvaluationError as reason:
        return Absent(str(reason))
