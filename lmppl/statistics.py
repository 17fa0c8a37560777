"""Statistics that a program declares: the number that a state has, and what is said of draws that have none.

A statistic adds nothing to the density, so that nothing it does ends a run: where an expression has no value, it is no
number (NaN), and where it has a limit, such as log(0), it is that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lmppl import ir
from lmppl.draws import Draw
from lmppl.functions import Environment, EvaluationError, evaluate, number
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


def said(program: ir.Program, draws: Sequence[Draw], reasons: Callable[[int], Mapping[str, str]]) -> list[str]:
    """One line a statistic that is no number, or infinite, in some draws. reasons: of the draw of this place."""
    lines = []
    for statistic in program.statistics:
        name, line = statistic.name, program.source.position(statistic.span.start)[0]
        values = [draw.statistics[name] for draw in draws]
        if missing := [i for i, value in enumerate(values) if math.isnan(value)]:
            reason = reasons(missing[0]).get(name, "")
            rest = "its row of the table is about the others" if len(missing) < len(draws) else "it has no summary"
            lines.append(
                f"statistic `{name}` (line {line}) is no number in {len(missing)} of {len(draws)} draws, such as "
                f"{_shown(draws[missing[0]])}{f' ({reason})' if reason else ''}: {rest}"
            )
        for infinite, sign in ((-math.inf, "−∞"), (math.inf, "∞")):
            if count := values.count(infinite):
                lines.append(
                    f"statistic `{name}` (line {line}) is {sign} in {count} of {len(draws)} draws, and so is its mean: "
                    "look at its quantiles"
                )
    return lines


def _shown(draw: Draw) -> str:
    return ", ".join(f"{name} = {text!r:.60}" for name, text in draw.values.items()) or "the data as they are"
