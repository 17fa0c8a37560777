"""The program that one row has: what its givens and observed choices say of guards, decided first.

A term that is not there is left out. A latent that is not there stays, with a guard that never
holds: its value is the absent one, and later contexts read nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, TypeVar

from lmppl import ir
from lmppl.data import Row
from lmppl.errors import LmpplError
from lmppl.expressions import Absent, EvaluationError, Helper, Value, both_hold, settled
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
        if latent.shown in row.observed and latents[-1].guard is None:
            deciding.known[latent.name] = row.observed[latent.shown]
    own = replace(
        program,
        latents=tuple(latents),
        factors=tuple(deciding.there(program.factors)),
        statistics=tuple(map(deciding.statistic, program.statistics)),
    )
    _require_apart(own, deciding)
    return _read_directly(own)


def _require_apart(program: ir.Program, deciding: _Deciding) -> None:
    """Raise LmpplError where two arms of one name are both there in the row."""
    there = [one for one in program.latents if one.arm_of and not is_never(one.guard)]
    for first, second in combinations(there, 2):
        if first.arm_of == second.arm_of:
            case = both_hold(program, first, second, deciding.known, deciding.helpers)
            if case is not None:
                line, _ = program.source.position(first.span.start)
                finding = findings.overlapping_arms(
                    program.source, second, line, case, "in this row"
                )
                raise LmpplError(finding)


def _read_directly(program: ir.Program) -> ir.Program:
    """The program with what reads one of several arms reading the only one that the row may
    have.
    """
    gone = {latent.name for latent in program.latents if is_never(latent.guard)}
    if not any(latent.arm_of for latent in program.latents if latent.name in gone):
        return program

    def read(expression: ir.Expression) -> ir.Expression:
        if not isinstance(expression, ir.Apply):
            return expression
        arguments = tuple(map(read, expression.arguments))
        if expression.function != ir.ARMS:
            return replace(expression, arguments=arguments)
        left = [one for one in arguments if not {*ir.reads(one)} <= gone] or arguments[:1]
        return left[0] if len(left) == 1 else replace(expression, arguments=tuple(left))

    def reading(part: Any) -> Any:
        return replace(part, expression=read(part.expression))

    factors = (reading(f) if isinstance(f, ir.Expressed) else f for f in program.factors)
    return replace(
        program,
        factors=tuple(factors),
        derived=tuple(map(reading, program.derived)),
        statistics=tuple(map(reading, program.statistics)),
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


@dataclass
class _Deciding:
    program: ir.Program
    helpers: Mapping[str, Helper]
    givens: Mapping[str, Value]
    known: dict[str, Value] = field(init=False)

    def __post_init__(self) -> None:
        self.known = dict(self.givens)

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
            return settled(self.program, guard.expression, self.known, self.helpers)
        except EvaluationError as reason:
            finding = findings.guard_failed(self.program.source, reason.span, str(reason))
            raise LmpplError(finding) from None
