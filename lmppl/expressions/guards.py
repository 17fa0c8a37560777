"""Whether two latents under guards are both there in some case: by the options of the choices that
their guards read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lmppl import ir
from lmppl.expressions.functions import Environment, EvaluationError, Value, evaluate, truth
from lmppl.expressions.values import Absent, Helper

MOST_CASES = 10_000  # that are looked at
NOTHING = Absent("it is not there")
Case = dict[str, Value]  # what choices are


class Unknown(Exception):
    """A value that is not known yet is asked for."""


class Known(dict[str, Any]):
    """Values by name, which say by `Unknown` that they have none."""

    def __missing__(self, name: str) -> Any:
        raise Unknown


def settled(
    program: ir.Program,
    expression: ir.Expression,
    known: Mapping[str, Value],
    helpers: Mapping[str, Helper] | None = None,
) -> bool | None:
    """Whether an expression holds; None where that hangs on what is not known. A side of `and` or
    `or` that settles it needs no other. Raises EvaluationError.
    """
    if isinstance(expression, ir.Apply) and expression.function in ("and", "or"):
        sides = [settled(program, side, known, helpers) for side in expression.arguments]
        settling = expression.function == "or"
        return settling if settling in sides else None if None in sides else not settling
    derived = Known({one.name: one.expression for one in program.derived})
    own = Known(helpers or {})
    environment = Environment(Known(known), helpers=own, folder=program.folder, derived=derived)
    try:
        return truth(evaluate(expression, environment), expression)
    except Unknown:
        return None


def both_hold(
    program: ir.Program,
    first: ir.Latent,
    second: ir.Latent,
    known: Mapping[str, Value] | None = None,
    helpers: Mapping[str, Helper] | None = None,
) -> Case | None:
    """A case in which two latents are both there for certain; None where none is found. known:
    values of a row.
    """
    finding = _Cases(program, dict(known or {}), helpers)
    read = program.latents_behind([*ir.guarded(first.guard), *ir.guarded(second.guard)])
    for case in islice(finding.cases(finding.closed(read)), MOST_CASES):
        if finding.is_there(first, case) and finding.is_there(second, case):
            return case
    return None


@dataclass(frozen=True)
class _Cases:
    program: ir.Program
    known: Case
    helpers: Mapping[str, Helper] | None

    def closed(self, names: frozenset[str]) -> list[ir.ChoiceLatent]:
        """Choices of these names, and those that their guards read, in program order."""
        wanted = set(names)
        for choice in reversed(self.program.choices):
            if choice.name in wanted:
                wanted |= self.program.latents_behind(ir.guarded(choice.guard))
        return [choice for choice in self.program.choices if choice.name in wanted]

    def cases(self, choices: list[ir.ChoiceLatent]) -> Iterator[Case]:
        """What choices can be together, one after the other."""
        cases: Iterator[Case] = iter([{}])
        for choice in choices:
            cases = self._with(choice, cases)
        return cases

    def _with(self, choice: ir.ChoiceLatent, cases: Iterator[Case]) -> Iterator[Case]:
        for case in cases:
            there = self.is_there(choice, case)
            values: list[Value] = [] if there is False else [*choice.options]
            own = self.known.get(choice.name)
            values = [value for value in values if own is None or value == own]
            for value in [*values, *([] if there else [NOTHING])]:
                yield {**case, choice.name: value}

    def is_there(self, latent: ir.Latent, case: Case) -> bool | None:
        if latent.guard is None:
            return True
        try:
            values = {**self.known, **case}
            return settled(self.program, latent.guard.expression, values, self.helpers)
        except EvaluationError:
            return None
