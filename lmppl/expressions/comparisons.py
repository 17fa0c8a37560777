"""Comparisons that never hold, whatever the latents are: their two sides have no value in
common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from lmppl.expressions.functions import FUNCTIONS, Value, as_number, same
from lmppl.ir import (
    Apply,
    Constant,
    Expression,
    Program,
    Read,
    reads,
)


@dataclass(frozen=True)
class Side:
    """What a side of a comparison can be: these values, any number, or anything at all."""

    values: tuple[Value, ...] = ()
    number: bool = False

    @property
    def anything(self) -> bool:
        return not self.values and not self.number


@dataclass(frozen=True)
class Unequal:
    """A comparison by `==` or `!=` whose sides are never equal."""

    comparison: Apply
    sides: tuple[Side, Side]


def never_equal(program: Program, givens: Mapping[str, str] | None = None) -> Iterator[Unequal]:
    """Comparisons in constraints, factors, statistics, derived values and guards that read a latent
    and whose sides are never equal.

    givens: texts of a row. Of a row, only comparisons that read one of them are looked at, and only
    `==`: that a row's text is none of the options, say, is what `!=` is written for.
    """
    latents = {latent.name for latent in program.latents}
    choices = {latent.name: latent.options for latent in program.choices}
    values = {**choices, **{name: (text,) for name, text in (givens or {}).items()}}
    parts = (*program.latents, *program.factors, *program.statistics)
    guards = [part.guard for part in parts if part.guard is not None]
    stated = (*program.expressions, *program.derived, *program.statistics, *guards)
    for comparison in _comparisons(statement.expression for statement in stated):
        read = program.sources(reads(comparison))
        asked = givens is None or (comparison.function == "==" and read & {*givens})
        if asked and read & latents:
            left, right = (_side(argument, values) for argument in comparison.arguments)
            if _apart(left, right):
                yield Unequal(comparison, (left, right))


def _comparisons(expressions: Iterable[Expression]) -> Iterator[Apply]:
    for expression in expressions:
        if isinstance(expression, Apply):
            if expression.function in ("==", "!="):
                yield expression
            yield from _comparisons(expression.arguments)


def _side(expression: Expression, values: Mapping[str, tuple[str, ...]]) -> Side:
    """values: what names can be, where that is known."""
    if isinstance(expression, Constant):
        return Side((expression.value,))
    if isinstance(expression, Read):
        return Side(values.get(expression.name, ()))
    function = FUNCTIONS.get(expression.function) if isinstance(expression, Apply) else None
    return Side(number=function is not None and function.result in ("number", "boolean"))


def _apart(left: Side, right: Side) -> bool:
    if left.anything or right.anything or (left.number and right.number):
        return False
    if left.number or right.number:
        return all(math.isnan(as_number(value)) for value in (left.values or right.values))
    return not any(same(one, other) for one in left.values for other in right.values)
