"""Drawing every latent in program order from its prior, or from a mixture of temperatures of it.

The mixture is over whole texts: each text is drawn at one temperature throughout, and its density
is the log-sum-exp over all of them, so log q is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.decoding import Hot, Randomness, Rollout
from lmppl.density import (
    BoundLatent,
    BoundText,
    Floats,
    LatentDraws,
    Manner,
    State,
    Target,
)
from lmppl.lm import is_decoder

LADDER = (1.0, 0.7, 0.5, 0.25)
PLAIN = 3  # draws at the model's own temperature for each that hurries to what a mask asks for
# of all latents, or of each
Temperatures = Sequence[float] | Callable[[ir.TextLatent], Sequence[float]] | None


@dataclass(frozen=True)
class Drawn:
    """N draws of all latents."""

    states: list[State]
    log_proposal: Floats  # (N,)
    known: Mapping[
        str, Floats
    ]  # log prior of each latent, (N,): breakdown entries that need not be scored again
    rollouts: Mapping[str, Rollout]


def temperature_ladder(target: Target, latent: ir.TextLatent) -> tuple[float, ...]:
    """Temperatures from the model's own, 1, to that of the prior's power, 1/A; where A > 1, both
    hurried as well.

    Where masks know how far the end is, a part of the draws at 1 is hurried too.
    """
    bound = target.text_latent(latent.name)
    if not is_decoder(bound.terms[0].model):
        return (1.0,)  # it draws by itself, as it is
    last, masks = 1 / latent.total_power, bound.masks
    hurried = (
        (Hot(1.0, hurried=True),) if last < 1 - 1e-9 or (masks is not None and masks.leads) else ()
    )
    if abs(last - 1) < 1e-9:
        return (1.0,) * (PLAIN if hurried else 1) + hurried
    return (
        1.0,
        *(t for t in LADDER[1:] if t > last * 1.01),
        last,
        *hurried,
        *(Hot(last, hurried=True),) * (last < 1),
    )


def ladder_of(target: Target, latent: BoundLatent, temperatures: Temperatures) -> tuple[float, ...]:
    """Temperatures that a latent is drawn at: of a text those asked for, or where None its own
    ladder; none of a choice, which is drawn from its law as it is.
    """

    def of_text(text: BoundText) -> tuple[float, ...]:
        if temperatures is None:
            return temperature_ladder(target, text.latent)
        return tuple(temperatures(text.latent) if callable(temperatures) else temperatures)

    return latent.by_kind(text=of_text, choice=lambda _: ())


def draw_prior(
    target: Target,
    keys: Sequence[tuple[int, int]],
    randomness: Randomness,
    temperatures: Temperatures = None,
    remember: bool = False,
) -> Drawn:
    """One state a key, a key being (chain, draw). remember: let the rollouts tell what they have
    run.
    """
    states: list[dict] = [{} for _ in keys]
    found: dict[str, LatentDraws] = {}
    for purpose, latent in enumerate(target.latents):
        how = states, keys, randomness, purpose, temperatures, remember
        draws = draw_latent(target, latent.name, *how)
        for state, value in zip(states, draws.values, strict=True):
            state[latent.name] = value
        found[latent.name] = draws
    return _together(target, states, found)


def draw_latent(
    target: Target,
    name: str,
    states: Sequence[State],
    keys: Sequence[tuple[int, int]],
    randomness: Randomness,
    purpose: int,
    temperatures: Temperatures = None,
    remember: bool = False,
) -> LatentDraws:
    """One latent of states that have the latents before it: each at one temperature of its ladder.

    purpose: what its random numbers are for, under each state's key.
    """
    bound = target.latent(name)
    ladder = ladder_of(target, bound, temperatures)
    size = bound.num_decisions + bool(ladder)  # where there is a ladder, one says which of it
    uniforms = np.stack([randomness.uniforms(chain, draw, purpose, size) for chain, draw in keys])
    component = np.zeros(len(keys), dtype=np.int64)
    if ladder:
        rungs = (uniforms[:, 0] * len(ladder)).astype(np.int64)
        component, uniforms = np.minimum(rungs, len(ladder) - 1), uniforms[:, 1:]
    return target.draw(name, states, uniforms, Manner(ladder, component, remember=remember))


def trace_prior(
    target: Target, states: Sequence[State], temperatures: Temperatures = None
) -> Drawn:
    """What `draw_prior` would have said of states that were not drawn by it: log q, and scores by
    the same code.
    """
    latents = [target.latent(latent.name) for latent in target.latents]
    found = {
        latent.name: latent.traced(target, states, ladder_of(target, latent, temperatures))
        for latent in latents
    }
    return _together(target, states, found)


def _together(target: Target, states: Sequence[State], found: Mapping[str, LatentDraws]) -> Drawn:
    """Draws of all latents from those of each."""
    log_proposal = np.zeros(len(states))
    for draws in found.values():
        log_proposal += mixture_log_density(draws.log_q)
    known = {name: log_prior(target, name, draws) for name, draws in found.items()}
    rollouts = {name: draws.rollout for name, draws in found.items() if draws.rollout is not None}
    return Drawn(list(states), log_proposal, known, rollouts)


def log_prior(target: Target, name: str, draws: LatentDraws) -> Floats:
    """(N,) log prior of whole values that were drawn from their beginning; -inf for texts that did
    not reach their `until`.
    """
    latent = target.latent(name)
    return np.array([
        row.sum() if latent.legal(value) else -np.inf
        for value, row in zip(draws.values, draws.log_prior, strict=True)
    ])  # fmt: skip


def mixture_log_density(log_q: Sequence[Floats]) -> Floats:
    """(N,) log density of whole values, (S, K) each, under the equal mixture of K temperatures."""
    by_component = np.stack([row.sum(0) for row in log_q])  # (N, K)
    return np.logaddexp.reduce(by_component, axis=1) - np.log(by_component.shape[1])
