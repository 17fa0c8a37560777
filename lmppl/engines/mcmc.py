"""Metropolis-Hastings over complete states: suffix, span, restart and choice moves, all chains in
one batch.

The kernel's moves leave the posterior invariant (kernel.py says why). Chains start at the first
draw of positive density, from the prior at mixed temperatures. `init` and `step` are pure, and
randomness is keyed by (chain, step), so that a chain does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import Density, Floats, State, Target, joined
from lmppl.diagnosis import Coupling, Diagnostics
from lmppl.engines.contract import Engine, Interrupted, Outcome, Sample, Settings
from lmppl.engines.cut import of_draws, whole_draws
from lmppl.engines.defensive import DEFENSIVE, proposal_of
from lmppl.engines.finite import FEW, finite_states
from lmppl.engines.mcmc_kernel import (
    RESTARTS,
    SPANS,
    ChainState,
    Kernel,
    Step,
    couple,
    followed,
    inverse_temperatures,
    number,
    origins,
    sweep,
)
from lmppl.engines.weights import require_support
from lmppl.screen import Progress
from lmppl.settings import Count, ProperShare, Range, Share, Size, Temperatures, Whole

START = 2**32 - 2**24  # start draws are numbered from here, apart from the steps
PAIRS = 2**23  # coupled pairs are numbered from here, apart from the chains
MOST_EXAMPLES = 256  # impossible draws that are remembered to say what was wrong
Chains = tuple[list[Sample], Diagnostics]


@dataclass(frozen=True)
class Options:
    """Options of `mcmc`."""

    temperatures: Temperatures = ()  # of the proposals; empty: from 1 to the prior's 1/power
    # a folder that a run of gflownet, ppo or sft wrote: starts come from what it learned
    proposal: str = ""
    defensive: ProperShare = DEFENSIVE  # share of the starts that still comes from the temperatures
    restarts: Share = RESTARTS  # share of moves that start anew
    spans: Share = SPANS  # share of text moves that redraw a span, where something follows the text
    early_rejection: bool = True  # give proposals up as soon as they are certain to be rejected
    levels: Size = 1  # above 1: parallel tempering on so many rungs between q₀ and the posterior
    # above 0: run coupled pairs at this lag as well, which bound the distance to the posterior
    lag: Whole = 0
    pairs: Annotated[int, Range(2, 2**16, whole=True)] = 24  # coupled pairs
    init_draws: Count = 2_000  # draws a chain may take to find a state of positive density

    def conflict(self) -> tuple[str, str] | None:
        """An option that does not go with the others, and what does."""
        if self.lag > 0 and self.levels > 1:
            return "lag", "0 with `levels` above 1: pairs are coupled on one level"
        return None


def cannot(program: ir.Program) -> str | None:
    """Every program can be run."""
    return None


def kernel(target: Target, options: Options, randomness: Randomness) -> Kernel:
    """The moves that these options ask for."""
    return Kernel(
        target,
        randomness,
        options.temperatures,
        options.restarts,
        options.spans,
        early=options.early_rejection,
        remember=options.levels == 1,
        proposal=proposal_of(target, options),
    )


def init(moves: Kernel, chains: Sequence[int], init_draws: int) -> list[ChainState]:
    """The first draw of positive density of each chain, from the prior at mixed temperatures.

    Raises LmpplError, naming the factor at fault, where some chain finds none.
    """
    started: dict[int, ChainState] = {}
    impossible: list[ChainState] = []
    block = 1  # fixed sizes, so that the start does not depend on the batch
    attempt = 0
    while missing := [chain for chain in chains if chain not in started]:
        if attempt >= init_draws:
            require_support(moves.target, *chain_states_density(impossible))
        keys = [(chain, START + attempt + i) for chain in missing for i in range(block)]
        for (chain, _), chain_state in zip(keys, moves.start(keys), strict=True):
            if np.isneginf(chain_state.log_density):
                impossible.append(chain_state)
            elif chain not in started:
                started[chain] = chain_state
        impossible = impossible[-MOST_EXAMPLES:]
        attempt, block = attempt + block, 16
    return [started[chain] for chain in chains]


def chain_states_density(chain_states: Sequence[ChainState]) -> tuple[list[State], Density]:
    """States of chains, and their densities as one."""
    parts = [
        Density(
            np.array([chain_state.log_density]),
            {name: np.array([x]) for name, x in chain_state.factors.items()},
        )
        for chain_state in chain_states
    ]
    return [chain_state.state for chain_state in chain_states], joined(parts)


def step(moves: Kernel, chain_states: Sequence[ChainState], chains: Sequence[int], at: int) -> Step:
    """One Metropolis-Hastings step of every chain. chains: their own numbers; at: the step's
    number.
    """
    return moves.step(chain_states, [(chain, at) for chain in chains], [1.0] * len(chain_states))


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """chains × num_samples draws after num_warmup steps. Raises LmpplError where no chain can
    start.
    """
    moves = kernel(target, options, randomness)
    chains = _tempered if options.levels > 1 else _apart
    samples, diagnostics = chains(moves, settings, options, progress)
    samples.sort(key=lambda draw: (draw.chain, draw.draw))
    if all(draw.state == samples[0].state for draw in samples):
        diagnostics = replace(diagnostics, only_value=_is_only(target))
    if options.lag > 0:
        progress("coupled pairs", 0, options.pairs)
        try:
            coupling = _coupling(moves, options, settings, _total(settings))
        except KeyboardInterrupt:
            warning = "interrupted while pairs were coupled: nothing is said of them"
            raise Interrupted(
                Outcome(samples, diagnostics=diagnostics, warnings=[warning])
            ) from None
        diagnostics = replace(diagnostics, coupling=coupling)
    return Outcome(samples, diagnostics=diagnostics)


def _is_only(target: Target) -> bool:
    """Whether one state alone is possible, where that can be told: a chain that holds it need not
    move.
    """
    states = finite_states(target, FEW)
    return bool(states) and int(np.isfinite(target.log_density(states).total).sum()) == 1


def _cut(
    samples: Sequence[Sample], settings: Settings, accepted: Floats, at: Sequence[int], fresh: int
) -> BaseException:
    """What Ctrl-C leaves: the draws that all chains have, if they have any. at: the next step of
    each chain.
    """
    kept = whole_draws(samples, settings.chains)
    if not kept:
        return KeyboardInterrupt()
    rates = accepted / np.maximum(np.array(at) - settings.num_warmup, 1)
    warning = of_draws(len(kept) // settings.chains, settings.num_samples, " a chain")
    return Interrupted(
        Outcome(
            kept,
            diagnostics=Diagnostics(acceptance=rates.tolist(), fresh_starts=fresh),
            warnings=[warning],
        )
    )


def _total(settings: Settings) -> int:
    """Steps of every chain."""
    return settings.num_warmup + settings.num_samples * settings.thin


def _draws(settings: Settings, steps: Iterable[int]) -> list[int]:
    """Numbers of the draws that these steps end in."""
    kept = [at - settings.num_warmup for at in steps if at >= settings.num_warmup]
    return [k // settings.thin for k in kept if k % settings.thin == settings.thin - 1]


def _stage(settings: Settings, at: int) -> str:
    return "warming up" if at < settings.num_warmup else "sampling"


def _apart(moves: Kernel, settings: Settings, options: Options, progress: Progress) -> Chains:
    """Every chain at its own pace: one whose proposal is given up goes on while the others' still
    run.
    """
    total = _total(settings)
    progress("first draws", 0, settings.chains)
    chain_states = init(moves, range(settings.chains), options.init_draws)
    at = [0] * settings.chains  # the next step of each chain
    samples: list[Sample] = []
    accepted, fresh = np.zeros(settings.chains), 0
    while chains := [c for c in range(settings.chains) if at[c] < total]:
        now = [chain_states[c] for c in chains]
        try:
            after = moves.step(
                now, [(c, at[c]) for c in chains], [1.0] * len(chains), [total] * len(chains)
            )
        except KeyboardInterrupt:
            raise _cut(samples, settings, accepted, at, fresh) from None
        for i, c in enumerate(chains):
            last = at[c] + int(after.counts[i]) - 1  # those before it left the state as it was
            samples += [sample(c, draw, now[i]) for draw in _draws(settings, range(at[c], last))]
            samples += [sample(c, draw, after.chain_states[i]) for draw in _draws(settings, [last])]
            if last >= settings.num_warmup:
                accepted[c] += after.accepted[i]
                fresh += int(after.fresh[i])
            chain_states[c], at[c] = after.chain_states[i], last + 1
        progress(_stage(settings, min(at) - 1), min(at), total)
    rates = accepted / (settings.num_samples * settings.thin)
    return samples, Diagnostics(acceptance=rates.tolist(), fresh_starts=fresh)


def _tempered(moves: Kernel, settings: Settings, options: Options, progress: Progress) -> Chains:
    """All rungs of all chains in step, as they exchange their states.

    A fresh start is a draw's first arrival at the posterior's rung: a state that kept nothing of
    those there before.
    """
    total, chains = _total(settings), range(settings.chains)
    betas = inverse_temperatures(options.levels)
    progress("first draws", 0, settings.chains)
    rungs = [
        init(moves, [number(c, r, len(betas)) for c in chains], options.init_draws)
        for r in range(len(betas))
    ]
    samples: list[Sample] = []
    accepted = np.zeros(settings.chains)
    swapped, offered = np.zeros(len(betas) - 1), np.zeros(len(betas) - 1)
    descent = origins(len(betas), settings.chains)
    seen, fresh = set(descent[-1].tolist()), 0
    for at in range(total):
        try:
            after = sweep(moves, rungs, betas, chains, at)
        except KeyboardInterrupt:
            raise _cut(samples, settings, accepted, [at] * settings.chains, fresh) from None
        rungs, descent = after.rungs, followed(descent, after)
        arrived = set(descent[-1].tolist()) - seen
        seen |= arrived
        if at >= settings.num_warmup:
            fresh += len(arrived)
            accepted += after.accepted
            swapped += after.swapped.mean(1)
            offered += after.offered
        samples += [
            sample(c, d, chain_state)
            for d in _draws(settings, [at])
            for c, chain_state in enumerate(rungs[-1])
        ]
        progress(_stage(settings, at), at + 1, total)
    rates = accepted / (settings.num_samples * settings.thin)
    swaps = (swapped / np.maximum(offered, 1)).tolist()
    return samples, Diagnostics(acceptance=rates.tolist(), fresh_starts=fresh, swaps=swaps)


def _coupling(moves: Kernel, options: Options, settings: Settings, total: int) -> Coupling:
    """Meeting times of coupled pairs, and what they say of the chains after warmup."""
    numbers = range(PAIRS, PAIRS + options.pairs)
    ahead = init(moves, numbers, options.init_draws)
    behind = init(
        moves, range(PAIRS + options.pairs, PAIRS + 2 * options.pairs), options.init_draws
    )

    def advance(chain_states: list[ChainState], chains: Sequence[int], at: int) -> list[ChainState]:
        return step(moves, chain_states, chains, at).chain_states

    meetings = couple(advance, ahead, behind, numbers, options.lag, total + 10 * options.lag)
    return Coupling(options.lag, list(meetings.times), meetings.bound(settings.num_warmup))


def sample(chain: int, draw: int, chain_state: ChainState, log_weight: float = 0.0) -> Sample:
    """The state of a chain as a draw."""
    return Sample(
        chain, draw, chain_state.state, chain_state.log_density, chain_state.factors, log_weight
    )


ENGINE = Engine(
    "mcmc", "Metropolis-Hastings over complete texts, all chains in one batch", Options, cannot, run
)
