"""Annealed sequential Monte Carlo over complete texts (Del Moral et al. 2006), waste-free (Dau &
Chopin 2022).

Particles start as draws of q₀: N from the mixture of token temperatures and, where a short
best-first search finds texts, N more from those. They go through γ_β = q₀^(1−β) e^(βγ) from β = 0
to 1. Impossible starts are dropped first. The next β keeps the conditional effective sample size at
a share of them; then N are drawn by systematic resampling, and each makes some moves of the kernel
that leave γ_β invariant. Waste-free, N / L are drawn, and all L states of every trajectory are the
next N particles. Ẑ is the product of the mean incremental weights. Chains are independent
replicates, pooled by their Ẑ: a replicate's draws share its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lmppl import ir
from lmppl.decoding import Purpose, Randomness
from lmppl.density import Floats, Target
from lmppl.diagnosis import Diagnostics
from lmppl.engines.contract import Engine, Outcome, Sample, Settings
from lmppl.engines.defensive import DEFENSIVE, proposal_of
from lmppl.engines.mcmc import chain_states_density, sample
from lmppl.engines.mcmc_kernel import SPANS, ChainState, Kernel
from lmppl.engines.resampling import GOLDEN, replicate_evidence, resample
from lmppl.engines.weights import effective_sample_size, require_support
from lmppl.screen import Progress
from lmppl.settings import Count, PartShare, ProperShare, Share, Temperatures, Whole

LEAST = 256  # particles, unless fewer are asked for
ANNEALING = "annealing (β in percent)"
WIDTH = 2**16  # particles of one replicate are numbered below this


@dataclass(frozen=True)
class Options:
    """Options of `annealed`."""

    particles: Whole = 0  # states a replicate; 0: as many as the draws asked for, at least 256
    moves: Count = 1  # of every particle, between resamplings
    # states kept a trajectory: 1 moves N particles; L > 1 moves N / L of them, L − 1 times
    waste_free: Count = 1
    # prefixes of a best-first search whose finds are half of the start; 0: none
    search: Whole = 384
    # conditional effective sample size that a step of β keeps, as a share of the particles
    ess: PartShare = 0.6
    last: Whole = 1  # extra rounds of moves at β = 1
    temperatures: Temperatures = ()  # of all proposals; empty: from 1 to the prior's 1/power
    # a folder that a run of gflownet, ppo or sft wrote: starts come from what it learned
    proposal: str = ""
    # share of those starts that still comes from the temperatures
    defensive: ProperShare = DEFENSIVE
    restarts: Share = 0.2  # share of moves that start anew
    spans: Share = SPANS  # share of text moves that redraw a span, where something follows the text
    most_steps: Count = 100  # give up after this many values of β


def cannot(program: ir.Program) -> str | None:
    """Every program can be run."""
    return None


@dataclass
class Replicate:
    """One run of the sampler: its particles, and what happened to them."""

    number: int
    particles: list[ChainState]
    ancestors: list[int]  # per particle, which of the first N draws it descends from
    beta: float = 0.0
    log_evidence: float = 0.0
    betas: list[float] = field(default_factory=list)
    lineages: list[int] = field(
        default_factory=list
    )  # ancestors that are left after each resampling
    least_ess: float = 1.0  # smallest share before a resampling
    moved: int = 0
    accepted: int = 0
    steps: int = 0

    @property
    def dead(self) -> bool:
        return not self.particles


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """chains replicates, num_samples draws each. Raises LmpplError where every start is
    impossible.
    """
    count = particles(settings, options)
    progress(f"first draws, {count} × {settings.chains}", 0, settings.chains)
    kernel = Kernel(
        target, randomness, options.temperatures, options.restarts, options.spans, early=False
    )
    kernel = replace(kernel, proposal=proposal_of(target, options)).searched(options.search)
    replicates = []
    for number in range(settings.chains):
        progress(f"first draws, {count} × {settings.chains}", number, settings.chains)
        replicates.append(_start(kernel, number, count, randomness))
    require_support(
        target,
        *chain_states_density(
            [particle for replicate in replicates for particle in replicate.particles]
        ),
    )
    for replicate in replicates:
        _drop_impossible(replicate, randomness)
    rounds = 0
    progress(ANNEALING, 0, 100)
    while growing := [
        replicate for replicate in replicates if replicate.beta < 1 and not replicate.dead
    ]:
        if rounds >= options.most_steps:
            break
        for replicate in growing:
            _reweight(replicate, count, options, randomness)
        _move(kernel, growing, options, kept=options.waste_free)
        rounds += 1
        progress(ANNEALING, int(100 * min(r.beta for r in growing)), 100)
    for _ in range(options.last):
        _move_again(kernel, replicates, count, options, randomness)
    return _outcome(replicates, settings, count, randomness)


def particles(settings: Settings, options: Options) -> int:
    """N, a multiple of the states kept a trajectory."""
    wanted = options.particles or max(LEAST, settings.num_samples)
    return -(-wanted // options.waste_free) * options.waste_free


# --- the steps ------------------------------------------------------------------------------------


def _start(kernel: Kernel, number: int, count: int, randomness: Randomness) -> Replicate:
    """N draws at the proposal temperatures and, where a search has found something, N evenly spread
    over its finds.
    """
    particles = kernel.start([(number * WIDTH + i, 0) for i in range(count)])
    if kernel.finds is not None:
        first = randomness.uniforms(number * WIDTH, 0, Purpose.FINAL, 1)[0]
        particles += [kernel.finds.draw((first + GOLDEN * i) % 1) for i in range(count)]
    return Replicate(
        number, particles, list(range(len(particles))), lineages=[len(particles)], steps=1
    )


def _drop_impossible(replicate: Replicate, randomness: Randomness) -> None:
    """Condition q₀ on the program's support: the share of possible starts is the first factor of
    Ẑ.
    """
    possible = np.array([np.isfinite(particle.log_density) for particle in replicate.particles])
    if possible.all():
        return
    replicate.least_ess = min(replicate.least_ess, float(possible.mean()))
    with np.errstate(divide="ignore"):
        log_weights = np.log(possible.astype(float))
    _resample(replicate, log_weights, len(possible), randomness)


def _reweight(replicate: Replicate, count: int, options: Options, randomness: Randomness) -> None:
    """Go on to the next β, and resample the ancestors of the next particles."""
    slopes = np.array(
        [particle.log_density - particle.log_start for particle in replicate.particles]
    )
    step = next_step(slopes, 1 - replicate.beta, options.ess)
    replicate.beta = min(1.0, replicate.beta + step)
    replicate.betas.append(replicate.beta)
    log_weights = step * slopes
    replicate.least_ess = min(replicate.least_ess, effective_sample_size(log_weights) / len(slopes))
    _resample(replicate, log_weights, count // options.waste_free, randomness)


def next_step(slopes: Floats, most: float, ess: float) -> float:
    """The largest step of β, at most `most`, whose weights keep this share of the effective sample
    size.
    """
    if effective_sample_size(most * slopes) >= ess * len(slopes):
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        if effective_sample_size(middle * slopes) >= ess * len(slopes):
            low = middle
        else:
            high = middle
    return max(low, 1e-4 * most)


def _resample(
    replicate: Replicate, log_weights: Floats, count: int, randomness: Randomness
) -> None:
    """Multiply Ẑ by the mean weight and keep `count` of the particles. All weights zero: the
    replicate is dead.
    """
    replicate.log_evidence += float(np.logaddexp.reduce(log_weights) - np.log(len(log_weights)))
    if np.isneginf(log_weights).all():
        replicate.particles, replicate.ancestors = [], []
        return
    index = _kept(replicate, log_weights, count, randomness)
    replicate.particles = [replicate.particles[i] for i in index]
    replicate.ancestors = [replicate.ancestors[i] for i in index]
    replicate.lineages.append(len(set(replicate.ancestors)))
    replicate.steps += 1


def _kept(
    replicate: Replicate, log_weights: Floats, count: int, randomness: Randomness
) -> list[int]:
    """`count` of the particles, systematically: equal and similar states lie together, so that each
    gets its share.
    """
    order = sorted(
        range(len(log_weights)),
        key=lambda i: tuple(sorted(replicate.particles[i].state.items())),
    )
    uniform = randomness.uniforms(replicate.number * WIDTH, replicate.steps, Purpose.RESAMPLING, 1)[
        0
    ]
    return [order[i] for i in resample(log_weights[order], count, uniform)]


def _move(kernel: Kernel, replicates: Sequence[Replicate], options: Options, kept: int) -> None:
    """Let every particle move; the last `kept` of its states are particles."""
    current = [(replicate, list(replicate.particles)) for replicate in replicates]
    trails = [[particles] for _, particles in current]
    for _ in range(options.waste_free - 1 if options.waste_free > 1 else options.moves):
        particles = [particle for _, block in current for particle in block]
        keys = [(r.number * WIDTH + i, r.steps) for r, block in current for i in range(len(block))]
        betas = [r.beta for r, block in current for _ in block]
        step = kernel.step(particles, keys, betas)
        start = 0
        for n, (replicate, block) in enumerate(current):
            end = start + len(block)
            current[n] = replicate, step.chain_states[start:end]
            trails[n].append(step.chain_states[start:end])
            replicate.steps += 1
            replicate.moved += len(block)
            replicate.accepted += int(step.accepted[start:end].sum())
            start = end
    for (replicate, _), trail in zip(current, trails, strict=True):
        replicate.ancestors = replicate.ancestors * kept
        replicate.particles = [particle for block in trail[-kept:] for particle in block]


def _move_again(
    kernel: Kernel,
    replicates: Sequence[Replicate],
    count: int,
    options: Options,
    randomness: Randomness,
) -> None:
    """One more round of moves at β = 1, from ancestors of equal weight; all states on the way are
    particles.
    """
    whole = [replicate for replicate in replicates if replicate.beta == 1 and not replicate.dead]
    for replicate in whole:
        _resample(
            replicate,
            np.zeros(len(replicate.particles)),
            count // options.waste_free,
            randomness,
        )
    _move(kernel, whole, options, kept=max(options.waste_free, options.moves + 1))


# --- results --------------------------------------------------------------------------------------


def _outcome(
    replicates: Sequence[Replicate], settings: Settings, count: int, randomness: Randomness
) -> Outcome:
    samples: list[Sample] = []
    for replicate in replicates:
        if replicate.dead or replicate.beta < 1:
            replicate.log_evidence = -np.inf
            continue
        kept = _kept(
            replicate, np.zeros(len(replicate.particles)), settings.num_samples, randomness
        )
        uniforms = randomness.uniforms(replicate.number * WIDTH, 0, Purpose.SHUFFLE, len(kept))
        kept = [
            kept[i] for i in np.argsort(uniforms)
        ]  # a chain's draws are not to look like a slow walk
        samples += [
            sample(replicate.number, draw, replicate.particles[i], replicate.log_evidence)
            for draw, i in enumerate(kept)
        ]
    log_evidence, error, interval = replicate_evidence(
        [replicate.log_evidence for replicate in replicates]
    )
    diagnostics = Diagnostics(
        log_evidence_by_replicate=[replicate.log_evidence for replicate in replicates],
        log_evidence_interval=interval,
        particles=count,
        temperatures=max(len(replicate.betas) for replicate in replicates),
        min_ess_fraction=min(replicate.least_ess for replicate in replicates),
        surviving_ancestors=[len(set(replicate.ancestors)) for replicate in replicates],
        lineages=[replicate.lineages for replicate in replicates],
        acceptance=[replicate.accepted / max(1, replicate.moved) for replicate in replicates],
    )
    return Outcome(samples, log_evidence, error, diagnostics=diagnostics)


ENGINE = Engine(
    "annealed", "annealed sequential Monte Carlo over complete texts", Options, cannot, run
)
