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
from lmppl.density import Floats, State, Target, drawn_options
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


def ladder_of(
    target: Target, latent: ir.TextLatent, temperatures: Temperatures
) -> tuple[float, ...]:
    """Temperatures that a latent is drawn at: those asked for, or where None its own ladder."""
    if temperatures is None:
        return temperature_ladder(target, latent)
    return tuple(temperatures(latent) if callable(temperatures) else temperatures)


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
    log_proposal = np.zeros(len(keys))
    known: dict[str, Floats] = {}
    rollouts: dict[str, Rollout] = {}
    for purpose, latent in enumerate(target.latents):
        size = 1 + (latent.maximum if isinstance(latent, ir.TextLatent) else 0)
        uniforms = np.stack(
            [randomness.uniforms(chain, draw, purpose, size) for chain, draw in keys]
        )
        if isinstance(latent, ir.ChoiceLatent):
            known[latent.name] = _draw_choice(target, latent, states, uniforms[:, 0])
            log_proposal += known[latent.name]
            continue
        ladder = ladder_of(target, latent, temperatures)
        component = np.minimum((uniforms[:, 0] * len(ladder)).astype(np.int64), len(ladder) - 1)
        rollout = target.roll_out(
            latent.name,
            states,
            temperatures=ladder,
            component=component,
            uniforms=uniforms[:, 1:],
            pasts=[None] * len(keys) if remember else None,
        )
        for state, tokens in zip(states, rollout.tokens, strict=True):
            state[latent.name] = tokens
        known[latent.name] = log_prior(target, latent.name, rollout)
        log_proposal += mixture_log_density(rollout)
        rollouts[latent.name] = rollout
    return Drawn(list(states), log_proposal, known, rollouts)


def _draw_choice(
    target: Target, latent: ir.ChoiceLatent, states: list[dict], uniforms: Floats
) -> Floats:
    """Draw a choice from its prior into the states; returns its log prior. (N,)"""
    law = target.choice_log_probs(latent.name, states)
    index = drawn_options(law, uniforms)
    for state, i in zip(states, index, strict=True):
        state[latent.name] = int(i)
    return law[np.arange(len(states)), index]


def log_prior(target: Target, name: str, rollout: Rollout) -> Floats:
    """(N,) log prior of whole texts that were drawn from their beginning; -inf where `until` was
    not reached.
    """
    legal = [target.text_latent(name).stopping.legal(tokens) for tokens in rollout.tokens]
    return np.array(
        [row.sum() if ok else -np.inf for row, ok in zip(rollout.log_prior, legal, strict=True)]
    )


def mixture_log_density(rollout: Rollout) -> Floats:
    """(N,) log density of whole texts under the equal mixture of the rollout's temperatures."""
    by_component = np.stack([row.sum(0) for row in rollout.log_proposal])  # (N, K)
    return np.logaddexp.reduce(by_component, axis=1) - np.log(by_component.shape[1])


def trace_prior(
    target: Target, states: Sequence[State], temperatures: Temperatures = None
) -> Drawn:
    """What `draw_prior` would have said of states that were not drawn by it: log q, and scores by
    the same code.
    """
    log_proposal = np.zeros(len(states))
    known: dict[str, Floats] = {}
    rollouts: dict[str, Rollout] = {}
    for latent in target.latents:
        name = latent.name
        if isinstance(latent, ir.ChoiceLatent):
            index = [state[name] for state in states]
            known[name] = target.choice_log_probs(name, states)[np.arange(len(states)), index]
            log_proposal += known[name]
            continue
        rollouts[name] = target.trace(name, states, ladder_of(target, latent, temperatures))
        known[name] = log_prior(target, name, rollouts[name])
        log_proposal += mixture_log_density(rollouts[name])
    return Drawn(list(states), log_proposal, known, rollouts)
