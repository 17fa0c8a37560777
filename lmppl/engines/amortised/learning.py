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
from lmppl.engines.amortised.policy import Drawn, DrawRequest, Policy
from lmppl.engines.amortised.processes import Processes, processes
from lmppl.engines.amortised.progress import Display, Log, require_tracker
from lmppl.engines.amortised.recipe import DRAWING, Common, Recipe
from lmppl.engines.amortised.reward import reward_of
from lmppl.engines.amortised.trainer import Report, Task, learner_of
from lmppl.engines.contract import Learned, Outcome, RowJob, Sample, Settings, TrainingJob
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


def learn(job: TrainingJob, recipe: Recipe) -> Learned:
    """Train a policy, go on with one, or read one. Raises LmpplError."""
    options: Common = job.options
    if job.adapter is not None:
        return _learned(_read(job)) if any(target.latents for _, target in job.rows) else _NOTHING
    if recipe.objective == "subtb":
        _require_stops(job.rows)
    if options.tracker:
        require_tracker(options.tracker, job.folder)
    trained = frozenset(latent.name for _, target in job.rows for latent in target.latents)
    if not trained:
        raise LmpplError(learning_findings.nothing_to_learn(job.engine, job.imitates))
    base = _base(job.rows[0][1], trained)
    policy = Policy(_begin(base, options, job.seed), trained)
    try:
        earlier = _train(job, recipe, policy)
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


def _train(job: TrainingJob, recipe: Recipe, policy: Policy) -> Mapping[str, float]:
    """Train up to the last step; what is learned is kept in the job's folder, if it has one.

    Returns what earlier runs, which this one goes on with, have cost.
    """
    shared, cost = processes(), _Cost(job.cost)
    rows = [(number, target) for number, target in job.rows if target.latents]
    learner = learner_of(policy, Task(rows, job.options, recipe, job.seed, shared))
    options = {name: value for name, value in asdict(job.options).items() if name not in DRAWING}
    about = {**job.about, "engine": job.engine, "options": options, "seed": job.seed}
    resumed = _resumes(job, learner, about, shared.index)
    spent = learner.spent - tokens_of(learner)
    if not resumed:
        _sow(learner, dict(rows), job.seeds())
    if not learner.seeds and recipe.objective == "sft":
        raise LmpplError(learning_findings.nothing_to_learn(job.engine, True))
    task = _task(job, recipe, learner, rows, shared)
    begun, earlier = learner.step if resumed else None, dict(learner.cost)
    display = Display(job.progress if shared.first else _silent, job.options.steps)
    folder = job.folder if shared.first else None

    def keep(learner: Learner) -> None:
        learner.spent, learner.cost = spent + tokens_of(learner), _added(earlier, cost.since())
        # a run that is taken up here pays for them again: so does this one
        policy.adapter.base.forget_prompts()
        buffers = shared.gather(checkpoint.lines(learner.buffer.rows))
        if folder is not None:
            _write(folder, learner, about, buffers, learned=learner.step != begun)
        shared.wait()

    with Log(folder, job.options.tracker, learner.step) as log, _interrupt() as interrupted:

        def report(found: Report) -> None:
            display.show(found)
            log.write(found)

        task.train(
            learner, report=report, keep=keep, stopped=lambda: shared.any(interrupted.is_set())
        )
    if interrupted.is_set():
        left = [] if job.folder is None else [_left(learner.step, job.folder)]
        raise KeyboardInterrupt(*left)
    if not shared.first:
        raise SystemExit(0)  # the first process draws, prints and writes
    return earlier


def _write(
    folder: Path, learner: Learner, about: Mapping[str, Any], buffers: Sequence[str], learned: bool
) -> None:
    """A checkpoint; where nothing was learned since the last, that one's best adapter again."""
    if learned:
        checkpoint.save(folder, learner, about, buffers)
    else:
        checkpoint.publish_best(folder, learner)


def _task(
    job: TrainingJob,
    recipe: Recipe,
    learner: Learner,
    rows: list[tuple[int, Target]],
    shared: Processes,
) -> Task:
    """What is trained; without imitation where this process has no row to imitate."""
    task = Task(rows, job.options, recipe, job.seed, shared)
    if any(number in learner.seeds for number, _ in task.split()[0]):
        return task
    return replace(task, recipe=replace(recipe, imitation=0))


def _resumes(job: TrainingJob, learner: Learner, about: Mapping[str, Any], index: int) -> bool:
    """Whether the learner goes on from what the folder holds. Raises LmpplError where it holds
    nothing and was to.
    """
    if not job.resume:
        return False
    if job.folder is None or not checkpoint.load(job.folder, learner, about, index):
        raise LmpplError(learning_findings.nothing_to_resume(str(job.folder)))
    return True


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
    learner.seeds = {number: reward_of(targets[number], states) for number, states in seeds.items()}
    for number, rewarded in learner.seeds.items():
        learner.buffer = learner.buffer.add(number, rewarded)


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
    """What the adapter is put on: a law without holes, since those of another network would lie
    elsewhere; it draws among the tokens that the prior keeps.
    """
    name = next(iter(sorted(trained)))
    model = target.guide(name).untruncated.model
    assert is_trainable(model)
    return model


def _read(job: TrainingJob) -> Policy:
    assert job.adapter is not None
    names = frozenset(latent.name for _, target in job.rows for latent in target.latents)
    return read_policy(job.adapter, job.rows[0][1], names)


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
        elif first.guard is not None:
            reason = f"`{first.name}` is not always there"
        if reason:
            raise LmpplError(
                learning_findings.cannot_stop_everywhere(reason, target.program.source, first.span)
            )


# --- drawing --------------------------------------------------------------------------------------


def _learned(policy: Policy) -> Learned:
    def run(row_jobs: Sequence[RowJob], settings: Settings, options: Any) -> Iterator[Outcome]:
        return draw(policy, row_jobs, settings, options.weighted)

    return Learned(run, policy.adapter.remove)


def draw(
    policy: Policy, row_jobs: Sequence[RowJob], settings: Settings, weighted: bool = True
) -> Iterator[Outcome]:
    """Per row chains × num_samples draws from the policy, weighted by γ / q.

    As many rows are drawn together as their targets' batches hold. Not weighted, draws are the
    policy's own, impossible ones among them. Raises LmpplError at a row whose draws are all
    impossible, where they are weighted.
    """
    keys = [(chain, i) for chain in range(settings.chains) for i in range(settings.num_samples)]
    together = max(1, row_jobs[0].target.batch_size // len(keys)) if row_jobs else 1
    for start in range(0, len(row_jobs), together):
        group = row_jobs[start : start + together]
        policy.prepare([row_job.target for row_job in group])
        parts = []
        for first in range(0, len(keys), group[0].target.batch_size):
            asked = keys[first : first + group[0].target.batch_size]
            parts.append(
                policy.draw_all(
                    [DrawRequest(row_job.target, asked, row_job.randomness) for row_job in group]
                )
            )
            for row_job in group:
                row_job.progress("drawing", first + len(asked), len(keys))
        rows = [(row_job, drawn) for row_job, *drawn in zip(group, *parts, strict=True)]
        densities = iter(
            log_densities(
                [(row_job.target, part.states) for row_job, drawn in rows for part in drawn]
            )
        )
        for row_job, drawn in rows:
            found = _weighed(
                row_job.target, keys, drawn, joined([next(densities) for _ in drawn]), weighted
            )
            yield _with_coverage(found, policy, row_job)


def _with_coverage(outcome: Outcome, policy: Policy, row_job: RowJob) -> Outcome:
    """The outcome, told what its draws cannot show."""
    if outcome.log_evidence is None:
        return outcome
    missed = missed_mass(
        policy, row_job.target, row_job.randomness, outcome.log_evidence, len(outcome.samples)
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
            density.parts(n),
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
        job = TrainingJob(
            name, [(randomness.row, target)], settings, options, randomness.seed, progress=progress
        )
        learned = learn(job, recipe)
        try:
            return next(learned.run([RowJob([target], 0, randomness, progress)], settings, options))
        finally:
            learned.close()

    return run
