"""What the M-step is given: a data row, and the E-step's draws of its latents with their
weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl.density import Floats, State, Target
from lmppl.posterior import RowPosterior


@dataclass(frozen=True)
class Case:
    """One data row, and what the E-step says of its latents. weights: (N,), they sum to 1."""

    target: Target
    states: Sequence[State]
    weights: Floats


def case_of(target: Target, posterior: RowPosterior) -> Case | None:
    """A row's possible states and their weights, exact where the posterior is; None where there are
    none.
    """
    if posterior.support is not None:
        pairs = [
            (target.state_of(known.values, known.tokens), known.probability)
            for known in posterior.support
        ]
    else:
        pairs = [
            (target.state_of(d.values, d.tokens), float(w))
            for d, w in zip(posterior.draws, posterior.weights, strict=True)
        ]
    merged: dict[tuple, float] = {}
    states: dict[tuple, State] = {}
    for state, weight in pairs:
        if weight > 0:
            key = tuple(sorted(state.items()))
            merged[key], states[key] = merged.get(key, 0.0) + weight, state
    if not merged:
        return None
    weights = np.array(list(merged.values()))
    return Case(target, list(states.values()), weights / weights.sum())
