"""What `auto` takes within a budget: a short look by importance sampling shows what its draws cost
and are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from lmppl.engines import Outcome, RowJob, Settings, effective_share, engine
from lmppl.run.sizing import SPENT, EngineRequest, Purse, Run, Trials, fit, try_out
from lmppl.settings import Budget

NOTHING: Mapping[str, int] = MappingProxyType({})
LOOK = 16  # draws a chain of the look
GROWTH = 1.5  # a last run that is not so much larger than the look is not worth its time
ENOUGH = 200  # effective draws of a row that nobody has asked more of
MANY = 400  # draws a chain by importance that cost what annealing needs for its steps
DEFAULT = Budget(6_000, "tokens")  # where nobody asks: a minute of a small model on two busy cores
LEAST = 1_000  # tokens that a row then gets at least
HOPELESS = 4  # effective draws of a look below which more of its kind are no way
LOOKED = 3  # rows that are asked whether something looks ahead in them
PATIENCE = 75.0  # seconds after which rows are then cut short


@dataclass(frozen=True)
class Choice:
    """An engine, why it is taken, how many draws a chain it is to make, and the small runs that say
    so.
    """

    asked: EngineRequest
    reason: str
    draws: int
    trials: Trials


def default_budget(rows: int) -> Budget:
    """What a run of so many rows may cost where nobody says so."""
    return Budget(max(DEFAULT.amount, LEAST * rows))


def choose(
    row_jobs: Sequence[RowJob],
    run: Run,
    purse: Purse,
    frugal: bool,
    settings: Mapping[str, int] = NOTHING,
) -> Choice:
    """The engine for these rows, by their first ones. frugal: stop where draws are worth enough.
    settings: chains, and draws of each, that were asked for: they stay as they are.
    """
    chains, number = settings.get("chains", Settings().chains), settings.get("num_samples")
    asked = EngineRequest(
        engine("importance"), {"chains": chains} if "chains" in settings else {}, {}
    )
    look = LOOK if number is None else min(LOOK, number)
    trials = try_out(asked, look, row_jobs, run, purse, Trials(), patient=frugal)
    share = min(_share(trials.outcome(row)) for row in range(trials.looked))
    left = SPENT[purse.budget.unit] * purse.left
    room = trials.room(asked, left, len(row_jobs)) if left > 0 else look
    needed = int(np.ceil(ENOUGH / share / chains)) if share > 0 else room + 1
    drawn = chains * look
    worth = f"{drawn} draws by importance are worth {share * drawn:.0f}"
    if needed > room and share * drawn < HOPELESS and all(map(_looks_ahead, row_jobs[:LOOKED])):
        reason = f"{worth}, and its automaton looks ahead to words"
        return _fitted("smc", reason, row_jobs, run, purse, settings)
    if needed > room and room >= MANY:
        reason = f"{worth}, and there is time to anneal"
        return _fitted("annealed", reason, row_jobs, run, purse, settings)
    if number is not None:
        return Choice(asked, worth, number, trials)
    draws = min(needed, room) if frugal else room
    return Choice(asked, worth, draws if draws >= GROWTH * LOOK else LOOK, trials)


def _fitted(
    name: str,
    reason: str,
    row_jobs: Sequence[RowJob],
    run: Run,
    purse: Purse,
    settings: Mapping[str, int],
) -> Choice:
    """An engine of particles, as many as there is time for; draws of them as asked for."""
    chains = {key: value for key, value in settings.items() if key == "chains"}
    asked = EngineRequest(engine(name), chains, {})
    draws, trials = fit(asked, row_jobs, run, purse)
    if "num_samples" in settings:
        particles = max(draws, settings["num_samples"])
        return Choice(
            replace(asked, settings=settings, options={"particles": particles}),
            reason,
            particles,
            Trials(),
        )
    return Choice(asked, reason, draws, trials)


def _looks_ahead(row_job: RowJob) -> bool:
    """Whether an automaton tells of a text that prefixes are worth something for."""
    texts = [row_job.target.text_latent(text.name) for text in row_job.target.texts]
    return any(text.looks_ahead and text.latent.total_power <= 1 for text in texts)


def _share(outcome: Outcome | None) -> float:
    """What a draw is worth; 0 where none was possible."""
    if outcome is None:
        return 0.0
    return effective_share(np.array([sample.log_weight for sample in outcome.samples]))
