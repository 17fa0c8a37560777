"""Summaries of draws: mean, error, quantiles, effective sample sizes and R-hat.

Equal-weight chains use rank-normalised split R-hat and bulk / tail ESS (Vehtari et al. 2021) on top
of Pyro's estimators; weighted draws use the effective sample size of their weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Summary = Mapping[str, float | None]


QUANTILES = (5, 50, 95)  # in per cent
ENTRIES = ("mean", "mcse", "sd", "q5", "q50", "q95", "ess_bulk", "ess_tail", "r_hat")


def summarise(values: Floats, weights: Floats) -> Summary:
    """Summary of one statistic. values, weights: (chains, draws); weights are not normalised, 0
    drops a draw.

    Values where the weight is 0 may be anything. Draws where the value is no number (NaN) are left
    out; entries are NaN where all are, and where infinite values leave no number. ±∞ is a value as
    others are. Entries that do not apply are None.
    """
    flat, mass = values.ravel(), weights.ravel() / weights.sum()
    kept = mass > 0
    numbers = kept & ~np.isnan(flat)
    if not numbers.any():
        none = dict.fromkeys(("ess_bulk", "ess_tail", "r_hat"))
        return {**dict.fromkeys(ENTRIES, math.nan), **none}
    share = 1.0 if (numbers == kept).all() else float(mass[numbers].sum())
    mean, sd = _moments(flat[numbers], mass[numbers] / share)
    equal = bool(kept.all()) and bool(np.ptp(weights) == 0)
    sizes = _sizes(values, mean) if equal else _kept_sizes(flat[kept], mass[kept], mean)
    size = sizes["ess_mean"]
    return {
        "mean": mean,
        # of a ratio of means, E[x; x is a number] / P(x is a number)
        "mcse": sd * math.sqrt(share) / math.sqrt(size) / share if size else None,
        "sd": sd,
        **_quantiles(flat[numbers], mass[numbers] / share),
        "ess_bulk": sizes["ess_bulk"],
        "ess_tail": sizes["ess_tail"],
        "r_hat": rank_r_hat(ordered(values)) if equal else None,
    }


def _moments(values: Floats, mass: Floats) -> tuple[float, float]:
    """Mean and standard deviation; of infinite values the mean is ±∞, or NaN of both, and there is
    no deviation.
    """
    if np.isfinite(values).all():
        mean = float(mass @ values)
        return mean, math.sqrt(max(float(mass @ (values - mean) ** 2), 0.0))
    low, high = bool(np.isneginf(values).any()), bool(np.isposinf(values).any())
    return (math.nan if low and high else math.inf if high else -math.inf), math.nan


def _sizes(values: Floats, mean: float) -> dict[str, float | None]:
    """Effective sizes of chains, some of whose values may be no numbers."""
    sizes = chain_sizes(ordered(values))
    if not math.isfinite(mean):
        return sizes
    # what is no number adds nothing to the deviations
    filled = np.where(np.isnan(values), mean, values)
    return {**sizes, "ess_mean": effective_size(filled)}


def _kept_sizes(values: Floats, mass: Floats, mean: float) -> dict[str, float | None]:
    """Effective sizes of weighted draws, some of which may be no numbers. (kept draws,) each."""
    if not math.isfinite(mean):
        return _weighted_sizes(np.zeros(len(values)), mass, 0.0)
    return _weighted_sizes(np.where(np.isnan(values), mean, values), mass, mean)


def ordered(values: Floats) -> Floats:
    """Values as they are ranked: −∞ below all numbers, ∞ above them, and what is no number below
    everything.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    width = max(1.0, high - low)
    beyond = [low - 2 * width, low - width, high + width]
    return np.select([np.isnan(values), values == -np.inf, values == np.inf], beyond, values)


def summarise_law(values: Floats, mass: Floats) -> Summary:
    """Summary of one statistic under a law that is known: its very numbers, without an error.
    (states,) each.
    """
    numbers = (mass > 0) & ~np.isnan(values)
    none = dict.fromkeys(("ess_bulk", "ess_tail", "r_hat"))
    if not numbers.any():
        return {**dict.fromkeys(ENTRIES, math.nan), **none}
    values, mass = values[numbers], mass[numbers] / mass[numbers].sum()
    mean, sd = _moments(values, mass)
    return {"mean": mean, "mcse": 0.0, "sd": sd, **_quantiles(values, mass), **none}


def _quantiles(values: Floats, mass: Floats) -> dict[str, float]:
    order = np.argsort(values, kind="stable")
    places = np.searchsorted(mass[order].cumsum(), [q / 100 for q in QUANTILES])
    found = values[order][np.minimum(places, len(values) - 1)].tolist()
    return {f"q{q}": value for q, value in zip(QUANTILES, found, strict=True)}


def _weighted_sizes(values: Floats, mass: Floats, mean: float) -> dict[str, float | None]:
    """Sizes from weights. For the mean, the weights that matter are those of deviations (Owen 2013,
    ch. 9).
    """
    kish = 1 / float((mass**2).sum())
    spread = float((mass**2 * (values - mean) ** 2).sum())
    variance = float((mass * (values - mean) ** 2).sum())
    return {
        "ess_mean": variance / spread if spread > 0 else kish,
        "ess_bulk": kish,
        "ess_tail": None,
    }


def chain_sizes(values: Floats) -> dict[str, float | None]:
    """Effective sizes for the mean, the bulk and the tails of (chains, draws); None where nothing
    varies.
    """
    low, high = np.quantile(values, [0.05, 0.95])
    tails = [
        effective_size((values <= low).astype(float)),
        effective_size((values >= high).astype(float)),
    ]
    return {
        "ess_mean": effective_size(values),
        "ess_bulk": effective_size(rank_normalise(values)),
        "ess_tail": min((size for size in tails if size is not None), default=None),
    }


def rank_normalise(values: Floats) -> Floats:
    """Normal scores of the pooled ranks, ties averaged. (chains, draws)"""
    import torch

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    average = (last - (counts - 1) / 2)[inverse].reshape(values.shape)
    return torch.special.ndtri(torch.as_tensor((average - 0.375) / (values.size + 0.25))).numpy()


def rank_r_hat(values: Floats) -> float | None:
    """Rank-normalised split R-hat: the larger of that of the values and of their distances from the
    median.

    None for fewer than 4 draws a chain; 1 where nothing varies, infinite where chains are constant
    and differ.
    """
    if values.shape[1] < 4:
        return None
    folded = np.abs(values - np.median(values))
    return max(_split_r_hat(rank_normalise(values)), _split_r_hat(rank_normalise(folded)))


def _split_r_hat(values: Floats) -> float:
    half = values.shape[1] // 2
    split = np.concatenate([values[:, :half], values[:, -half:]])
    within = split.var(axis=1, ddof=1).mean()
    between = half * split.mean(axis=1).var(ddof=1)
    if within < 1e-12:
        return 1.0 if between < 1e-12 else math.inf
    return float(np.sqrt((within * (half - 1) / half + between / half) / within))


def r_hat_by_chance(shape: tuple[int, int], tests: int, level: float = 0.01) -> float:
    """The R-hat that the largest of `tests` statistics of independent chains exceeds with this
    probability.

    (R-hat)² is (n − 1 + F) / n for split chains of n draws, F being Fisher's; Paulson's
    approximation of its quantile.
    """
    count, half = 2 * shape[0], shape[1] // 2
    a, b = 2 / (9 * (count - 1)), 2 / (9 * count * (half - 1))
    z = NormalDist().inv_cdf(1 - level / tests)
    square, linear, constant = (1 - b) ** 2 - z * z * b, (1 - a) * (1 - b), (1 - a) ** 2 - z * z * a
    if square <= 0:  # too few draws: any finite value can come by chance
        return math.inf
    ratio = ((linear + math.sqrt(linear**2 - square * constant)) / square) ** 3
    return math.sqrt((half - 1 + ratio) / half)


def effective_size(values: Floats) -> float | None:
    """Effective sample size of (chains, draws), at most N log10 N; None where nothing varies or
    draws are few.
    """
    import torch
    from pyro.ops.stats import effective_sample_size

    if values.shape[1] < 4 or np.ptp(values) == 0:
        return None
    half = values.shape[1] // 2
    split = torch.as_tensor(
        np.concatenate([values[:, :half], values[:, -half:]]), dtype=torch.float64
    )
    if bool((split.var(dim=1) == 0).all()):
        return float(len(values))  # every chain is stuck at a point of its own
    size = float(effective_sample_size(split, chain_dim=0, sample_dim=1))
    if not math.isfinite(size) or size <= 0:
        return None
    return min(size, values.size * math.log10(values.size))
