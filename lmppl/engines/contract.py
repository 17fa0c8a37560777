"""What an engine is: options, a static test of programs, and a run from a target to weighted draws.

Engines see targets and keyed random numbers only: no syntax, no files, no models. `run` gives draws
whose mass is proportional to exp(log_weight); draws of equal mass have log_weight 0. An engine that
learns has `learn` as well: it sees all rows first, may keep what it learns in a folder, and gives
the run of rows, several at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import State, Target
from lmppl.diagnosis import Diagnostics
from lmppl.lm import Capabilities, Capability
from lmppl.screen import Progress, quiet
from lmppl.settings import Count, Whole


@dataclass(frozen=True)
class Settings:
    """Flags that mean the same for every engine."""

    chains: Count = 4  # chains, or replicates under their own random numbers
    num_samples: Count = 100  # draws kept a chain
    num_warmup: Whole = 100  # steps a chain takes first, where the engine has steps
    thin: Count = 1  # steps a kept draw, where the engine has steps


@dataclass(frozen=True)
class Sample:
    """One draw. Densities in nats; mass is proportional to exp(log_weight)."""

    chain: int
    draw: int
    state: State
    log_density: float  # -inf: impossible under the program
    factors: Mapping[str, float]
    log_weight: float = 0.0
    log_proposal: float | None = None  # log q, where the sampler's own density is known


@dataclass(frozen=True)
class Outcome:
    """What an engine found for one row."""

    samples: Sequence[Sample]
    log_evidence: float | None = None
    log_evidence_se: float | None = None
    support: Sequence[tuple[State, float]] | None = None  # states and probabilities, largest first
    diagnostics: Diagnostics = Diagnostics()  # noqa: RUF009  a frozen value
    warnings: Sequence[str] = ()
    prior: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict
    )  # of choices, before any evidence
    guided: bool = False  # draws are a trained guide's: predictions average over them as they come


class OutOfTime(KeyboardInterrupt):
    """A row's time is over: engines take it as they take Ctrl-C, and give what they have."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or the clock, with what had been drawn until then: fair draws, but fewer than were
    asked for.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def _no_states() -> dict[int, list[State]]:
    return {}


@dataclass(frozen=True)
class TrainingJob:
    """What a learning engine is to learn from, and where it may keep what it learns."""

    engine: str
    rows: Sequence[tuple[int, Target]]  # (number in the data, its target)
    settings: Settings
    options: Any
    seed: int
    folder: Path | None = None  # where checkpoints and the adapter go
    resume: bool = False  # go on from the folder's last checkpoint
    imitates: bool = False  # only from seeds
    adapter: Path | None = None  # a folder with what was learned before: nothing is learned now
    about: Mapping[str, Any] = field(
        default_factory=dict
    )  # program, models, data: what a checkpoint must agree with
    # states to learn from, by row number
    seeds: Callable[[], Mapping[int, list[State]]] = _no_states
    cost: Callable[[], Mapping[str, float]] = dict  # what models have done so far
    progress: Progress = quiet


@dataclass(frozen=True)
class RowJob:
    """One row that is to be inferred. earlier: what a smaller run of the same engine and options
    has found of it.
    """

    targets: Sequence[Target]  # of all rows; one of many is bound when it is asked for
    number: int  # of this row
    randomness: Randomness
    progress: Progress = quiet
    earlier: Outcome | None = None

    @property
    def target(self) -> Target:
        """The row's own."""
        return self.targets[self.number]


@dataclass(frozen=True)
class Learned:
    """The run of rows after learning, outcomes in their order; close: leaves the models as they
    were.
    """

    run: Callable[[Sequence[RowJob], Settings, Any], Iterator[Outcome]]
    close: Callable[[], None]
    earlier: Mapping[str, float] = field(
        default_factory=dict
    )  # what runs that this one goes on with have cost


@dataclass(frozen=True)
class Engine:
    """An entry of the engine table. `options` is a frozen dataclass whose defaults are the
    engine's.
    """

    name: str
    summary: str
    options: type
    cannot: Callable[
        [ir.Program], str | None
    ]  # why a program is out of reach, None where it is not
    run: Callable[[Target, Settings, Any, Randomness, Progress], Outcome]
    learn: Callable[[TrainingJob], Learned] | None = None
    # of the models that draw latents, before any is loaded; to score options needs nothing. What
    # options ask for besides, their dataclass says by a method `needs`
    needs: Capabilities = frozenset({Capability.LAWS})
    imitates: bool = False  # it learns the texts of rows that have them, and not from rewards
    # `run`, sooner: a smaller run's draws are the first ones of each chain, and are not made again
    go_on: Callable[[Target, Settings, Any, Randomness, Progress, Outcome], Outcome] | None = None

    def needed(self, options: Any) -> Capabilities:
        """What models that draw latents have to do for a run with these options."""
        return self.needs | (options.needs() if hasattr(options, "needs") else frozenset())

    def infer(self, row_job: RowJob, settings: Settings, options: Any) -> Outcome:
        """The run of one row, going on from what is known of it where the engine can."""
        row = row_job.target, settings, options, row_job.randomness, row_job.progress
        if self.go_on is None or row_job.earlier is None:
            return self.run(*row)
        return self.go_on(*row, row_job.earlier)
