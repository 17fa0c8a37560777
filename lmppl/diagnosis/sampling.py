"""What a mean over the draws of a row is worth: its standard error, by how the draws came about."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmppl.diagnosis.summary import Floats, effective_size

# a law that is known; draws that are independent of each other; steps of chains; particles, which
# are independent between replicates only
Origin = Literal["law", "draws", "chains", "replicates"]
FOLLOWED = 10  # draws of a chain: in shorter ones no effective size shows how it repeats itself
ONE_UNIT = 1e-9  # what other units weigh together where one has all mass


class Estimate(NamedTuple):
    """A number with its standard error: 0 of what is known exactly, None where draws are too few to
    tell.
    """

    value: float
    error: float | None

    def document(self) -> dict[str, float | None]:
        """JSON form."""
        return {"value": self.value, "standard_error": self.error}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Estimate:
        """The estimate of a document."""
        return cls(document["value"], document["standard_error"])


@dataclass(frozen=True)
class Sampling:
    """How the draws of a row came about. mass: (N,) above 0, adding up to 1. chain: (N,), chain by
    chain.
    """

    mass: Floats
    chain: NDArray[np.int64]
    origin: Origin

    def among(self, kept: NDArray[np.bool_]) -> Sampling:
        """Of the draws that are kept, (N,)."""
        return Sampling(self.mass[kept] / self.mass[kept].sum(), self.chain[kept], self.origin)

    def mean(self, values: Floats) -> float:
        """Mean of (N,) values under the draws' mass."""
        return float(self.mass @ values)

    def variance(self, values: Floats) -> float | None:
        """Variance of the mean of (N,) values, over runs; None where draws are too few to tell."""
        if self.origin == "law":
            return 0.0
        if np.ptp(values) == 0:
            return 0.0 if len(values) > 1 else None
        if self.origin == "chains" and self.shape[1] >= FOLLOWED:
            size = effective_size(values.reshape(self.shape))
            return float(values.var()) / (size - 1) if size is not None and size > 1 else None
        if self.origin == "chains":  # too short to follow, but independent of each other
            return _between(*self._replicates(values))
        alone = _between(self.mass, values - self.mean(values))
        if self.origin == "draws" or alone is None:
            return alone
        # weights tell the least that it is: few replicates may agree by chance
        apart = _between(*self._replicates(values))
        return None if apart is None else max(alone, apart)

    def error(self, values: Floats) -> float | None:
        """Standard error of the mean of (N,) values."""
        variance = self.variance(values)
        return None if variance is None else math.sqrt(variance)

    def drift(self, values: Floats) -> float:
        """By how much the mean of (N,) values is too large on average, as weights add up to 1 only
        after they are divided by their sum: −Σ w² (x − mean), to the first order.
        """
        if self.origin in ("law", "chains"):
            return 0.0
        mass, apart = self.mass, values - self.mean(values)
        if self.origin == "replicates":
            mass, apart = self._replicates(values)
        return -float(mass**2 @ apart)

    def covariance(self, values: Floats, others: Floats) -> Estimate | None:
        """Covariance of two numbers of the draws, (N,) each, over the draws where both are finite;
        None where there are too few of those.
        """
        kept = np.isfinite(values) & np.isfinite(others)
        share = self.mean(kept.astype(float))
        if share == 0:
            return None
        one, other = _apart(values, kept, self), _apart(others, kept, self)
        plain = self.mean(one * other) / share
        rest = np.where(kept, one * other - plain, 0.0)
        error = self.error(rest)
        found = plain - self.drift(rest) / share + self._together(one, other) / share**2
        return Estimate(found, None if error is None else error / share)

    def _together(self, one: Floats, other: Floats) -> float:
        """Covariance of the means of two columns that are 0 on average, (N,) each, over runs: what
        a covariance about these means is too small by.
        """
        if self.origin == "law":
            return 0.0
        if self.origin == "chains":
            size = effective_size((one * other).reshape(self.shape)) or self.weights_size
            return self.mean(one * other) / max(size, 1.0)
        if self.origin == "replicates":
            mass, one = self._replicates(one)
            return _between(mass, one, self._replicates(other)[1]) or 0.0
        return _between(self.mass, one, other) or 0.0

    @property
    def weights_size(self) -> float:
        """How many draws of equal weight the weights are worth."""
        return 1 / float(self.mass @ self.mass)

    @property
    def shape(self) -> tuple[int, int]:
        """(chains, draws) where every chain has equally many, else one chain of all."""
        _, counts = np.unique(self.chain, return_counts=True)
        alike = bool((counts == counts[0]).all())
        return (len(counts), int(counts[0])) if alike else (1, len(self.chain))

    def _replicates(self, values: Floats) -> tuple[Floats, Floats]:
        """Mass of each replicate, and how far its mean lies from that of all."""
        _, place = np.unique(self.chain, return_inverse=True)
        mass = np.bincount(place, self.mass).astype(np.float64)
        return mass, np.bincount(place, self.mass * values) / mass - self.mean(values)


def _between(mass: Floats, apart: Floats, other: Floats | None = None) -> float | None:
    """Variance of a weighted mean of independent units, by how far they lie from it, or its
    covariance with another mean. None of one unit.

    Σ w² (x − mean)², divided by 1 − Σ w² as the mean is the units' own: n / (n − 1) of equal ones.
    """
    left = 1 - float(mass @ mass)
    products = apart * (apart if other is None else other)
    return float(mass**2 @ products) / left if left > ONE_UNIT else None


def _apart(values: Floats, kept: NDArray[np.bool_], sampling: Sampling) -> Floats:
    """How far (N,) values lie from their mean over the draws that are kept; 0 elsewhere."""
    known, share = np.where(kept, values, 0.0), sampling.mean(kept.astype(float))
    return np.where(kept, known - sampling.mean(known) / share, 0.0)
