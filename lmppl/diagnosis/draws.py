"""Draws as columns: one draw, the shape of its chains, weights, and named statistics as arrays
(chains, draws).

It knows no engine, no model and no file. Statistics that are compared between chains and those that
are shown in a table come from here, so that both speak of the same numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl.density import Repeated

Floats = NDArray[np.float64]
Values = Mapping[str, str | None]  # texts by latent; None: the latent is not there
Derived = Mapping[str, str | None]  # derived values as texts, by name; None: absent
SAME_STATE = 0.5  # nats by which scorings of one state may differ: bfloat16 takes some tenths
ROUNDING = 1e-5  # share of the largest value, or nats, that float32 may take or add


@dataclass(frozen=True)
class Draw:
    """One draw: texts and tokens of the latents, and densities in nats."""

    values: Values
    tokens: Mapping[str, Sequence[int]]
    log_density: float
    factors: Mapping[str, float]
    log_weight: float
    log_proposal: float | None
    chain: int
    draw: int
    statistics: Mapping[str, float] = field(
        default_factory=dict
    )  # that the program declares; NaN: no number
    derived: Derived = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return document(vars(self))


def document(state: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a state, for JSON: what a program does not derive is not spoken of."""
    fields = {**state, "statistics": infinities_as_texts(state["statistics"])}
    return {name: value for name, value in fields.items() if value or name != "derived"}


def infinities_as_texts(statistics: Mapping[str, float]) -> dict[str, float | str]:
    """Statistics for JSON: infinite ones are the texts "inf" and "-inf", as null says that there is
    none.
    """
    return {name: str(value) if math.isinf(value) else value for name, value in statistics.items()}


def infinities(statistics: Mapping[str, float | str | None]) -> dict[str, float]:
    """Statistics from JSON: infinite ones are infinite again, and null is NaN."""
    return {name: math.nan if value is None else float(value) for name, value in statistics.items()}


def normalised_weights(draws: Sequence[Draw]) -> Floats:
    """Weights that add up to 1, (N,); all zero where every draw is impossible."""
    if isinstance(draws, Repeated):
        return np.full(len(draws), 1 / len(draws))
    if not draws:
        return np.zeros(0)
    log_weights = np.array([draw.log_weight for draw in draws])
    if not np.isfinite(log_weights).any():
        return np.zeros(len(log_weights))
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def chain_shape(draws: Sequence[Draw]) -> tuple[int, int]:
    """(chains, draws) where every chain has equally many draws, else one chain of all."""
    if isinstance(draws, Repeated):
        return draws.shape
    sizes = Counter(draw.chain for draw in draws)
    return (
        (len(sizes), len(draws) // len(sizes)) if len(set(sizes.values())) == 1 else (1, len(draws))
    )


def densities(draws: Sequence[Draw]) -> dict[str, Floats]:
    """Log density and each factor, (chains, draws), without what differs by rounding only.

    A state has one density, however its batches were made up: that of its first draw. Of other
    states, values that lie within rounding are one value, so that ranks do not tell them apart.
    """
    places: dict[tuple, int] = {}
    states = np.array([places.setdefault(_state(draw), len(places)) for draw in draws])
    found = {"log density": [draw.log_density for draw in draws]}
    for name in draws[0].factors:
        found[name] = [draw.factors[name] for draw in draws]
    return {
        name: levelled(_column(draws, _by_state(np.array(values), states)))
        for name, values in found.items()
    }


def _by_state(values: Floats, states: NDArray[np.int64]) -> Floats:
    """(N,) values where all of a state are its first, if they do not lie farther apart than
    scorings of it can.
    """
    _, first = np.unique(states, return_index=True)
    gaps = np.zeros(len(values))
    finite = np.isfinite(values) & np.isfinite(values[first][states])
    gaps[finite] = np.abs(values[finite] - values[first][states][finite])
    gaps[np.isfinite(values) != np.isfinite(values[first][states])] = np.inf
    widest = np.zeros(len(first))
    np.maximum.at(widest, states, gaps)
    return np.where(widest[states] <= SAME_STATE, values[first][states], values)


def _state(draw: Draw) -> tuple:
    """What tells two states apart."""
    return (*draw.values.values(), *map(tuple, draw.tokens.values()))


def levelled(values: Floats) -> Floats:
    """Values in nats where those that differ by rounding only are equal: each the lowest within
    ROUNDING of it.
    """
    known, inverse = np.unique(values, return_inverse=True)
    sizes = np.abs(known[np.isfinite(known)])
    width = ROUNDING * max(1.0, sizes.max(initial=0.0))
    start = 0
    while start < len(known):
        end = max(start + 1, int(np.searchsorted(known, known[start] + width, side="right")))
        known[start:end] = known[start]
        start = end
    return known[inverse].reshape(values.shape)


def columns(draws: Sequence[Draw]) -> dict[str, Floats]:
    """Log density, each factor, each latent's number of tokens, declared statistics. Missing values
    are NaN.
    """
    found: dict[str, Floats] = densities(draws)
    for name in draws[0].tokens:
        found[f"tokens({name})"] = _column(draws, [float(len(draw.tokens[name])) for draw in draws])
    for name in draws[0].statistics:
        found[name] = _column(draws, [draw.statistics.get(name, np.nan) for draw in draws])
    return found


def indicators(
    draws: Sequence[Draw], choices: Collection[str], most: int, least: float
) -> dict[str, Floats]:
    """1 where a text begins with one of its `most` commonest first tokens, or a choice is an
    option; else 0.

    Beginnings and options of a smaller share than `least` are left out: too few draws tell about
    them.
    """
    found: dict[str, Floats] = {}
    for name in draws[0].tokens:
        keys = [
            draw.values[name]
            if name in choices or draw.values[name] is None
            else tuple(draw.tokens[name][:1])
            for draw in draws
        ]
        counts = Counter(keys).most_common(None if name in choices else most)
        for key in [key for key, count in counts if count >= least * len(draws)]:
            example = draws[keys.index(key)].values[name]
            found[_label(name, key, example)] = _column(
                draws, [float(other == key) for other in keys]
            )
    return found


def _label(name: str, key: str | tuple[int, ...] | None, example: str | None) -> str:
    if example is None:
        return f"{name} is absent"
    if isinstance(key, str):
        return f"{name} = {key!r}"
    return f"first token {key[0]} of {name}, as in {example[:20]!r}" if key else f"{name} is empty"


def _column(draws: Sequence[Draw], values: Sequence[float | None] | Floats) -> Floats:
    return np.array(values, dtype=np.float64).reshape(chain_shape(draws))
