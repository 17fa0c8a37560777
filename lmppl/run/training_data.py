"""What engines that learn are taught from: all rows of a run, examples in them, and other engines'
draws.

The driver makes a course of a run; an engine without `learn` runs each row by itself and needs
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmppl import ir
from lmppl.data import Row
from lmppl.decoding import Purpose, Randomness
from lmppl.density import State, Target, bind
from lmppl.engines import ENGINE_NAMES, Engine, Lesson, Outcome, Settings, Turn, engine, resample
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.findings import run as run_findings
from lmppl.lm import Chosen, LanguageModel
from lmppl.screen import Progress
from lmppl.settings import Budget, Seed, Size

ROWS = "rows"  # in place of an engine to seed from: what the rows themselves have


@dataclass(frozen=True)
class Request:
    """What is asked of a run, beside the program and its data."""

    engine: str = "auto"
    settings: Mapping[str, int] = field(
        default_factory=dict
    )  # fields of Settings that were asked for
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # strings are parsed by the option's type
    seed: Seed = 0
    batch_size: Size = 64  # rows at once
    folder: Path | None = None  # where an engine that learns keeps what it learns
    resume: bool = False  # go on from the folder's last checkpoint
    adapter: Path | None = None  # a folder with what was learned before: draw from it
    only_learn: bool = False  # draw for no row in the end: an adapter is all that is asked for
    # what all rows together may cost; what is not asked for is sized by it
    budget: Budget | None = None
    quick: bool = False  # where nothing is asked of `auto`, it may take what ends soon
    lms: Chosen = field(default_factory=dict)  # models in place of the program's, by name


@dataclass(frozen=True)
class Course:
    """What an engine that learns may need of a run."""

    program: ir.Program
    rows: Sequence[Row]
    models: Mapping[str, LanguageModel]
    helpers: Mapping[str, Callable[..., Any]]
    request: Request
    settings: Settings
    options: Any
    about: Mapping[str, Any]
    progress: Progress

    def lesson(self, chosen: Engine, targets: Sequence[Target]) -> Lesson:
        """All rows, those to imitate with what is to be learned taken out; engines that only
        imitate see no others.
        """
        numbered = list(enumerate(targets))
        sources = [
            name.strip()
            for name in vars(self.options).get("seed_from", "").split(",")
            if name.strip()
        ]
        seeds: Callable[[], Mapping[int, list[State]]] = dict
        if self.request.adapter is not None:
            pass  # nothing is learned
        elif chosen.imitates:
            texts = [latent.name for latent in self.program.texts]
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
        return Lesson(
            chosen.name,
            numbered,
            self.settings,
            self.options,
            self.request.seed,
            folder=self.request.folder,
            resume=self.request.resume,
            imitates=chosen.imitates,
            adapter=self.request.adapter,
            about=self.about,
            seeds=seeds,
            cost=lambda: cost_of(self.models),
            progress=self.progress,
        )

    def _missing(self) -> list[str]:
        """Latents that some row leaves free."""
        return [
            latent.name
            for latent in self.program.latents
            if any(latent.name not in r.observed for r in self.rows)
        ]

    def _examples(self, names: Sequence[str]) -> dict[int, tuple[Target, State]]:
        """Rows that have values of some of these latents, and leave no other free, by number: their
        targets without the values, and the values as the state to learn."""
        found = {}
        for number, row in enumerate(self.rows):
            known = [name for name in names if name in row.observed]
            if not known:
                continue
            kept = replace(
                row, observed={name: v for name, v in row.observed.items() if name not in known}
            )
            target = bind(self.program, self.models, kept, self.helpers, self.request.batch_size)[0]
            full = bind(self.program, self.models, row, self.helpers, self.request.batch_size)[0]
            if {latent.name for latent in target.latents} == set(known):
                found[number] = target, {name: full.observed[name] for name in known}
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
                    self.request.engine, "seed_from", "one engine at most", found
                )
            )
        if not sources:
            return {}
        teacher, states = engine(sources[0]), {}
        rows = [row for row in numbered if row[1].latents]
        settings = replace(
            self.settings, num_samples=self.options.seed_draws or self.settings.num_samples
        )
        for done, (number, target) in enumerate(rows):
            self.progress("seeding", done, len(rows))
            randomness = Randomness(self.request.seed, number)
            outcome = teacher.run(target, settings, teacher.options(), randomness, self.progress)
            log_weights = np.array([sample.log_weight for sample in outcome.samples])
            uniform = randomness.uniforms(0, 0, Purpose.SEEDING, 1)[0]
            kept = resample(log_weights, len(log_weights), uniform)
            states[number] = [outcome.samples[i].state for i in kept]
        return states


def forget_prompts(models: Mapping[str, LanguageModel]) -> None:
    """Drop what models keep of prompts: neither cost nor the last bit of a number hangs on what was
    run before.
    """
    for model in models.values():
        model.forget_prompts()


def cost_of(models: Mapping[str, LanguageModel]) -> dict[str, int]:
    """Work done so far; a model that goes by two names is counted once."""
    total = {"tokens_decoded": 0, "tokens_scored": 0, "forward_passes": 0}
    for model in {id(model): model for model in models.values()}.values():
        for key in total:
            total[key] += vars(model.cost)[key]
    return total


@dataclass(frozen=True)
class Runner:
    """What draws rows, one outcome after another. earlier: the cost of runs that this one goes on
    with.
    """

    draw: Callable[[Sequence[Turn]], Iterator[Outcome]]
    earlier: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def runner(chosen: Engine, targets: Sequence[Target], course: Course) -> Iterator[Runner]:
    """The run of rows: the engine's, or what it gives once it has learned from all rows."""
    settings, options = course.settings, course.options
    if chosen.learn is None:
        yield Runner(lambda turns: (chosen.infer(turn, settings, options) for turn in turns))
        return
    learned = chosen.learn(course.lesson(chosen, targets))
    try:
        yield Runner(lambda turns: learned.run(turns, settings, options), learned.earlier)
    finally:
        learned.close()
