"""What a program's log density of some states is: the sum and its breakdown, in nats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmppl.density.scoring import Entry, Floats
from lmppl.lm import Tokens

State = Mapping[str, Tokens | int]  # a text latent's tokens, a choice's option


@dataclass(frozen=True)
class Density:
    """Log densities of N states: their sum and its breakdown by factor (latents' priors go by the
    latent's name).
    """

    total: Floats  # (N,)
    factors: Mapping[str, Floats]  # each (N,)

    def parts(self, row: int) -> dict[str, float]:
        """The breakdown of one state."""
        return {name: float(values[row]) for name, values in self.factors.items()}

    def rows(self, index: Sequence[int]) -> Density:
        """The densities of some of the states."""
        return Density(
            self.total[index], {name: values[index] for name, values in self.factors.items()}
        )


def joined(densities: Sequence[Density]) -> Density:
    """Densities of several blocks as one."""
    if len(densities) == 1:
        return densities[0]
    names = densities[0].factors
    factors = {}
    for name in names:
        factors[name] = np.concatenate([density.factors[name] for density in densities])
    return Density(np.concatenate([density.total for density in densities]), factors)


@dataclass(frozen=True)
class Begun:
    """Log densities of N states but for what models say of them."""

    entries: Sequence[Entry]
    conclude: Callable[[Sequence[Floats]], Density]  # of the entries' values
