"""`predict Y`: p(Y | givens), the average of p(Y | latents) over draws of the latents, with its
errors and its entropy; and the slopes of declared statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.density import BoundLatent, Floats, State, Target
from lmppl.diagnosis import Origin, Prediction, Sampling, Traits, averaged, counted
from lmppl.engines.contract import Outcome
from lmppl.expressions import shown

LEAST = -1e300  # nats: stands for a largest weight that is 0


Drawn = tuple[NDArray[np.int64], Sampling]  # where states are, and how they came about


def predictions(target: Target, outcome: Outcome, drawn: Drawn) -> dict[str, Prediction]:
    """Per predicted latent or derived value, its prediction. Observed latents are left out.

    drawn: of `sampling`. Draws of a trained guide are to count alike: it speaks for rows without
    the label, whose own posterior is only the prior.
    """
    places, found = drawn
    states = [_state(outcome, place) for place in places.tolist()]
    derived = {one.name for one in target.program.derived}
    result = {}
    for name in target.program.predictions if states else ():
        if arms := [latent for latent in target.latents if latent.shown == name]:
            result[name] = _predicted(target, arms, states, found)
        elif name in derived:
            texts = [shown(target.derived(state)[name]) for state in states]
            result[name] = counted(texts, found, derived=True)
    return {name: found for name, found in result.items() if found is not None}


def _state(outcome: Outcome, place: int) -> State:
    if outcome.support is not None:
        return outcome.support[place][0]
    return outcome.samples[place].state


def sampling(outcome: Outcome, traits: Traits, alike: bool = False) -> Drawn:
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
    target: Target, arms: Sequence[ir.Latent], states: Sequence[State], found: Sampling
) -> Prediction | None:
    """Of a choice, from p(option | the other latents) of each state; of a text, by counting. None
    where every option is impossible behind every state. arms: latents that share the name, of
    which a state has one at most.
    """
    bounds = [target.latent(arm.name) for arm in arms]
    if any(bound.alternatives is None for bound in bounds):
        return counted([target.texts_of(state)[arms[0].shown] for state in states], found)
    options = list(dict.fromkeys(text for bound in bounds for text in _options(bound)))
    laws, absent = np.zeros((len(states), len(options))), np.ones(len(states))
    for bound in bounds:
        rows = np.flatnonzero(target.is_there(bound.name, states)).tolist()
        columns = [options.index(text) for text in _options(bound)]
        for row, law in zip(rows, _laws(target, bound, [states[row] for row in rows]), strict=True):
            laws[row, columns] = law
        absent[rows] = 0.0
    possible = np.array([bool(np.isfinite(law).all()) for law in laws])  # a guide's need not be
    if not possible.any():
        return None
    whole: list[str | None] = [*options]
    if any(bound.guard is not None for bound in bounds):
        whole, laws = [*options, None], np.column_stack([laws, absent])
    return averaged(whole, laws[possible], found if possible.all() else found.among(possible))


def _options(bound: BoundLatent) -> list[str]:
    return [bound.text(value) for value in bound.every_value()]


def _laws(target: Target, bound: BoundLatent, states: Sequence[State]) -> Floats:
    """(N, K) p(option | the other latents) of states that have the choice; no number behind those
    where no option is possible.
    """
    if not states:
        return np.zeros((0, len(_options(bound))))
    log_density = _log_densities(target, bound.name, [*bound.every_value()], states)
    total = np.logaddexp.reduce(log_density, axis=1, keepdims=True)
    return np.exp(log_density - np.where(np.isfinite(total), total, np.nan))


def _log_densities(target: Target, name: str, values: Sequence, states: Sequence[State]) -> Floats:
    """(N, K) of every state with every value in the place of its own, but for what is the same."""
    variants = [{**state, name: value} for state in states for value in values]
    # the same whatever the value is: it need not be known
    others = set(target.factor_names) - target.affected_by(name)
    same = {other: np.zeros(len(variants)) for other in others}
    return target.log_density(variants, same).total.reshape(len(states), len(values))
