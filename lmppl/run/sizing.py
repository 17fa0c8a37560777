"""Runs that keep to a budget: small runs first show what a draw costs and is worth, then one run
spends the rest.

The last run has explicit sizes, which are reported, so that flags can repeat it. What a small run
has drawn is not drawn again where the engine can go on from it. A budget in tokens gives the same
sizes everywhere; one in seconds depends on the machine. The clock is asked before every pass of a
network: a row that is not done in time is left with the draws that it has by then, or with its
small run's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lmppl.diagnosis import COUNTED_CHAINS, ESS, Check
from lmppl.engines import Engine, Interrupted, Outcome, OutOfTime, RowJob, Settings
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.lm import Cost, LanguageModel, nothing
from lmppl.settings import Budget, Point, draws_for, grown

FIRST = 4  # draws a chain of the first run, which shows what a draw costs
SECOND = 1 / 5  # share of what is left that the second run may take
SPENT = {
    "tokens": 0.95,
    "seconds": 0.75,
}  # share of what is then left that the last run is to take: clocks vary more
PILOTED = 4  # data rows that are looked at first
OVER = 1.1  # budgets of tokens after which a row is cut short
SEARCHED = 6  # prefixes of a search, a draw
EVALUATED = 16  # prefixes of an exact search, for each of what would be a draw elsewhere
MOST_SEARCHED = 384


@dataclass(frozen=True)
class Purse:
    """What may be spent from its making on. deadline: when rows are cut short, as time.perf_counter
    has it.
    """

    budget: Budget
    costs: Sequence[Cost]  # of all models, each once
    deadline: float = math.inf
    started: float = field(default_factory=time.perf_counter)
    before: int = 0

    @staticmethod
    def of(
        budget: Budget, models: Mapping[str, LanguageModel], patience: float | None = None
    ) -> Purse:
        """A full one. patience: seconds until rows are cut short; where it is None, a budget's
        own.
        """
        costs = [*{id(model.cost): model.cost for model in models.values()}.values()]
        own = budget.amount if budget.unit == "seconds" else math.inf
        started = time.perf_counter()
        return Purse(
            budget,
            costs,
            started + (own if patience is None else patience),
            started,
            _tokens(costs),
        )

    @property
    def spent(self) -> float:
        if self.budget.unit == "seconds":
            return time.perf_counter() - self.started
        return _tokens(self.costs) - self.before

    @property
    def left(self) -> float:
        return self.budget.amount - self.spent

    @property
    def over(self) -> bool:
        """Whether rows are to be cut short."""
        if self.budget.unit == "tokens" and self.spent > OVER * self.budget.amount:
            return True
        return time.perf_counter() > self.deadline

    def share(self, rows: int) -> Purse:
        """This one for the first of so many rows: its equal share of the time that is left."""
        now = time.perf_counter()
        return replace(self, deadline=now + (self.deadline - now) / rows)

    @contextmanager
    def watching(self, row_job: RowJob) -> Iterator[RowJob]:
        """The row, whose run OutOfTime ends: raised by its progress, or before a pass of a
        model.
        """

        def watch() -> None:
            if self.over:
                raise OutOfTime

        def report(what: str, done: int, total: int) -> None:
            row_job.progress(what, done, total)
            if done < total:
                watch()

        for cost in self.costs:
            cost.watch = watch
        try:
            yield replace(row_job, progress=report)
        finally:
            for cost in self.costs:
                cost.watch = nothing


def _tokens(costs: Sequence[Cost]) -> int:
    return sum(cost.tokens_decoded + cost.tokens_scored for cost in costs)


@dataclass(frozen=True)
class EngineRequest:
    """An engine, with the settings and options that were asked of it: what else there is may be
    sized.
    """

    engine: Engine
    settings: Mapping[str, int]
    options: Mapping[str, Any]
    learns: bool = False  # its training is part of the run

    def of_size(self, draws: int) -> tuple[dict[str, int], dict[str, Any]]:
        """What to ask for so that a run has about so many draws a chain, or training steps, or
        prefixes.
        """
        names = {item.name for item in fields(self.engine.options)}
        if self.learns:
            samples = min(draws, Settings().num_samples)
            return {"num_samples": samples, **self.settings}, {"steps": draws, **self.options}
        if "max_evaluations" in names:
            return dict(self.settings), {"max_evaluations": EVALUATED * draws, **self.options}
        settings, options = grown(names, self.settings, self.options, draws)
        if "search" in names:
            options = {"search": min(SEARCHED * draws, MOST_SEARCHED), **options}
        return settings, options


Sized = tuple[dict[str, int], dict[str, Any]]  # settings and options to be asked for
Run = Callable[[EngineRequest, Sized, Sequence[RowJob]], list[Outcome]]  # of some rows


@dataclass(frozen=True)
class Trials:
    """What small runs have shown. smaller: what they found of each row, with its draws a chain, the
    last of them.
    """

    points: Sequence[Point] = ()  # costs are of one row, with those of what the run went on from
    looked: int = 0  # rows that were run
    smaller: Mapping[int, tuple[int, Outcome]] = field(default_factory=dict)

    def then(self, draws: int, cost: float, looked: int, outcomes: Mapping[int, Outcome]) -> Trials:
        """These and one more."""
        found = {number: (draws, outcome) for number, outcome in outcomes.items()}
        return Trials([*self.points, Point(draws, cost)], looked, {**self.smaller, **found})

    def outcome(self, number: int) -> Outcome | None:
        """The last of this row."""
        return self.smaller[number][1] if number in self.smaller else None

    def kept(self, asked: EngineRequest) -> float:
        """What was paid for all draws that a larger run goes on from."""
        return self.looked * self.points[-1].cost if asked.engine.go_on and self.points else 0.0

    def room(self, asked: EngineRequest, left: float, rows: int) -> int:
        """Draws a chain of each row, those that a run goes on from included, where so much is left
        to spend.
        """
        return draws_for(self.points, (left + self.kept(asked)) / rows)


def try_out(
    asked: EngineRequest,
    draws: int,
    row_jobs: Sequence[RowJob],
    run: Run,
    purse: Purse,
    trials: Trials,
    patient: bool = False,
) -> Trials:
    """A small run of the first rows, as many as there is time for. That it finds nothing possible
    is no error yet.

    patient: the first row takes the time that it takes. Raises LmpplError where no row is done
    within the budget.
    """
    before, sized = purse.spent, asked.of_size(draws)
    # who learns sees all rows at once
    groups = [row_jobs] if asked.learns else [[row_job] for row_job in row_jobs[:PILOTED]]
    outcomes: dict[int, Outcome] = {}
    looked = 0
    for number, group in enumerate(groups):
        row_job = replace(group[0], earlier=trials.outcome(number))
        try:
            with (
                nullcontext(row_job) if patient and not number else purse.watching(row_job) as seen,
                suppress(LmpplError),
            ):
                outcomes.update(enumerate(run(asked, sized, [seen, *group[1:]]), number))
        except KeyboardInterrupt as stopped:
            if not _by_clock(stopped):
                raise
            break
        looked += len(group)
    if not looked and trials.points:
        return trials
    if not looked:
        raise LmpplError(
            learning_findings.budget_too_small(asked.engine.name, str(purse.budget), draws)
        )
    paid = trials.kept(asked) / max(trials.looked, 1)
    return trials.then(draws, paid + (purse.spent - before) / looked, looked, outcomes)


def _by_clock(stopped: KeyboardInterrupt) -> bool:
    """Whether it was the clock that ended a run, not Ctrl-C: engines that catch one raise from
    it.
    """
    return isinstance(stopped, OutOfTime) or isinstance(stopped.__context__, OutOfTime)


def fit(
    asked: EngineRequest,
    row_jobs: Sequence[RowJob],
    run: Run,
    purse: Purse,
    trials: Trials | None = None,
) -> tuple[int, Trials]:
    """Draws a chain that the rest of the budget has room for in all rows, and the small runs that
    say so.
    """
    trials = trials or try_out(asked, FIRST, row_jobs, run, purse, Trials())
    piloted = min(PILOTED, len(row_jobs))
    second = trials.room(asked, SECOND * purse.left, piloted)
    if second >= 2 * trials.points[-1].draws and trials.points[-1].cost > 0:
        trials = try_out(asked, second, row_jobs, run, purse, trials)
    left = SPENT[purse.budget.unit] * purse.left
    return trials.room(asked, left, len(row_jobs)) if left > 0 else min(
        FIRST, trials.points[0].draws
    ), trials


def in_time(
    row_jobs: Sequence[RowJob],
    run: Callable[[RowJob], Outcome],
    purse: Purse,
    trials: Trials,
    draws: int,
    small: Callable[[RowJob], Outcome],
) -> Iterator[Outcome]:
    """Outcomes of all rows, with so many draws a chain; what a small run of that size has found is
    not found again.

    Each row has its share of the time. Of one that is not done by then, what it has, or what a
    small run has found or `small` finds.
    """
    for number, row_job in enumerate(row_jobs):
        if trials.smaller.get(number, (0, None))[0] == draws:
            yield trials.smaller[number][1]
            continue
        row_job = replace(row_job, earlier=trials.outcome(number))
        found = _until(purse.share(len(row_jobs) - number), row_job, run)
        if isinstance(found, Outcome):
            yield found
            continue
        made, outcome = (
            trials.smaller[number] if number in trials.smaller else (FIRST, small(row_job))
        )
        message = (
            f"time is over: these draws are of a smaller run, as --num-samples {made} gives them"
        )
        if found is not None and len(found.outcome.samples) > len(outcome.samples):
            outcome, message = found.outcome, "time is over before all draws are made"
        yield replace(outcome, warnings=[*outcome.warnings, message])


def _until(
    purse: Purse, row_job: RowJob, run: Callable[[RowJob], Outcome]
) -> Outcome | Interrupted | None:
    """The run of a row, or what it has where the time is over, which may be nothing."""
    if purse.over:
        return None
    try:
        with purse.watching(row_job) as seen:
            return run(seen)
    except KeyboardInterrupt as stopped:
        if not _by_clock(stopped):
            raise
        return stopped if isinstance(stopped, Interrupted) else None


# --- what to say ----------------------------------------------------------------------------------


def flags(engine: str, sized: Sized) -> str:
    """How to ask for a run of this size on a command line."""
    settings, options = sized
    parts = [
        f"--engine {engine}",
        *(f"--{name.replace('_', '-')} {value}" for name, value in settings.items()),
    ]
    return " ".join([*parts, *(f"-o {name}={value}" for name, value in options.items())])


def needed(checks: Sequence[Check], spent: float, unit: str) -> str | None:
    """What a row would need for its checks to pass; None where that is not known.

    Effective sizes grow with the draws; nothing is known where weights have no variance to rely on,
    nor of other checks.
    """
    worth = {check.name: check for check in checks if check.name in ("ess", "ess_bulk", "ess_tail")}
    short = [check for check in worth.values() if check.status != "pass"]
    rest = [
        c
        for c in checks
        if c.status != "pass" and c.name not in (*worth, "limit", "min_ess_fraction")
    ]
    if not short or rest or any(not check.value for check in short):
        return None
    level = {
        "ess": ESS.warn or 0,
        **dict.fromkeys(("ess_bulk", "ess_tail"), COUNTED_CHAINS * (ESS.warn or 0)),
    }
    check = max(short, key=lambda check: level[check.name] / (check.value or 1))
    factor = level[check.name] / (check.value or 1)
    amount = Budget(
        float(f"{factor * spent * 1.2:.2g}"), "tokens" if unit == "tokens" else "seconds"
    )
    flag = f"{amount.amount:.0f}{'tokens' if unit == 'tokens' else 's'}"
    return (
        f"draws are worth {check.value:.0f} of the {level[check.name]:.0f} that a pass asks for, "
        f"after "
        f"{Budget(spent, amount.unit)}: about {amount} would do (--budget {flag})"
    )
