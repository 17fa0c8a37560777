"""Metropolis-Hastings over complete states: suffix, span, restart and choice moves, all chains in one batch.

The kernel's moves leave the posterior invariant (kernel.py says why). Chains start at the first draw of positive
density, from the prior at mixed temperatures. `init` and `step` are pure, and randomness is keyed by
(chain, step), so that a chain does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.engines.contract import Engine, Outcome, Progress, Sample, Settings
from lmppl.engines.kernel import RESTARTS, SPANS, Kernel, Step
from lmppl.engines.walker import Walker
from lmppl.engines.weights import require_support
from lmppl.randomness import Randomness
from lmppl.target import Density, State, Target, joined

START = 2**32 - 2**24  # start draws are numbered from here, apart from the steps
MOST_EXAMPLES = 256  # impossible draws that are remembered to say what was wrong


@dataclass(frozen=True)
class Options:
    """Options of `mcmc`."""

    temperatures: tuple[float, ...] = ()  # of the proposals; empty: from 1 to the prior's 1/power
    restarts: float = RESTARTS  # share of moves that start anew
    spans: float = SPANS  # share of text moves that redraw a span, where something follows the text
    early_rejection: bool = True  # give proposals up as soon as they are certain to be rejected
    init_draws: int = 2_000  # draws a chain may take to find a state of positive density


def cannot(program: ir.Program) -> str | None:
    """Every program can be run."""
    return None


def kernel(target: Target, options: Options, randomness: Randomness) -> Kernel:
    """The moves that these options ask for."""
    return Kernel(target, randomness, options.temperatures, options.restarts, options.spans, options.early_rejection)


def init(moves: Kernel, chains: Sequence[int], init_draws: int) -> list[Walker]:
    """The first draw of positive density of each chain, from the prior at mixed temperatures.

    Raises LmpplError, naming the factor at fault, where some chain finds none.
    """
    started: dict[int, Walker] = {}
    impossible: list[Walker] = []
    block = 1  # fixed sizes, so that the start does not depend on the batch
    attempt = 0
    while missing := [chain for chain in chains if chain not in started]:
        if attempt >= init_draws:
            require_support(moves.target, *walkers_density(impossible))
        keys = [(chain, START + attempt + i) for chain in missing for i in range(block)]
        for (chain, _), walker in zip(keys, moves.start(keys), strict=True):
            if np.isneginf(walker.log_density):
                impossible.append(walker)
            elif chain not in started:
                started[chain] = walker
        impossible = impossible[-MOST_EXAMPLES:]
        attempt, block = attempt + block, 16
    return [started[chain] for chain in chains]


def walkers_density(walkers: Sequence[Walker]) -> tuple[list[State], Density]:
    """States of walkers, and their densities as one."""
    parts = [
        Density(np.array([walker.log_density]), {name: np.array([x]) for name, x in walker.factors.items()})
        for walker in walkers
    ]
    return [walker.state for walker in walkers], joined(parts)


def step(moves: Kernel, walkers: Sequence[Walker], chains: Sequence[int], at: int) -> Step:
    """One Metropolis-Hastings step of every chain. chains: their own numbers; at: the step's number."""
    return moves.step(walkers, [(chain, at) for chain in chains], [1.0] * len(walkers))


def run(target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress) -> Outcome:
    """chains × num_samples draws after num_warmup steps. Raises LmpplError where no chain can start."""
    moves = kernel(target, options, randomness)
    chains = range(settings.chains)
    walkers = init(moves, chains, options.init_draws)
    samples: list[Sample] = []
    accepted = np.zeros(settings.chains)
    total = settings.num_warmup + settings.num_samples * settings.thin
    for at in range(total):
        after = step(moves, walkers, chains, at)
        walkers = after.walkers
        kept = at - settings.num_warmup
        if kept >= 0:
            accepted += after.accepted
            if kept % settings.thin == settings.thin - 1:
                samples += [sample(c, kept // settings.thin, walker) for c, walker in enumerate(walkers)]
        progress("warming up" if kept < 0 else "sampling", at + 1, total)
    acceptance = accepted / (settings.num_samples * settings.thin)
    samples.sort(key=lambda draw: (draw.chain, draw.draw))
    return Outcome(samples, diagnostics={"acceptance": acceptance.tolist()})


def sample(chain: int, draw: int, walker: Walker, log_weight: float = 0.0) -> Sample:
    """A walker as a draw."""
    return Sample(chain, draw, walker.state, walker.log_density, walker.factors, log_weight)


ENGINE = Engine("mcmc", "Metropolis-Hastings over complete texts, all chains in one batch", Options, cannot, run)
