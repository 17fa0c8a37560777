"""From a program's rows to a policy, and from a policy to weighted draws: what all learning engines
share.

A policy is trained once, on all rows that leave a latent free, or read from a folder. Then each row
is drawn from it, with weights γ / q, so that what the policy has missed shows and is put right.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import Density, State, Target, joined, log_densities
from lmppl.diagnosis import Diagnostics
from lmppl.engines.amortised import checkpoint
from lmppl.engines.amortised.coverage import missed_mass
from lmppl.engines.amortised.learner import Learner, tokens_of
from lmppl.engines.amortised.policy import Asked, Drawn, Policy
from lmppl.engines.amortised.processes import processes
from lmppl.engines.amortised.progress import Display, Log, require_tracker
from lmppl.engines.amortised.recipe import DRAWING, Common, Recipe
from lmppl.engines.amortised.reward import judge
from lmppl.engines.amortised.trainer import Report, Task, learner_of
from lmppl.engines.contract import Learned, Lesson, Outcome, Sample, Settings, Turn
from lmppl.engines.weights import log_mean_weight, require_support, weight_diagnostics
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.lm import Adapter, Trainable, is_trainable
from lmppl.lm.transformers import adapter
from lmppl.screen import Progress

Recipes = Callable[[Any], Recipe]  # from an engine's options


def cannot(program: ir.Program) -> str | None:
    """Why no policy can be trained for a program; None where one can."""
    owners = {_owner(latent) for latent in program.latents}
    if not owners:
        return "it has no latent to learn"
    if (
        len(
            {
                (d.identifier, d.revision, d.dtype, d.adapter)
                for d in program.models
                if d.name in owners
            }
        )
        > 1
    ):
        return "its latents belong to several language models, and a policy is an adapter on one"
    return None


def _owner(latent: ir.Latent) -> str:
    """The model whose adapter draws a latent: its prior's first."""
    return latent.terms[0].model


# --- learning -------------------------------------------------------------------------------------


def learn(lesson: Lesson, recipe: Recipe) -> Learned:
    """Train a policy, go on with one, or read one. Raises LmpplError."""
    options: Common = lesson.options
    if lesson.adapter is not None:
        return (
            _learned(_read(lesson))
            if any(target.latents for _, target in lesson.rows)
            else _NOTHING
        )
    if recipe.objective == "subtb":
        _require_stops(lesson.rows)
    if options.tracker:
        require_tracker(options.tracker, lesson.folder)
    trained = frozenset(
        name for _, target in lesson.rows for name in (latent.name for latent in target.latents)
    )
    if not trained:
        raise LmpplError(learning_findings.nothing_to_learn(lesson.engine, lesson.imitates))
    base = _base(lesson.rows[0][1], trained)
    policy = Policy(_begin(base, options, lesson.seed), trained)
    try:
        earlier = _train(lesson, recipe, policy)
    except BaseException:
        policy.adapter.remove()
        raise
    return replace(_learned(policy), earlier=earlier)


def _begin(base: Trainable, options: Common, seed: int) -> Adapter:
    """A fresh adapter, or a copy of one that was learned before."""
    if options.start_from:
        return base.load_adapter(Path(options.start_from))
    shape = {"rank": options.rank, "alpha": options.alpha}
    return base.add_adapter(**shape, targets=options.targets, seed=seed)


def _train(lesson: Lesson, recipe: Recipe, policy: Policy) -> Mapping[str, float]:
    """Train up to the last step; what is learned is kept in the lesson's folder, if it has one.

    Returns what earlier runs, which this one goes on with, have cost.
    """
    shared, cost = processes(), _Cost(lesson.cost)
    rows = [(number, target) for number, target in lesson.rows if target.latents]
    learner = learner_of(policy, Task(rows, lesson.options, recipe, lesson.seed, shared))
    options = {name: value for name, value in asdict(lesson.options).items() if name not in DRAWING}
    about = {**lesson.about, "engine": lesson.engine, "options": options, "seed": lesson.seed}
    resumed = (
        lesson.resume
        and lesson.folder is not None
        and checkpoint.load(lesson.folder, learner, about, shared.index)
    )
    if lesson.resume and not resumed:
        raise LmpplError(learning_findings.nothing_to_resume(str(lesson.folder)))
    spent = learner.spent - tokens_of(learner)
    if not resumed:
        _sow(learner, dict(rows), lesson.seeds())
    if not learner.seeds and recipe.objective == "sft":
        raise LmpplError(learning_findings.nothing_to_learn(lesson.engine, True))
    task = Task(rows, lesson.options, recipe, lesson.seed, shared)
    if not any(number in learner.seeds for number, _ in task.split()[0]):
        task = replace(task, recipe=replace(recipe, imitation=0))
    begun, earlier = learner.step if resumed else None, dict(learner.cost)
    display = Display(lesson.progress if shared.first else _silent, lesson.options.steps)
    folder = lesson.folder if shared.first else None

    def keep(learner: Learner) -> None:
        learner.spent, learner.cost = spent + tokens_of(learner), _added(earlier, cost.since())
        # a run that is taken up here pays for them again: so does this one
        policy.adapter.base.forget_prompts()
        buffers = shared.gather(checkpoint.lines(learner.buffer.rows))
        if folder is not None and learner.step == begun:  # nothing was learned since
            checkpoint.publish_best(folder, learner)
        elif folder is not None:
            checkpoint.save(folder, learner, about, buffers)
        shared.wait()

    with Log(folder, lesson.options.tracker, learner.step) as log, _interrupt() as interrupted:

        def report(found: Report) -> None:
            display.show(found)
            log.write(found)

        task.train(
            learner, report=report, keep=keep, stopped=lambda: shared.any(interrupted.is_set())
        )
    if interrupted.is_set():
        raise KeyboardInterrupt(
            *([] if lesson.folder is None else [_left(learner.step, lesson.folder)])
        )
    if not shared.first:
        raise SystemExit(0)  # the first process draws, prints and writes
    return earlier


class _Cost:
    """What is done from its making on: work of models, and seconds."""

    def __init__(self, work: Callable[[], Mapping[str, float]]) -> None:
        self._work, self._before, self._started = work, dict(work()), time.perf_counter()

    def since(self) -> dict[str, float]:
        work = {name: value - self._before[name] for name, value in self._work().items()}
        return {**work, "seconds": time.perf_counter() - self._started}


def _added(earlier: Mapping[str, float], cost: Mapping[str, float]) -> dict[str, float]:
    return {name: earlier.get(name, 0) + value for name, value in cost.items()}


def _sow(learner: Learner, targets: Mapping[int, Target], seeds: Mapping[int, list[State]]) -> None:
    """Give the learner states to imitate, which stand in its buffer as well."""
    learner.seeds = {number: judge(targets[number], states) for number, states in seeds.items()}
    for number, judged in learner.seeds.items():
        learner.buffer = learner.buffer.add(number, judged)


def _left(step: int, folder: Path) -> str:
    return (
        f"what was learned in {step} steps is in `{folder}`; use it with --adapter, go on "
        f"with --resume"
    )


def _silent(what: str, done: int, total: int) -> None:
    """Progress of processes that are not the first."""


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """Within it, the first Ctrl-C sets the event, so that a step is finished; the next is a
    KeyboardInterrupt.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _base(target: Target, trained: frozenset[str]) -> Trainable:
    name = next(iter(sorted(trained)))
    model = target.guide(name).model
    assert is_trainable(model)
    return model


def _read(lesson: Lesson) -> Policy:
    assert lesson.adapter is not None
    names = frozenset(latent.name for _, target in lesson.rows for latent in target.latents)
    return read_policy(lesson.adapter, lesson.rows[0][1], names)


def read_policy(folder: Path, target: Target, latents: frozenset[str]) -> Policy:
    """The policy that a folder holds, for the model of a target's latents. Raises LmpplError."""
    trained = adapter.trained_latents(folder)
    names = latents if trained is None else trained & latents
    base = _base(target, names or latents)
    return Policy(base.load_adapter(folder), names)


def _require_stops(rows: Sequence[tuple[int, Target]]) -> None:
    """Raise LmpplError where `subtb` finds no text to stop early, or what follows one is no
    choice.
    """
    for _, target in rows:
        first, *others = target.latents or [None]
        if first is None:
            continue
        reason = None
        if first not in target.texts:
            reason = f"`{first.name}`, its first latent, is no text that could stop early"
        elif texts := [text.name for text in target.texts if text in others]:
            reason = (
                f"prefixes of `{first.name}` cannot be scored with `{texts[0]}`, a second "
                f"text, summed out"
            )
        if reason:
            raise LmpplError(
                learning_findings.cannot_stop_everywhere(reason, target.program.source, first.span)
            )


# --- drawing --------------------------------------------------------------------------------------


def _learned(policy: Policy) -> Learned:
    def run(turns: Sequence[Turn], settings: Settings, options: Any) -> Iterator[Outcome]:
        return draw(policy, turns, settings, options.weighted)

    return Learned(run, policy.adapter.remove)


def draw(
    policy: Policy, turns: Sequence[Turn], settings: Settings, weighted: bool = True
) -> Iterator[Outcome]:
    """Per row chains × num_samples draws from the policy, weighted by γ / q.

    As many rows are drawn together as their targets' batches hold. Not weighted, draws are the
    policy's own, impossible ones among them. Raises LmpplError at a row whose draws are all
    impossible, where they are weighted.
    """
    keys = [(chain, i) for chain in range(settings.chains) for i in range(settings.num_samples)]
    together = max(1, turns[0].target.batch_size // len(keys)) if turns else 1
    for start in range(0, len(turns), together):
        group = turns[start : start + together]
        policy.prepare([turn.target for turn in group])
        parts = []
        for first in range(0, len(keys), group[0].target.batch_size):
            asked = keys[first : first + group[0].target.batch_size]
            parts.append(
                policy.draw_all([Asked(turn.target, asked, turn.randomness) for turn in group])
            )
            for turn in group:
                turn.progress("drawing", first + len(asked), len(keys))
        rows = [(turn, drawn) for turn, *drawn in zip(group, *parts, strict=True)]
        densities = iter(
            log_densities([(turn.target, part.states) for turn, drawn in rows for part in drawn])
        )
        for turn, drawn in rows:
            found = _weighed(
                turn.target, keys, drawn, joined([next(densities) for _ in drawn]), weighted
            )
            yield _with_coverage(found, policy, turn)


def _with_coverage(outcome: Outcome, policy: Policy, turn: Turn) -> Outcome:
    """The outcome, told what its draws cannot show."""
    if outcome.log_evidence is None:
        return outcome
    missed = missed_mass(
        policy, turn.target, turn.randomness, outcome.log_evidence, len(outcome.samples)
    )
    return (
        outcome
        if missed is None
        else replace(outcome, diagnostics=replace(outcome.diagnostics, missed_mass=missed))
    )


def _weighed(
    target: Target,
    keys: Sequence[tuple[int, int]],
    parts: Sequence[Drawn],
    density: Density,
    weighted: bool,
) -> Outcome:
    """The outcome of one row from its draws, a part after another, and their density."""
    states = [state for part in parts for state in part.states]
    log_proposal = np.concatenate([part.total for part in parts])
    total = density.total
    possible = np.isfinite(total).any()
    if weighted and not possible:
        require_support(target, states, density)
    log_weights = total - log_proposal
    mass = log_weights if weighted else np.zeros(len(keys))
    samples = [
        Sample(
            chain,
            i,
            states[n],
            float(total[n]),
            {name: float(values[n]) for name, values in density.factors.items()},
            float(mass[n]),
            float(log_proposal[n]),
        )
        for n, (chain, i) in enumerate(keys)
    ]
    if not possible:
        return Outcome(samples, guided=True)
    log_evidence, error = log_mean_weight(log_weights)
    finite = log_weights[np.isfinite(log_weights)]
    found = weight_diagnostics(log_weights)
    diagnostics = replace(
        found if weighted else Diagnostics(importance=found),
        residual_variance=float(finite.var()),
    )
    return Outcome(samples, log_evidence, error, diagnostics=diagnostics, guided=True)


_NOTHING = Learned(lambda *_: iter(()), lambda: None)  # no row leaves a latent free


def run_alone(recipes: Recipes, name: str) -> Callable[..., Outcome]:
    """The `run` of a learning engine: train on one row and draw from it."""

    def run(
        target: Target, settings: Settings, options: Any, randomness: Randomness, progress: Progress
    ) -> Outcome:
        recipe = recipes(options)
        lesson = Lesson(
            name, [(randomness.row, target)], settings, options, randomness.seed, progress=progress
        )
        learned = learn(lesson, recipe)
        try:
            return next(learned.run([Turn([target], 0, randomness, progress)], settings, options))
        finally:
            learned.close()

    return run
