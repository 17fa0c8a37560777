"""`predict Y`: p(Y | givens), the average of p(Y | latents) over draws of the latents, with its
errors and its entropy; and the slopes of declared statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.density import Floats, State, Target
from lmppl.diagnosis import Origin, Prediction, Sampling, Traits, averaged, counted
from lmppl.engines.contract import Outcome
from lmppl.expressions import shown

LEAST = -1e300  # nats: stands for a largest weight that is 0


def predictions(target: Target, outcome: Outcome, traits: Traits) -> dict[str, Prediction]:
    """Per predicted latent or derived value, its prediction. Observed latents are left out. traits:
    of the engine.

    Draws of a trained guide count alike: it speaks for rows without the label, whose own posterior
    is only the prior.
    """
    places, found = sampling(outcome, traits, alike=outcome.guided)
    inferred = {latent.name: latent for latent in target.latents}
    derived = {one.name for one in target.program.derived}
    states = [_state(outcome, place) for place in places]
    result = {}
    for name in target.program.predictions if states else ():
        if name in inferred:
            result[name] = _predicted(target, inferred[name], states, found)
        elif any(latent.arm_of == name for latent in target.latents):
            result[name] = counted([target.texts_of(state)[name] for state in states], found)
        elif name in derived:
            texts = [shown(target.derived(state)[name]) for state in states]
            result[name] = counted(texts, found, derived=True)
    return {name: found for name, found in result.items() if found is not None}


def _state(outcome: Outcome, place: int) -> State:
    if outcome.support is not None:
        return outcome.support[place][0]
    return outcome.samples[place].state


def sampling(
    outcome: Outcome, traits: Traits, alike: bool = False
) -> tuple[NDArray[np.int64], Sampling]:
    """Where the possible states are, in the support if there is one, else among the samples, chain
    by chain; and how they came about. alike: weights do not count. traits: of the engine.
    """
    if outcome.support is not None:
        mass = np.array([mass for _, mass in outcome.support])
        places = np.flatnonzero(mass)
        alone = np.zeros(len(places), dtype=np.int64)
        return places, Sampling(mass[places] / mass.sum(), alone, "law")
    log_weights = np.array([sample.log_weight for sample in outcome.samples])
    if alike:
        log_weights = np.where(np.isfinite(log_weights), 0.0, -np.inf)
    weights = np.exp(log_weights - max(log_weights.max(initial=-np.inf), LEAST))
    chain = np.array([sample.chain for sample in outcome.samples], dtype=np.int64)
    places = np.argsort(chain, kind="stable")
    places = places[weights[places] > 0]
    mass = weights[places] / weights.sum() if len(places) else weights
    return places, Sampling(mass, chain[places], "draws" if alike else _origin(outcome, traits))


def _origin(outcome: Outcome, traits: Traits) -> Origin:
    """How an engine's draws came about: what it reports of them tells."""
    if outcome.diagnostics.log_evidence_by_replicate is not None:
        return "replicates"
    weighted = outcome.diagnostics.ess is not None
    return "draws" if traits.independent or weighted else "chains"


def _predicted(
    target: Target, latent: ir.Latent, states: Sequence[State], found: Sampling
) -> Prediction | None:
    """Of a choice, from p(option | the other latents) of each state; of a text, by counting. None
    where every option is impossible behind every state.
    """
    bound = target.latent(latent.name)
    if bound.alternatives is None:
        return counted([target.texts_of(state)[latent.shown] for state in states], found)
    log_density = _log_densities(target, latent.name, bound.alternatives, states)
    total = np.logaddexp.reduce(log_density, axis=1, keepdims=True)
    possible = np.isfinite(total[:, 0])  # what a guide draws need not be
    if not possible.any():
        return None
    laws = np.exp(log_density[possible] - total[possible])
    options = [None if bound.is_absent(v) else bound.text(v) for v in bound.alternatives]
    return averaged(options, laws, found if possible.all() else found.among(possible))


def _log_densities(target: Target, name: str, values: Sequence, states: Sequence[State]) -> Floats:
    """(N, K) of every state with every value in the place of its own, but for what is the same."""
    variants = [{**state, name: value} for state in states for value in values]
    # the same whatever the value is: it need not be known
    others = set(target.factor_names) - target.affected_by(name)
    same = {other: np.zeros(len(variants)) for other in others}
    return target.log_density(variants, same).total.reshape(len(states), len(values))
