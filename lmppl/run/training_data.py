"""What engines that learn are taught from: all rows of a run, examples in them, and other engines'
draws.

An engine without `learn` runs each row by itself, and needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmppl.decoding import Purpose, Randomness
from lmppl.density import State, Target
from lmppl.engines import ENGINE_NAMES, Outcome, RowJob, TrainingJob, engine, resample
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.findings import run as run_findings
from lmppl.run.session import Session, cost_of

ROWS = "rows"  # in place of an engine to seed from: what the rows themselves have


@dataclass(frozen=True)
class TrainingData:
    """What an engine that learns may need of a session. about: what it is made from, which
    checkpoints must agree with.
    """

    session: Session
    about: Mapping[str, Any] = field(default_factory=dict)

    def job(self, targets: Sequence[Target]) -> TrainingJob:
        """All rows, those to imitate with what is to be learned taken out; engines that only
        imitate see no others.
        """
        chosen = self.session.engine
        numbered = list(enumerate(targets))
        sources = [
            name.strip()
            for name in vars(self.session.options).get("seed_from", "").split(",")
            if name.strip()
        ]
        seeds: Callable[[], Mapping[int, list[State]]] = dict
        if self.session.request.adapter is not None:
            pass  # nothing is learned
        elif chosen.imitates:
            texts = [latent.name for latent in self.session.program.texts]
            examples = self._examples(texts)
            numbered = [(number, target) for number, (target, _) in examples.items()]
            seeds = lambda: {number: [state] for number, (_, state) in examples.items()}  # noqa: E731
        elif sources:
            examples = self._examples(self._missing()) if ROWS in sources else {}
            if ROWS in sources and not examples:
                raise LmpplError(learning_findings.nothing_to_learn(chosen.name, True))
            bare = numbered  # here rows that have the values leave nothing to be drawn
            numbered = [(i, examples[i][0] if i in examples else target) for i, target in numbered]
            seeds = lambda: {  # noqa: E731
                **{number: [state] for number, (_, state) in examples.items()},
                **self._draws([source for source in sources if source != ROWS], bare),
            }
        return TrainingJob(
            chosen.name,
            numbered,
            self.session.settings,
            self.session.options,
            self.session.request.seed,
            folder=self.session.request.folder,
            resume=self.session.request.resume,
            imitates=chosen.imitates,
            adapter=self.session.request.adapter,
            about=self.about,
            seeds=seeds,
            cost=lambda: cost_of(self.session.models),
            progress=self.session.progress,
        )

    def _missing(self) -> list[str]:
        """Latents that some row leaves free."""
        names = self.session.program.names
        always = set(names).intersection(*(row.observed for row in self.session.rows))
        return [name for name in names if name not in always]

    def _examples(self, names: Sequence[str]) -> dict[int, tuple[Target, State]]:
        """Rows that have values of some of these latents, and leave no other free, by number: their
        targets without the values, and the values as the state to learn."""
        found = {}
        for number, row in enumerate(self.session.rows):
            known = [name for name in names if name in row.observed]
            if not known:
                continue
            kept = replace(
                row, observed={name: v for name, v in row.observed.items() if name not in known}
            )
            target, full = self.session.bind(kept)[0], self.session.bind(row)[0]
            free = [latent.name for latent in target.latents]
            if all(name in full.observed for name in free):  # to have a value, or not to be there
                found[number] = target, {name: full.observed[name] for name in free}
        return found

    def _draws(
        self, sources: Sequence[str], numbered: Sequence[tuple[int, Target]]
    ) -> dict[int, list[State]]:
        """Another engine's draws of some rows, of equal weight. Raises LmpplError."""
        known = [name for name in ENGINE_NAMES if engine(name).learn is None]
        if odd := [name for name in sources if name not in known]:
            raise LmpplError(run_findings.unknown_engine(odd[0], [ROWS, *known]))
        if len(sources) > 1:
            found = ",".join(sources)
            raise LmpplError(
                run_findings.bad_option(
                    self.session.request.engine, "seed_from", "one engine at most", found
                )
            )
        if not sources:
            return {}
        teacher, states = engine(sources[0]), {}
        rows = [row for row in numbered if row[1].latents]
        settings = replace(
            self.session.settings,
            num_samples=self.session.options.seed_draws or self.session.settings.num_samples,
        )
        for done, (number, target) in enumerate(rows):
            self.session.progress("seeding", done, len(rows))
            randomness = Randomness(self.session.request.seed, number)
            outcome = teacher.run(
                target, settings, teacher.options(), randomness, self.session.progress
            )
            log_weights = np.array([sample.log_weight for sample in outcome.samples])
            uniform = randomness.uniforms(0, 0, Purpose.SEEDING, 1)[0]
            kept = resample(log_weights, len(log_weights), uniform)
            states[number] = [outcome.samples[i].state for i in kept]
        return states


@dataclass(frozen=True)
class Runner:
    """What draws rows, one outcome after another. earlier: the cost of runs that this one goes on
    with.
    """

    draw: Callable[[Sequence[RowJob]], Iterator[Outcome]]
    earlier: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def runner(data: TrainingData, targets: Sequence[Target]) -> Iterator[Runner]:
    """The run of rows: the engine's, or what it gives once it has learned from all rows."""
    session = data.session
    chosen, settings, options = session.engine, session.settings, session.options
    if chosen.learn is None:
        yield Runner(
            lambda row_jobs: (chosen.infer(row_job, settings, options) for row_job in row_jobs)
        )
        return
    learned = chosen.learn(data.job(targets))
    try:
        yield Runner(lambda row_jobs: learned.run(row_jobs, settings, options), learned.earlier)
    finally:
        learned.close()
