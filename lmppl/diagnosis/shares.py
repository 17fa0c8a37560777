"""Variances of the shares of texts among draws, of all at once: in time linear in the draws."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lmppl.diagnosis.sampling import FOLLOWED, ONE_UNIT, Sampling
from lmppl.diagnosis.summary import Floats

MOST_FOLLOWED = 32  # texts whose every chain is followed; of rarer ones, batches of draws tell


def share_variances(sampling: Sampling, which: NDArray[np.int64]) -> list[float | None]:
    """Variance of each text's share, over runs; None where draws are too few to tell. which: (N,)
    number of each draw's text, from 0.

    They are those that `Sampling.variance` gives of the indicator of each text. Only of the rarest
    texts of chains, variances are those of means of batches (Flegal & Jones 2010), as long as the
    root of a chain's length.
    """
    if which.max(initial=0) == 0:
        return [sampling.variance((which == 0).astype(float))]
    if sampling.origin == "law":
        return [0.0] * (int(which.max()) + 1)
    if sampling.origin == "chains":
        return _of_chains(sampling, which)
    alone = _between(sampling.mass, np.arange(len(which)), which)
    if sampling.origin == "draws" or alone is None:
        return _listed(alone, which)
    apart = _between(sampling.mass, sampling.chain, which)
    return _listed(None if apart is None else np.maximum(alone, apart), which)


def _of_chains(sampling: Sampling, which: NDArray[np.int64]) -> list[float | None]:
    _, length = sampling.shape
    if length < FOLLOWED:
        return _listed(_between(sampling.mass, sampling.chain, which), which)
    batch = np.arange(len(which)) // math.isqrt(length) + len(which) * sampling.chain
    variances = _listed(_between(sampling.mass, batch, which), which)
    likeliest = np.argsort(-np.bincount(which, sampling.mass), kind="stable")
    for place in likeliest[:MOST_FOLLOWED].tolist():
        variances[place] = sampling.variance((which == place).astype(float))
    return variances


def _between(
    mass: Floats, unit: NDArray[np.int64], which: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """(K,) variance of each share by how far the units of draws lie from it; None of one unit.

    Σ w² (x − p)² over units of mass w, x their own share; x is 0 in most, which add up to p² Σ w².
    """
    _, unit = np.unique(unit, return_inverse=True)
    count = int(which.max()) + 1
    pairs, place = np.unique(unit * count + which, return_inverse=True)
    own = np.bincount(place, mass)  # mass of each text in each unit that has it
    units, texts = np.divmod(pairs, count)
    weights, share = np.bincount(unit, mass), np.bincount(which, mass)
    squares = float(weights @ weights)
    if 1 - squares <= ONE_UNIT:
        return None
    apart = own - weights[units] * share[texts]
    known = np.bincount(texts, apart**2 - (weights[units] * share[texts]) ** 2, count)
    return np.maximum(known + share**2 * squares, 0.0) / (1 - squares)


def _listed(variances: Floats | None, which: NDArray[np.int64]) -> list[float | None]:
    """One a text, whether it is known or not."""
    return [None] * (int(which.max()) + 1) if variances is None else variances.tolist()
