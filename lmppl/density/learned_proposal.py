"""What engines see of a sampler that was trained elsewhere: draws of whole states, and the exact
density of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lmppl.decoding import Randomness
from lmppl.density.scoring import Floats
from lmppl.density.values import State


class LearnedProposal(Protocol):
    """A law over the states of one target. Log probabilities in nats, -inf for states it never
    draws.
    """

    def draw(
        self, keys: Sequence[tuple[int, int]], randomness: Randomness
    ) -> tuple[list[State], Floats]:
        """One state a key, a key being (chain, draw), and their log probabilities. (N,)"""
        ...

    def log_prob(self, states: Sequence[State]) -> Floats:
        """(N,) log probabilities of states that something else has drawn."""
        ...
