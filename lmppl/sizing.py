"""Runs that keep to a budget: small runs first show what a draw costs and is worth, then one run spends the rest.

The last run has explicit sizes, which are reported, so that flags can repeat it. A budget in tokens gives the same
sizes everywhere; one in seconds depends on the machine, and a row that is not done in time is left with its small run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lmppl import run_findings
from lmppl.budget import Budget, Point, draws_for, grown
from lmppl.engines.contract import Engine, Outcome, Progress, Settings, Turn
from lmppl.errors import LmpplError
from lmppl.lm.protocol import Cost, LanguageModel
from lmppl.verdict import Check
from lmppl.verdict.levels import COUNTED_CHAINS, ESS

FIRST = 4  # draws a chain of the first run, which shows what a draw costs
SECOND = 1 / 5  # share of what is left that the second run may take
SPENT = {"tokens": 0.95, "seconds": 0.75}  # share of what is then left that the last run is to take: clocks vary more
PILOTED = 4  # data rows that are looked at first
OVER = 1.1  # budgets of tokens after which a row is cut short
SEARCHED = 6  # prefixes of a search, a draw
EVALUATED = 16  # prefixes of an exact search, for each of what would be a draw elsewhere
MOST_SEARCHED = 384


class OutOfTimeError(Exception):
    """A row is not done and the time is over."""


@dataclass(frozen=True)
class Purse:
    """What may be spent from its making on. deadline: when rows are cut short, as time.perf_counter has it."""

    budget: Budget
    costs: Sequence[Cost]  # of all models, each once
    deadline: float = math.inf
    started: float = field(default_factory=time.perf_counter)
    before: int = 0

    @staticmethod
    def of(budget: Budget, models: Mapping[str, LanguageModel], patience: float | None = None) -> Purse:
        """A full one. patience: seconds until rows are cut short; where it is None, a budget's own."""
        costs = [model.cost for model in {id(model): model for model in models.values()}.values()]
        own = budget.amount if budget.unit == "seconds" else math.inf
        started = time.perf_counter()
        return Purse(budget, costs, started + (own if patience is None else patience), started, _tokens(costs))

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

    def watched(self, progress: Progress) -> Progress:
        """Progress that raises OutOfTimeError where the time is over."""

        def report(what: str, done: int, total: int) -> None:
            progress(what, done, total)
            if done < total and self.over:
                raise OutOfTimeError

        return report


def _tokens(costs: Sequence[Cost]) -> int:
    return sum(cost.tokens_decoded + cost.tokens_scored for cost in costs)


@dataclass(frozen=True)
class Asked:
    """An engine, with the settings and options that were asked of it: what else there is may be sized."""

    engine: Engine
    settings: Mapping[str, int]
    options: Mapping[str, Any]
    learns: bool = False  # its training is part of the run

    def of_size(self, draws: int) -> tuple[dict[str, int], dict[str, Any]]:
        """What to ask for so that a run has about so many draws a chain, or training steps, or prefixes."""
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
Run = Callable[[Asked, Sized, Sequence[Turn]], list[Outcome]]  # of some rows


@dataclass(frozen=True)
class Trials:
    """What small runs have shown. smaller: what they found of each row, with its draws a chain, the last of them."""

    points: Sequence[Point] = ()  # costs are of one row
    looked: int = 0  # rows that were run
    smaller: Mapping[int, tuple[int, Outcome]] = field(default_factory=dict)

    def then(self, draws: int, cost: float, looked: int, outcomes: Mapping[int, Outcome]) -> Trials:
        """These and one more."""
        found = {number: (draws, outcome) for number, outcome in outcomes.items()}
        return Trials([*self.points, Point(draws, cost)], looked, {**self.smaller, **found})


def try_out(
    asked: Asked, draws: int, turns: Sequence[Turn], run: Run, purse: Purse, trials: Trials, watched: bool = True
) -> Trials:
    """A small run of the first rows. That it finds nothing possible is no error yet.

    watched: raise LmpplError where not even the first is done within the budget.
    """
    before = purse.spent
    piloted = turns if asked.learns else turns[:PILOTED]
    outcomes: dict[int, Outcome] = {}
    if watched:
        piloted = [replace(turn, progress=purse.watched(turn.progress)) for turn in piloted]
    try:
        if asked.learns:  # from all rows at once
            outcomes = dict(enumerate(run(asked, asked.of_size(draws), piloted)))
        for number, turn in enumerate([] if asked.learns else piloted):
            with suppress(LmpplError):
                outcomes[number] = run(asked, asked.of_size(draws), [turn])[0]
    except OutOfTimeError:
        if trials.points:
            return trials
        raise LmpplError(run_findings.budget_too_small(asked.engine.name, str(purse.budget), draws)) from None
    return trials.then(draws, (purse.spent - before) / len(piloted), len(piloted), outcomes)


def fit(
    asked: Asked, turns: Sequence[Turn], run: Run, purse: Purse, trials: Trials | None = None
) -> tuple[int, Trials]:
    """Draws a chain that the rest of the budget has room for in all rows, and the small runs that say so."""
    trials = trials or try_out(asked, FIRST, turns, run, purse, Trials())
    share = purse.left / len(turns)
    second = draws_for(trials.points, SECOND * share * len(turns) / min(PILOTED, len(turns)))
    if second >= 2 * trials.points[-1].draws and trials.points[-1].cost > 0:
        trials = try_out(asked, second, turns, run, purse, trials)
    left = SPENT[purse.budget.unit] * purse.left / len(turns)
    return draws_for(trials.points, left) if left > 0 else min(FIRST, trials.points[0].draws), trials


def in_time(
    turns: Sequence[Turn],
    run: Callable[[Turn], Outcome],
    purse: Purse,
    trials: Trials,
    draws: int,
    small: Callable[[Turn], Outcome],
) -> Iterator[Outcome]:
    """Outcomes of all rows, with so many draws a chain; what a small run of that size has found is not found again.

    Of rows that are not done in time, what a small run has found or `small` finds.
    """
    for number, turn in enumerate(turns):
        if trials.smaller.get(number, (0, None))[0] == draws:
            yield trials.smaller[number][1]
            continue
        with suppress(OutOfTimeError):
            if not purse.over:
                yield run(replace(turn, progress=purse.watched(turn.progress)))
                continue
        made, outcome = trials.smaller[number] if number in trials.smaller else (FIRST, small(turn))
        message = f"time is over: these draws are of a smaller run, as --num-samples {made} gives them"
        yield replace(outcome, warnings=[*outcome.warnings, message])


# --- what to say ----------------------------------------------------------------------------------


def flags(engine: str, sized: Sized) -> str:
    """How to ask for a run of this size on a command line."""
    settings, options = sized
    parts = [f"--engine {engine}", *(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())]
    return " ".join([*parts, *(f"-o {name}={value}" for name, value in options.items())])


def needed(checks: Sequence[Check], spent: float, unit: str) -> str | None:
    """What a row would need for its checks to pass; None where that is not known.

    Effective sizes grow with the draws; nothing is known where weights have no variance to rely on, nor of other
    checks.
    """
    worth = {check.name: check for check in checks if check.name in ("ess", "ess_bulk", "ess_tail")}
    short = [check for check in worth.values() if check.status != "pass"]
    rest = [c for c in checks if c.status != "pass" and c.name not in (*worth, "limit", "min_ess_fraction")]
    if not short or rest or any(not check.value for check in short):
        return None
    level = {"ess": ESS.warn or 0, **dict.fromkeys(("ess_bulk", "ess_tail"), COUNTED_CHAINS * (ESS.warn or 0))}
    check = max(short, key=lambda check: level[check.name] / (check.value or 1))
    factor = level[check.name] / (check.value or 1)
    amount = Budget(float(f"{factor * spent * 1.2:.2g}"), "tokens" if unit == "tokens" else "seconds")
    flag = f"{amount.amount:.0f}{'tokens' if unit == 'tokens' else 's'}"
    return (
        f"draws are worth {check.value:.0f} of the {level[check.name]:.0f} that a pass asks for, after "
        f"{Budget(spent, amount.unit)}: about {amount} would do (--budget {flag})"
    )
