"""What a run of all rows is to be: its engine and sizes, by what was asked for and by the
budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lmppl.density import Target
from lmppl.engines import (
    FEW,
    Engine,
    Outcome,
    Settings,
    Turn,
    engine,
    finite_states,
    listed_states,
    traits,
)
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.posterior import RowPosterior
from lmppl.run.automatic import PATIENCE, choose, default_budget
from lmppl.run.sizing import (
    FIRST,
    PILOTED,
    Asked,
    Purse,
    Run,
    Sized,
    Trials,
    fit,
    flags,
    in_time,
    needed,
)
from lmppl.run.training_data import Course, Request, runner

Configure = Callable[[Engine, Request], tuple[Settings, Any]]
Draw = Callable[[Sequence[Turn]], Iterator[Outcome]]


@dataclass(frozen=True)
class Plan:
    """An engine, why it is taken, its settings and options in a course, and what it may spend."""

    chosen: Engine
    reason: str
    course: Course
    configure: Configure
    purse: Purse | None = None
    sized: Sized | None = None  # what was sized, as one would ask for it
    draws: int = 0  # a chain, where they were sized
    trials: Trials = field(default_factory=Trials)

    def outcomes(
        self, draw: Draw, targets: Sequence[Target], turns: Sequence[Turn]
    ) -> Iterator[Outcome]:
        """Of all rows, those in time where there is a time."""
        if self.purse is None or self.chosen.learn is not None:
            return draw(turns)
        run, asked = _runs(self, targets), _asked(self)
        small = lambda turn: run(asked, asked.of_size(FIRST), [turn])[0]  # noqa: E731
        return in_time(
            turns, lambda turn: next(draw([turn])), self.purse, self.trials, self.draws, small
        )

    def needs(self, row: RowPosterior) -> list[str]:
        """What a row that does not pass would need, where that is known."""
        if self.purse is None:
            return []
        budget = self.purse.budget
        found = needed(row.checks, self.purse.spent, budget.unit)
        return [found] if found else []

    def document(self) -> dict[str, Any]:
        """What is kept of it with a run."""
        if self.purse is None or self.sized is None:
            return {}
        spent = {"spent": self.purse.spent, "again": flags(self.chosen.name, self.sized)}
        return {"budget": {**asdict(self.purse.budget), **spent}}


def planned(plan: Plan, targets: Sequence[Target], turns: Sequence[Turn]) -> Plan:
    """The plan with the sizes that its budget has room for. Raises LmpplError."""
    request, chosen = plan.course.request, plan.chosen
    if request.resume and request.budget is not None:
        raise LmpplError(learning_findings.budget_and_resume())
    auto = (
        request.engine == "auto"
        and plan.course.program.engine is None
        and chosen.name == "annealed"
    )
    free = auto and not request.settings and not request.options
    if free and request.quick and turns and (known := _listed(plan, turns)):
        return known
    frugal = request.budget is None
    slow = any(model.slow for model in plan.course.models.values())
    if not turns or (frugal and not (free and request.quick and slow)):
        return plan
    budget = request.budget or default_budget(len(turns))
    purse = Purse.of(budget, plan.course.models, PATIENCE if frugal else None)
    run = _runs(plan, targets)
    if free:
        choice = choose(turns, run, purse, frugal)
        return _resized(plan, choice.asked, choice.reason, choice.draws, purse, choice.trials)
    asked = _asked(plan)
    if traits(chosen.name).whole and all(
        listed_states(turn.target, plan.course.options) is not None for turn in turns
    ):
        return replace(plan, purse=purse)
    draws, trials = fit(asked, turns, run, purse)
    return _resized(plan, asked, plan.reason, draws, purse, trials)


def _listed(plan: Plan, turns: Sequence[Turn]) -> Plan | None:
    """The plan to enumerate, where masks leave few texts possible in every row."""
    most = 0
    for turn in turns[:PILOTED]:
        states = finite_states(turn.target, FEW)
        if states is None:
            return None
        most = max(most, len(states))
    reason = f"masks leave at most {most} ways to write a text possible"
    exact = engine("exact")
    settings, options = plan.configure(exact, plan.course.request)
    return replace(
        plan,
        chosen=exact,
        reason=reason,
        course=replace(plan.course, settings=settings, options=options),
    )


def _asked(plan: Plan) -> Asked:
    request = plan.course.request
    learns = plan.chosen.learn is not None and request.adapter is None
    return Asked(plan.chosen, request.settings, request.options, learns)


def _resized(
    plan: Plan, asked: Asked, reason: str, draws: int, purse: Purse, trials: Trials
) -> Plan:
    sized = asked.of_size(draws)
    request = replace(plan.course.request, settings=sized[0], options=sized[1])
    settings, options = plan.configure(asked.engine, request)
    course = replace(plan.course, settings=settings, options=options)
    return replace(
        plan,
        chosen=asked.engine,
        reason=reason,
        course=course,
        purse=purse,
        sized=sized,
        draws=draws,
        trials=trials,
    )


def _runs(plan: Plan, targets: Sequence[Target]) -> Run:
    """Small runs of the plan's rows: nothing is kept of what they learn."""

    def run(asked: Asked, sized: Sized, turns: Sequence[Turn]) -> list[Outcome]:
        request = replace(plan.course.request, settings=sized[0], options=sized[1], folder=None)
        settings, options = plan.configure(asked.engine, request)
        course = replace(plan.course, request=request, settings=settings, options=options)
        with runner(asked.engine, targets, course) as running:
            return list(running.draw(turns))

    return run
