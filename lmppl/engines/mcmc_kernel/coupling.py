"""How far chains still are from their law after t steps: L-lag couplings (Biswas, Jacob & Vanetti
2019).

Two copies of a chain run from independent starts, one L steps ahead, on the same random numbers:
they propose the same cuts, tokens and restarts, and from their meeting on they are one. With τ the
first t at which X_t = Y_{t−L}, the total variation between the law after t steps and the stationary
law is at most E max(0, ⌈(τ − L − t) / L⌉).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from lmppl.engines.mcmc_kernel.chain_state import ChainState

Advance = Callable[
    [list[ChainState], Sequence[int], int], list[ChainState]
]  # states of chains, the chains' numbers, step


@dataclass(frozen=True)
class Meetings:
    """Meeting times of P pairs; None where a pair had not met when the run was given up."""

    lag: int
    times: tuple[int | None, ...]

    def bound(self, after: int) -> float | None:
        """Estimated upper bound on the total variation after so many steps; None where some pair
        never met.
        """
        if any(time is None for time in self.times):
            return None
        excess = [
            max(0, ceil((time - self.lag - after) / self.lag))
            for time in self.times
            if time is not None
        ]
        return float(np.mean(excess))


def couple(
    advance: Advance,
    ahead: list[ChainState],
    behind: list[ChainState],
    numbers: Sequence[int],
    lag: int,
    most: int,
) -> Meetings:
    """Run P pairs until they have met, at most `most` steps. ahead, behind: their independent
    starts.
    """
    for at in range(lag):
        ahead = advance(ahead, numbers, at)
    times: list[int | None] = [
        lag if x.state == y.state else None for x, y in zip(ahead, behind, strict=True)
    ]
    for at in range(lag, most):
        apart = [i for i, time in enumerate(times) if time is None]
        if not apart:
            break
        own = [numbers[i] for i in apart]
        both = advance([ahead[i] for i in apart] + [behind[i] for i in apart], own + own, at)
        for i, x, y in zip(apart, both, both[len(apart) :], strict=False):
            ahead[i], behind[i] = x, y
            times[i] = at + 1 if x.state == y.state else None
    return Meetings(lag, tuple(times))
