"""Draws as columns: one draw, the shape of its chains, weights, and named statistics as arrays (chains, draws).

It knows no engine, no model and no file. Statistics that are compared between chains and those that are shown
in a table come from here, so that both speak of the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Values = Mapping[str, str]


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
    statistics: Mapping[str, float] = field(default_factory=dict)  # that the program declares


def normalised_weights(draws: Sequence[Draw]) -> Floats:
    """Weights that add up to 1, (N,); all zero where every draw is impossible."""
    log_weights = np.array([draw.log_weight for draw in draws])
    if not np.isfinite(log_weights).any():
        return np.zeros(len(log_weights))
    weights = np.exp(log_weights - log_weights.max())
    return weights / weights.sum()


def chain_shape(draws: Sequence[Draw]) -> tuple[int, int]:
    """(chains, draws) where every chain has equally many draws, else one chain of all."""
    sizes = Counter(draw.chain for draw in draws)
    return (len(sizes), len(draws) // len(sizes)) if len(set(sizes.values())) == 1 else (1, len(draws))


def columns(draws: Sequence[Draw]) -> dict[str, Floats]:
    """Log density, each factor, each latent's number of tokens, declared statistics. Missing values are NaN."""
    found = {"log density": [draw.log_density for draw in draws]}
    for name in draws[0].factors:
        found[name] = [draw.factors[name] for draw in draws]
    for name in draws[0].tokens:
        found[f"tokens({name})"] = [float(len(draw.tokens[name])) for draw in draws]
    for name in draws[0].statistics:
        found[name] = [draw.statistics.get(name, np.nan) for draw in draws]
    return {name: _column(draws, values) for name, values in found.items()}


def indicators(draws: Sequence[Draw], choices: Collection[str], most: int, least: float) -> dict[str, Floats]:
    """1 where a text begins with one of its `most` commonest first tokens, or a choice is an option; else 0.

    Beginnings and options of a smaller share than `least` are left out: too few draws tell about them.
    """
    found: dict[str, Floats] = {}
    for name in draws[0].tokens:
        keys = [draw.values[name] if name in choices else tuple(draw.tokens[name][:1]) for draw in draws]
        counts = Counter(keys).most_common(None if name in choices else most)
        for key in [key for key, count in counts if count >= least * len(draws)]:
            example = draws[keys.index(key)].values[name]
            found[_label(name, key, example)] = _column(draws, [float(other == key) for other in keys])
    return found


def _label(name: str, key: str | tuple[int, ...], example: str) -> str:
    if isinstance(key, str):
        return f"{name} = {key!r}"
    return f"first token {key[0]} of {name}, as in {example[:20]!r}" if key else f"{name} is empty"


def _column(draws: Sequence[Draw], values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64).reshape(chain_shape(draws))
