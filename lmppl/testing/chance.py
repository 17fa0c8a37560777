"""How far right draws may be from their law."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

LEVEL = 1e-3  # how seldom draws that are right would be as far away
SIMULATIONS = 2000
ROUNDING = 1e-9
K = TypeVar("K")


def require_near(law: Mapping[K, float], found: Mapping[K, float], size: int, what: str) -> None:
    """Raise AssertionError where shares of draws are farther from their law, in total variation,
    than so many exact draws are by chance. what: what is drawn.
    """
    assert not found.keys() - law.keys(), f"a draw is impossible: {what}"
    apart = sum(abs(found.get(key, 0.0) - value) for key, value in law.items()) / 2
    assert apart <= by_chance(list(law.values()), size) + ROUNDING, (what, apart)


def by_chance(law: list[float], size: int) -> float:
    """The total variation that so many exact draws exceed with probability LEVEL."""
    whole = np.array(law) / np.sum(law)
    counts = np.random.default_rng(0).multinomial(size, whole, size=SIMULATIONS)
    return float(np.quantile(np.abs(counts / size - whole).sum(1) / 2, 1 - LEVEL))
