"""What a run of all rows is to be: its engine and sizes, by what was asked for and by the
budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lmppl.density import Target
from lmppl.engines import (
    FEW,
    Outcome,
    RowJob,
    engine,
    finite_states,
    listed_states,
    traits,
)
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.posterior import RowPosterior
from lmppl.run.automatic import PATIENCE, choose, default_budget
from lmppl.run.session import Session
from lmppl.run.sizing import (
    FIRST,
    PILOTED,
    EngineRequest,
    Purse,
    Run,
    Sized,
    Trials,
    fit,
    flags,
    in_time,
    needed,
)
from lmppl.run.training_data import TrainingData, runner

Draw = Callable[[Sequence[RowJob]], Iterator[Outcome]]


@dataclass(frozen=True)
class Job:
    """A session that is to be run, and what it may spend. made_from: all that decides its
    density.
    """

    session: Session
    made_from: Mapping[str, Any] = field(default_factory=dict)
    purse: Purse | None = None
    sized: Sized | None = None  # what was sized, as one would ask for it
    draws: int = 0  # a chain, where they were sized
    trials: Trials = field(default_factory=Trials)

    def outcomes(
        self, draw: Draw, targets: Sequence[Target], row_jobs: Sequence[RowJob]
    ) -> Iterator[Outcome]:
        """Of all rows, those in time where there is a time."""
        if self.purse is None or self.session.engine.learn is not None:
            return draw(row_jobs)
        run, asked = _runs(self, targets), _engine_request(self)
        small = lambda row_job: run(asked, asked.of_size(FIRST), [row_job])[0]  # noqa: E731
        return in_time(
            row_jobs,
            lambda row_job: next(draw([row_job])),
            self.purse,
            self.trials,
            self.draws,
            small,
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
        spent = {"spent": self.purse.spent, "again": flags(self.session.engine.name, self.sized)}
        return {"budget": {**asdict(self.purse.budget), **spent}}


def planned(job: Job, targets: Sequence[Target], row_jobs: Sequence[RowJob]) -> Job:
    """The job with the sizes that its budget has room for. Raises LmpplError."""
    request, chosen = job.session.request, job.session.engine
    if request.resume and request.budget is not None:
        raise LmpplError(learning_findings.budget_and_resume())
    auto = (
        request.engine == "auto"
        and job.session.program.engine is None
        and chosen.name == "annealed"
    )
    free = auto and not request.options and set(request.settings) <= {"chains", "num_samples"}
    if free and request.quick and row_jobs and (known := _listed(job, row_jobs)):
        return known
    frugal = request.budget is None
    slow = any(model.slow for model in job.session.models.values())
    if not row_jobs or (frugal and not (free and request.quick and slow)):
        return job
    budget = request.budget or default_budget(len(row_jobs))
    purse = Purse.of(budget, job.session.models, PATIENCE if frugal else None)
    run = _runs(job, targets)
    if free:
        choice = choose(row_jobs, run, purse, frugal, request.settings)
        return _resized(job, choice.asked, choice.reason, choice.draws, purse, choice.trials)
    asked = _engine_request(job)
    if traits(chosen.name).whole and all(
        listed_states(row_job.target, job.session.options) is not None for row_job in row_jobs
    ):
        return replace(job, purse=purse)
    draws, trials = fit(asked, row_jobs, run, purse)
    return _resized(job, asked, job.session.reason, draws, purse, trials)


def _listed(job: Job, row_jobs: Sequence[RowJob]) -> Job | None:
    """The job to enumerate, where masks leave few texts possible in every row."""
    most = 0
    for row_job in row_jobs[:PILOTED]:
        states = finite_states(row_job.target, FEW)
        if states is None:
            return None
        most = max(most, len(states))
    reason = f"masks leave at most {most} ways to write a text possible"
    exact = engine("exact")
    return replace(job, session=job.session.changed(exact, reason, job.session.request))


def _engine_request(job: Job) -> EngineRequest:
    request = job.session.request
    learns = job.session.engine.learn is not None and request.adapter is None
    return EngineRequest(job.session.engine, request.settings, request.options, learns)


def _resized(
    job: Job, asked: EngineRequest, reason: str, draws: int, purse: Purse, trials: Trials
) -> Job:
    sized = asked.of_size(draws)
    request = replace(job.session.request, settings=sized[0], options=sized[1])
    session = job.session.changed(asked.engine, reason, request)
    return replace(job, session=session, purse=purse, sized=sized, draws=draws, trials=trials)


def _runs(job: Job, targets: Sequence[Target]) -> Run:
    """Small runs of the job's rows: nothing is kept of what they learn."""

    def run(asked: EngineRequest, sized: Sized, row_jobs: Sequence[RowJob]) -> list[Outcome]:
        request = replace(job.session.request, settings=sized[0], options=sized[1], folder=None)
        session = job.session.changed(asked.engine, job.session.reason, request)
        data = TrainingData(replace(session, request=request), job.made_from)
        with runner(data, targets) as running:
            return list(running.draw(row_jobs))

    return run
