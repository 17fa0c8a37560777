"""How far weighted draws are from a known law, over strings or over a number. All functions are of
plain values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Law = Mapping[Any, float]  # probabilities that add up to 1, or to 0 where nothing is known


def total_variation(found: Law, truth: Law) -> float:
    """½ Σ |found − truth|: 0 where the laws agree, 1 where they share nothing."""
    keys = {**found, **truth}  # in an order, so that every process adds up alike
    return 0.5 * sum(abs(found.get(key, 0.0) - truth.get(key, 0.0)) for key in keys)


def kullback_leibler(found: Law, truth: Law) -> float:
    """KL(found ‖ truth) in nats; infinite where something was found that cannot be."""
    total = 0.0
    for key, share in found.items():
        if share > 0:
            if truth.get(key, 0.0) <= 0:
                return math.inf
            total += share * math.log(share / truth[key])
    return max(total, 0.0)


def kolmogorov_smirnov(
    values: Floats, weights: Floats, others: Floats, other_weights: Floats, alike: float = 0.0
) -> float:
    """Largest difference of two weighted cumulative distributions. values, weights: (N,); others:
    (M,).

    alike: values in a chain of gaps no larger count as one, so that rounding does not part atoms of
    the two.
    """
    points, inverse = np.unique(np.concatenate([values, others]), return_inverse=True)
    atoms = np.concatenate([[0], np.cumsum(np.diff(points) > alike)])[inverse]
    mass = np.bincount(atoms[: len(values)], weights, minlength=atoms.max() + 1) / weights.sum()
    other_mass = (
        np.bincount(atoms[len(values) :], other_weights, minlength=atoms.max() + 1)
        / other_weights.sum()
    )
    return float(np.abs(np.cumsum(mass - other_mass)).max())
