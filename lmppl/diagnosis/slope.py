"""Slopes: how the mean of a statistic moves where the whole density is raised to a power.

The derivative of the mean in the power, at 1, is Cov(statistic, log density) under the posterior:
where it is above 0, sharpening makes the statistic larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from lmppl.diagnosis.sampling import Estimate, Sampling


class Measured(Protocol):
    """A state with its log density, in nats, and its statistics; NaN is no number."""

    @property
    def log_density(self) -> float | None: ...
    @property
    def statistics(self) -> Mapping[str, float]: ...


def slopes(states: Sequence[Measured], sampling: Sampling) -> dict[str, Estimate]:
    """Of every declared statistic, in its unit a unit of the power, over the draws where it is a
    number. Left out where it is infinite, or no number, or densities are not known.
    """
    log_density = np.array([state.log_density for state in states], dtype=np.float64)
    found = {}
    for name in states[0].statistics if len(states) else ():
        values = np.array([state.statistics.get(name, np.nan) for state in states])
        if np.isinf(values).any() or not np.isfinite(log_density).all():
            continue
        if (slope := sampling.covariance(values, log_density)) is not None:
            found[name] = slope
    return found
