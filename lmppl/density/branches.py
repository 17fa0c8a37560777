"""The program that one row has: what its givens and observed choices say of guards, decided first.

A term that is not there is left out. A latent that is not there stays, with a guard that never
holds: its value is the absent one, and later contexts read nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from lmppl import ir
from lmppl.data import Row
from lmppl.errors import LmpplError
from lmppl.expressions import Absent, Environment, EvaluationError, Helper, Value, evaluate, truth
from lmppl.findings import branches as findings
from lmppl.source import Span

NEVER = ir.Constant(False, Span(0, 0))
T = TypeVar("T", bound="ir.Latent | ir.Factor | ir.Statistic")


def decided(program: ir.Program, row: Row, helpers: Mapping[str, Helper]) -> ir.Program:
    """The program with every guard decided that reads nothing which is to be inferred. Raises
    LmpplError where one has no value.
    """
    parts = (*program.latents, *program.factors, *program.statistics)
    if all(part.guard is None for part in parts):
        return program
    deciding = _Deciding(program, helpers, dict(row.givens))
    latents = []
    for latent in program.latents:
        latents.append(deciding.latent(latent))
        if latent.name in row.observed:
            deciding.known.setdefault(latent.name, row.observed[latent.name])
    return replace(
        program,
        latents=tuple(latents),
        factors=tuple(deciding.there(program.factors)),
        statistics=tuple(map(deciding.statistic, program.statistics)),
    )


def is_never(guard: ir.Guard | None) -> bool:
    """Whether a row has not what is guarded, whatever is inferred."""
    return guard is not None and guard.expression == NEVER


def judged_by(program: ir.Program, constraint: ir.Constraint) -> frozenset[str]:
    """Latents that tell whether a constraint is met. Its guard's are none of them where what it
    reads is there under the same guard: where that does not hold, there is nothing to guide.
    """
    read = program.latents_behind(ir.reads(constraint.expression))
    latents = [latent for latent in program.latents if latent.name in read]
    guard = constraint.guard
    if guard is not None and all(
        latent.guard is not None and latent.guard.written == guard.written for latent in latents
    ):
        return frozenset(latent.name for latent in latents)
    return program.scope(constraint)


class _Open(Exception):
    """A guard reads what is to be inferred."""


class _Known(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        raise _Open


@dataclass
class _Deciding:
    program: ir.Program
    helpers: Mapping[str, Helper]
    givens: Mapping[str, Value]
    known: dict[str, Value] = field(init=False)

    def __post_init__(self) -> None:
        self.known = _Known(self.givens)

    def latent(self, latent: ir.Latent) -> ir.Latent:
        decided = self._decided(latent)
        if is_never(decided.guard):
            self.known[latent.name] = Absent(f"`{latent.name}` is not there")
        return decided

    def there(self, factors: tuple[ir.Factor, ...]) -> Iterator[ir.Factor]:
        for factor in map(self._decided, factors):
            if not is_never(factor.guard):
                yield factor

    def statistic(self, statistic: ir.Statistic) -> ir.Statistic:
        return self._decided(statistic)

    def _decided(self, part: T) -> T:
        if part.guard is None or (held := self._held(part.guard)) is None:
            return part
        return replace(part, guard=None if held else replace(part.guard, expression=NEVER))

    def _held(self, guard: ir.Guard) -> bool | None:
        """Whether a guard holds; None where it hangs on what is to be inferred."""
        try:
            return self._truth(guard.expression)
        except EvaluationError as reason:
            finding = findings.guard_failed(self.program.source, reason.span, str(reason))
            raise LmpplError(finding) from None

    def _truth(self, expression: ir.Expression) -> bool | None:
        """As `_held`; a side of `and` or `or` that settles it needs no other."""
        if isinstance(expression, ir.Apply) and expression.function in ("and", "or"):
            sides = [self._truth(side) for side in expression.arguments]
            settling = expression.function == "or"
            return settling if settling in sides else None if None in sides else not settling
        derived = _Known({one.name: one.expression for one in self.program.derived})
        environment = Environment(
            self.known, helpers=self.helpers, folder=self.program.folder, derived=derived
        )
        try:
            return truth(evaluate(expression, environment), expression)
        except _Open:
            return None
