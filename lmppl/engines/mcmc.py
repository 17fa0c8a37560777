"""Suffix Metropolis-Hastings over complete texts, all chains in one batch.

A move picks a latent, cuts its text at a position k that is uniform over its |z| scored positions, and draws
the rest anew from the model at one of a few temperatures. With q the proposal's density of a suffix,
    log A = γ(z') − γ(z) + log q(old suffix) − log q(new suffix) + log|z| − log|z'| ;
the last two terms are the cut's probability forward and back, without which texts that end early get the
wrong share. Choice latents are redrawn from their prior. A state keeps the scores it was accepted with.
`init` and `step` are pure: they take and return values, and all randomness is keyed by (chain, step).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.engines.contract import Engine, Outcome, Progress, Sample, Settings
from lmppl.engines.proposals import Drawn, draw_prior, temperature_ladder
from lmppl.engines.weights import require_support
from lmppl.lm.protocol import Tokens
from lmppl.randomness import Randomness
from lmppl.target import Density, Floats, State, Target, joined

MOVE = 1_000_000  # purpose number of a move's own uniforms, apart from the tokens'
START = 2**32 - 2**24  # start draws are numbered from here, apart from the steps
MOST_EXAMPLES = 256  # impossible draws that are remembered to say what was wrong


@dataclass(frozen=True)
class Options:
    """Options of `mcmc`."""

    temperatures: tuple[float, ...] = ()  # of the proposals; empty: from 1 to the prior's 1/power
    init_draws: int = 2_000  # draws a chain may take to find a state of positive density


@dataclass(frozen=True)
class Chain:
    """One chain's state and the scores it was accepted with."""

    state: State
    log_density: float
    factors: Mapping[str, float]
    log_prior: Mapping[str, Floats]  # per text latent (|z|,)
    log_proposal: Mapping[str, Floats]  # per text latent (|z|, K)


@dataclass(frozen=True)
class Move:
    """What one chain proposes, drawn before any model is asked."""

    latent: ir.Latent
    component: int  # which temperature draws the suffix
    cut: int  # scored positions that are kept
    log_uniform: float  # log of the acceptance uniform


@dataclass(frozen=True)
class Info:
    """What happened in one step, per chain. (C,)"""

    accepted: NDArray[np.bool_]


def cannot(program: ir.Program) -> str | None:
    """Every program can be run."""
    return None


def ladder(latent: ir.TextLatent, options: Options) -> tuple[float, ...]:
    """Temperatures that a latent's suffixes are drawn at."""
    return options.temperatures or temperature_ladder(latent)


# --- start ----------------------------------------------------------------------------------------


def init(target: Target, chains: Sequence[int], options: Options, randomness: Randomness) -> list[Chain]:
    """The first draw of positive density of each chain, from the prior at mixed temperatures.

    Raises LmpplError, naming the factor at fault, where some chain finds none.
    """
    started: dict[int, Chain] = {}
    impossible: list[tuple[State, Density]] = []
    block = 1  # fixed sizes, so that the start does not depend on the batch
    attempt = 0
    while missing := [chain for chain in chains if chain not in started]:
        if attempt >= options.init_draws:
            states, densities = zip(*impossible, strict=True)
            require_support(target, list(states), joined(densities))
        keys = [(chain, START + attempt + i) for chain in missing for i in range(block)]
        drawn = draw_prior(target, keys, randomness, options.temperatures or None)
        density = target.log_density(drawn.states, drawn.known)
        for i, (chain, _) in enumerate(keys):
            if chain not in started and np.isfinite(density.total[i]):
                started[chain] = _chain(drawn, density, i)
            elif chain not in started:
                impossible.append((drawn.states[i], density.rows([i])))
        impossible = [entry for entry in impossible if np.isneginf(entry[1].total[0])][-MOST_EXAMPLES:]
        attempt, block = attempt + block, 16
    return [started[chain] for chain in chains]


def _chain(drawn: Drawn, density: Density, i: int) -> Chain:
    return Chain(
        drawn.states[i],
        float(density.total[i]),
        {name: float(values[i]) for name, values in density.factors.items()},
        {name: rollout.log_prior[i] for name, rollout in drawn.rollouts.items()},
        {name: rollout.log_proposal[i] for name, rollout in drawn.rollouts.items()},
    )


# --- moves ----------------------------------------------------------------------------------------


def cut_log_ratio(num_scored: int, num_scored_new: int) -> float:
    """log κ(k | z') − log κ(k | z) for the uniform cut: log|z| − log|z'|."""
    return float(np.log(num_scored) - np.log(num_scored_new))


def draw_move(target: Target, chain: Chain, options: Options, uniforms: Floats) -> Move:
    """What to propose, from four uniforms."""
    latents = target.latents
    latent = latents[int(uniforms[0] * len(latents))]
    log_uniform = float(np.log1p(-uniforms[3]))  # 1 - u is never 0
    if isinstance(latent, ir.ChoiceLatent):
        return Move(latent, 0, 0, log_uniform)
    component = int(uniforms[1] * len(ladder(latent, options)))
    cut = int(uniforms[2] * len(chain.log_prior[latent.name]))
    return Move(latent, component, cut, log_uniform)


def step(
    target: Target, chains: Sequence[Chain], numbers: Sequence[int], at: int, options: Options, randomness: Randomness
) -> tuple[list[Chain], Info]:
    """One Metropolis-Hastings step of every chain. numbers: the chains' own; at: the step's number."""
    moves = [
        draw_move(target, chain, options, randomness.uniforms(number, at, MOVE, 4))
        for chain, number in zip(chains, numbers, strict=True)
    ]
    result = list(chains)
    accepted = np.zeros(len(chains), dtype=bool)
    for latent in target.latents:
        rows = [i for i, move in enumerate(moves) if move.latent.name == latent.name]
        if not rows:
            continue
        keys = [(numbers[i], at) for i in rows]
        propose = _propose_choice if isinstance(latent, ir.ChoiceLatent) else _propose_text
        proposed, log_ratios = propose(
            target, [chains[i] for i in rows], [moves[i] for i in rows], keys, options, randomness
        )
        for i, candidate, log_ratio in zip(rows, proposed, log_ratios, strict=True):
            if moves[i].log_uniform < candidate.log_density - chains[i].log_density + log_ratio:
                result[i], accepted[i] = candidate, True
    return result, Info(accepted)


def _propose_text(
    target: Target,
    chains: Sequence[Chain],
    moves: Sequence[Move],
    keys: Sequence[tuple[int, int]],
    options: Options,
    randomness: Randomness,
) -> tuple[list[Chain], list[float]]:
    """Candidates with a new suffix, and log q(old) − log q(new) + the cut's ratio."""
    latent = moves[0].latent
    assert isinstance(latent, ir.TextLatent)
    name = latent.name
    rollout = target.roll_out(
        name,
        [chain.state for chain in chains],
        temperatures=ladder(latent, options),
        component=np.array([move.component for move in moves]),
        uniforms=np.stack([randomness.uniforms(*key, 0, latent.maximum) for key in keys]),
        kept=[target.tokens(name, chain.state[name])[: move.cut] for chain, move in zip(chains, moves, strict=True)],
    )
    log_prior = [
        np.concatenate([chain.log_prior[name][: move.cut], new])
        for chain, move, new in zip(chains, moves, rollout.log_prior, strict=True)
    ]
    log_proposal = [
        np.concatenate([chain.log_proposal[name][: move.cut], new])
        for chain, move, new in zip(chains, moves, rollout.log_proposal, strict=True)
    ]
    log_ratios = [
        float(chain.log_proposal[name][move.cut :, move.component].sum() - new[move.cut :, move.component].sum())
        + cut_log_ratio(len(chain.log_prior[name]), len(new))
        for chain, move, new in zip(chains, moves, log_proposal, strict=True)
    ]
    legal = [target.text_latent(name).stopping.legal(tokens) for tokens in rollout.tokens]
    known = np.array([row.sum() if ok else -np.inf for row, ok in zip(log_prior, legal, strict=True)])
    candidates = _rescore(target, chains, name, list(rollout.tokens), known, options)
    return [
        replace(
            candidate,
            log_prior={**chain.log_prior, name: prior},
            log_proposal={**chain.log_proposal, name: proposal},
        )
        for candidate, chain, prior, proposal in zip(candidates, chains, log_prior, log_proposal, strict=True)
    ], log_ratios


def _propose_choice(
    target: Target,
    chains: Sequence[Chain],
    moves: Sequence[Move],
    keys: Sequence[tuple[int, int]],
    options: Options,
    randomness: Randomness,
) -> tuple[list[Chain], list[float]]:
    """Candidates with an option drawn from its prior, and log q(old) − log q(new)."""
    name = moves[0].latent.name
    law = target.choice_log_probs(name, [chain.state for chain in chains])  # (C, options)
    uniforms = np.array([randomness.uniforms(*key, 0, 1)[0] for key in keys])
    new = np.minimum((np.exp(law).cumsum(1) <= uniforms[:, None]).sum(1), law.shape[1] - 1)
    rows = np.arange(len(chains))
    known = law[rows, new]
    log_ratios = [float(law[i, chain.state[name]] - known[i]) for i, chain in enumerate(chains)]
    return _rescore(target, chains, name, [int(i) for i in new], known, options), log_ratios


def _rescore(
    target: Target,
    chains: Sequence[Chain],
    name: str,
    values: Sequence[Tokens | int],
    log_prior: Floats,
    options: Options,
) -> list[Chain]:
    """The chains with a new value of one latent. Entries that it does not affect are kept, not computed again.

    Later latents' per-token scores are recomputed where their context reads this one.
    """
    states = [{**chain.state, name: value} for chain, value in zip(chains, values, strict=True)]
    affected = target.affected_by(name)
    known = {
        key: np.array([chain.factors[key] for chain in chains]) for key in target.factor_names if key not in affected
    }
    density = target.log_density(states, {**known, name: log_prior})
    moved = [
        replace(
            chain,
            state=states[i],
            log_density=float(density.total[i]),
            factors={key: float(column[i]) for key, column in density.factors.items()},
        )
        for i, chain in enumerate(chains)
    ]
    for latent in target.latents:
        if isinstance(latent, ir.TextLatent) and latent.name in affected - {name}:
            moved = _retrace(target, moved, latent, options)
    return moved


def _retrace(target: Target, chains: Sequence[Chain], latent: ir.TextLatent, options: Options) -> list[Chain]:
    """Per-token scores of a text whose context has changed."""
    rollout = target.trace(latent.name, [chain.state for chain in chains], ladder(latent, options))
    return [
        replace(
            chain,
            log_prior={**chain.log_prior, latent.name: log_prior},
            log_proposal={**chain.log_proposal, latent.name: log_proposal},
        )
        for chain, log_prior, log_proposal in zip(chains, rollout.log_prior, rollout.log_proposal, strict=True)
    ]


# --- the whole run --------------------------------------------------------------------------------


def run(target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress) -> Outcome:
    """chains × num_samples draws after num_warmup steps. Raises LmpplError where no chain can start."""
    numbers = range(settings.chains)
    chains = init(target, numbers, options, randomness)
    samples: list[Sample] = []
    accepted = np.zeros(settings.chains)
    total = settings.num_warmup + settings.num_samples * settings.thin
    for at in range(total):
        chains, info = step(target, chains, numbers, at, options, randomness)
        kept = at - settings.num_warmup
        if kept >= 0:
            accepted += info.accepted
            if kept % settings.thin == settings.thin - 1:
                samples += [_sample(c, kept // settings.thin, chain) for c, chain in enumerate(chains)]
        progress("warming up" if kept < 0 else "sampling", at + 1, total)
    acceptance = accepted / (settings.num_samples * settings.thin)
    samples.sort(key=lambda sample: (sample.chain, sample.draw))
    return Outcome(samples, diagnostics={"acceptance": acceptance.tolist()})


def _sample(number: int, draw: int, chain: Chain) -> Sample:
    return Sample(number, draw, chain.state, chain.log_density, chain.factors)


ENGINE = Engine("mcmc", "suffix Metropolis-Hastings, all chains in one batch", Options, cannot, run)
