"""Random numbers keyed by what they are for, so that no result depends on how work was batched.

The same (seed, row, chain, step, purpose) always gives the same numbers; adding a chain or a row,
or changing the batch size, leaves the others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Randomness:
    """Source of keyed uniforms for one data row under one seed."""

    seed: int
    row: int = 0

    def uniforms(self, chain: int, step: int, purpose: int, size: int) -> NDArray[np.float64]:
        """(size,) uniforms on [0, 1). `step` counts draws or kernel steps; `purpose` tells uses
        within one apart.
        """
        sequence = np.random.SeedSequence(self.seed, spawn_key=(self.row, chain, step, purpose))
        return np.random.Generator(np.random.PCG64(sequence)).random(size)
