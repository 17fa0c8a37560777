"""Random numbers keyed by what they are for, so that no result depends on how work was batched.

The same (seed, row, chain, step, purpose) always gives the same numbers; adding a chain or a row,
or changing the batch size, leaves the others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray


@unique
class Purpose(IntEnum):
    """What random numbers are for, apart from the tokens of latents and the options of choices.

    Those have the numbers from 0 on, one a latent. Where a purpose has several parts (pairs of
    rungs, observed texts), their numbers follow it; purposes lie a million apart for that.
    """

    MOVES = 1_000_000  # which move a chain tries, where, and whether it is accepted
    RESAMPLING = 2_000_000  # which particles a step keeps
    FINAL = 3_000_000  # which of the last particles are draws, or of a search's finds first ones
    SHUFFLE = 4_000_000  # the order of draws that are no chain
    EXCHANGES = 5_000_000  # whether two neighbouring rungs exchange states; one a pair of rungs
    TRAINING = 6_000_000  # which states of its buffer, or seeds, a step of training takes
    STOPS = 6_000_001  # the prefixes of a draw that `subtb` looks at
    SEEDING = 7_000_000  # which of another engine's draws training learns from
    MIXTURE = 8_000_000  # which of two proposals draws
    EXPORT = 9_000_000  # which weighted draws stand in files of draws of equal weight
    ACCEPTANCE = 10_000_000  # whether a draw of the prior is kept
    ENGINE_SEED = 11_000_000  # the seed of another library
    OBSERVATIONS = 12_000_000  # tokens of simulated observations; one an observation
    RANKS = 13_000_000  # which draws a state is ranked among, and its place among equal ones
    ROW_ORDER = 14_000_000  # the order in which `em` goes over data rows
    ROW_DRAWS = 15_000_000  # which draws of a row a step of `em` takes
    BRANCHES = 16_000_000  # latents that a new option of a choice brings; one a latent
    REPLIES = 17_000_000  # which answers of a law a service replies with


@dataclass(frozen=True)
class Randomness:
    """Source of keyed uniforms for one data row under one seed."""

    seed: int
    row: int = 0

    def uniforms(self, chain: int, step: int, purpose: int, size: int) -> NDArray[np.float64]:
        """(size,) uniforms on [0, 1).

        chain, step: of a chain, its draws or kernel steps; purpose: the number of a latent, or a
        Purpose, which tells uses within one step apart.
        """
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.row, chain, step, purpose))
        return np.random.Generator(np.random.PCG64(sequence)).random(size)
