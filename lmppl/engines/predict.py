"""`predict Y`: p(Y | givens), the average of p(Y | latents) over draws of the latents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmppl import ir
from lmppl.density import Floats, State, Target
from lmppl.engines.contract import Outcome


def predictions(target: Target, outcome: Outcome) -> dict[str, dict[str, float]]:
    """Per predicted latent: the probability of each of its strings, largest first. Observed latents
    are left out.
    """
    states, mass = _states(outcome)
    if not states or not mass.any():
        return {}
    inferred = {latent.name: latent for latent in target.latents}
    result = {}
    for name in target.program.predictions:
        if name in inferred:
            law = _conditional(target, inferred[name], states, mass)
            result[name] = dict(sorted(law.items(), key=lambda item: -item[1]))
    return result


def _states(outcome: Outcome) -> tuple[list[State], Floats]:
    """Draws, or the support where it is known, and their normalised mass."""
    if outcome.support is not None:
        return [state for state, _ in outcome.support], np.array([p for _, p in outcome.support])
    log_weights = np.array([sample.log_weight for sample in outcome.samples])
    if (
        outcome.guided
    ):  # the guide speaks for rows without the label, whose own posterior is only the prior
        log_weights = np.where(np.isfinite(log_weights), 0.0, -np.inf)
    if not np.isfinite(log_weights).any():
        return [], np.zeros(0)
    weights = np.exp(log_weights - log_weights.max())
    return [sample.state for sample in outcome.samples], weights / weights.sum()


def _conditional(
    target: Target, latent: ir.Latent, states: Sequence[State], mass: Floats
) -> dict[str, float]:
    """Σ mass · p(value | the other latents). For texts, the share of each string among the
    draws.
    """
    name = latent.name
    bound = target.latent(name)
    if bound.alternatives is None:
        shares: dict[str, float] = {}
        for state, weight in zip(states, mass, strict=True):
            text = bound.text(state[name])
            shares[text] = shares.get(text, 0.0) + float(weight)
        return shares
    kept, values = [i for i in range(len(states)) if mass[i] > 0], bound.alternatives
    variants = [{**states[i], name: value} for i in kept for value in values]
    # the same whatever the value is: it need not be known
    others = set(target.factor_names) - target.affected_by(name)
    same = {other: np.zeros(len(variants)) for other in others}
    log_density = target.log_density(variants, same).total.reshape(len(kept), len(values))
    law = np.exp(log_density - np.logaddexp.reduce(log_density, axis=1, keepdims=True))
    return dict(zip(map(bound.text, values), (mass[kept] @ law).tolist(), strict=True))
