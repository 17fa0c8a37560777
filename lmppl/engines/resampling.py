"""Systematic resampling, and evidence pooled over independent replicates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a target brings torch
    from lmppl.density import Floats

LEVEL = 0.95  # of intervals

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread more evenly than random numbers


def resample(log_weights: Floats, count: int, uniform: float) -> NDArray[np.int64]:
    """(count,) indices drawn systematically (Carpenter et al. 1999): index i about count · wᵢ
    times.
    """
    weights = np.exp(log_weights - log_weights.max())
    cumulative = weights.cumsum() / weights.sum()
    positions = (np.arange(count) + uniform) / count
    index = np.searchsorted(cumulative, positions, side="right")
    return np.minimum(index, np.flatnonzero(weights)[-1])  # rounding must not pick a weight of 0


def resample_apart(log_weights: Floats, uniforms: Floats) -> NDArray[np.int64]:
    """(N - 1,) indices drawn systematically by the first of N uniforms; the others part kin, which
    lie together.
    """
    kept = resample(log_weights, len(uniforms) - 1, uniforms[0])
    return kept[np.argsort(uniforms[1:])]


def student_reach(values: Floats) -> tuple[float, float]:
    """Standard error of the mean of two or more values, and half of Student's interval for it at
    LEVEL. values: (N,)
    """
    from scipy.stats import t

    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return error, float(t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * error


def replicate_evidence(
    logs: Sequence[float],
) -> tuple[float, float | None, list[float | None] | None]:
    """log of the mean Ẑ over R replicates, its standard error, and Student's interval for the mean
    Ẑ, in logs.

    The error is None for one replicate; the interval's lower end is None where it reaches down to Ẑ
    = 0.
    """
    values = np.array(logs)
    pooled = float(np.logaddexp.reduce(values) - np.log(len(values)))
    if len(values) < 2 or not np.isfinite(pooled):
        return pooled, None, None
    relative = np.exp(values - pooled)
    error, reach = student_reach(relative)
    low = float(pooled + np.log1p(-reach)) if reach < 1 else None
    return pooled, error, [low, float(pooled + np.log1p(reach))]
