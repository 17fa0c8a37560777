"""Ranks among draws, and whether many of them are uniform. It knows numbers only.

If a value and L draws come independently from one law, the value's rank among the draws is uniform
on 0 … L.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

BLOCKS, SETS = 10, 2_000  # sets of uniform ranks that p-values are counted among: their product


def rank(own: float, draws: Floats, uniform: float) -> int:
    """How many of (L,) draws lie below a value, 0 … L; a uniform on [0, 1) places it at random
    among equal ones.
    """
    below, equal = int((draws < own).sum()), int((draws == own).sum())
    return below + int(uniform * (equal + 1))


def histogram(ranks: Sequence[int], num_draws: int, bins: int) -> list[int]:
    """(bins,) how many ranks fall into stretches of 0 … num_draws that are as equal as can be."""
    bins = min(bins, num_draws + 1)
    where = np.asarray(ranks) * bins // (num_draws + 1)
    return np.bincount(where, minlength=bins).tolist()


def uniformity(ranks: Sequence[int], num_draws: int) -> float:
    """p-value of N ranks being uniform on 0 … num_draws.

    Its statistic is the least pointwise tail probability of their distribution function (Säilynoja,
    Bürkner and Vehtari 2022, as in Modrák et al. 2023), which sees shifts as well as ranks that
    crowd in the middle or at the ends. Its law under uniform ranks is simulated, always with the
    same numbers: the least p-value is 1 / 20,001.
    """
    counts = np.bincount(ranks, minlength=num_draws + 1)[None, :]
    found = float(_least_tail(counts, num_draws)[0])
    by_chance = _by_chance(len(ranks), num_draws)
    return float((1 + (by_chance <= found * (1 + 1e-9)).sum()) / (1 + len(by_chance)))


def _least_tail(counts: Integers, num_draws: int) -> Floats:
    """(S,) for S sets of ranks, given by (S, L + 1) counts."""
    below = counts.cumsum(axis=1)[:, :-1]  # (S, L): ranks at most 0 … L − 1
    return _tails(int(counts[0].sum()), num_draws)[np.arange(num_draws), below].min(axis=1)


@functools.lru_cache(maxsize=8)
def _tails(size: int, num_draws: int) -> Floats:
    """(L, N + 1) the smaller binomial tail probability of each number of ranks at most 0 … L −
    1.
    """
    share = np.arange(1, num_draws + 1)[:, None] / (num_draws + 1)
    number = np.arange(size + 1)[None, :]
    return np.minimum(binom.cdf(number, size, share), binom.sf(number - 1, size, share))


@functools.lru_cache(maxsize=8)
def _by_chance(size: int, num_draws: int) -> Floats:
    """The statistic of many sets of N uniform ranks."""
    rng = np.random.default_rng(0)
    law = np.full(num_draws + 1, 1 / (num_draws + 1))
    blocks = [_least_tail(rng.multinomial(size, law, size=SETS), num_draws) for _ in range(BLOCKS)]
    return np.concatenate(blocks)
