"""What chains propose, drawn before any model is asked, and which of their moves each of them has
come to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.density import Floats
from lmppl.engines.mcmc_kernel.chain_state import ChainState
from lmppl.lm import Tokens

Key = tuple[int, int]  # (chain, step)


@dataclass(frozen=True)
class Move:
    """What one chain proposes, drawn before any model is asked and without a look at its state."""

    kind: str  # suffix, span, restart, find or choice
    log_uniform: float  # log of the acceptance uniform
    latent: ir.Latent | None = None
    component: int = 0  # which temperature draws the tokens
    cut: int = 0  # scored positions that are kept
    length: int = 0  # of a span
    place: float = 0.0  # which of the finds, on [0, 1)
    # a suffix that is the whole text, proposed from q₀ rather than at one temperature
    whole: bool = False

    def changes(self, chain_state: ChainState) -> bool:
        """Whether it proposes anything to this chain: its cut lies in the text."""
        if isinstance(self.latent, ir.ChoiceLatent):
            return chain_state.state[self.latent.name] != len(self.latent.options)  # it is there
        if self.latent is None:
            return True
        scored = len(chain_state.log_prior[self.latent.name])  # 0 of a text that is not there
        if self.kind == "span":  # the end token is never in a span
            whole = min(scored, len(tokens_of(chain_state, self.latent.name)))
            return self.cut + self.length <= whole
        return self.cut < scored


def cut_law(maximum: int) -> Floats:
    """(maximum,) probability of each cut, ∝ 1 / (1 + k): every stretch of a text is redrawn about
    equally often.
    """
    weights = 1 / (1 + np.arange(maximum))
    return weights / weights.sum()


def draw_cut(maximum: int, uniform: float) -> int:
    """A cut that does not look at the state."""
    return min(int(np.searchsorted(cut_law(maximum).cumsum(), uniform, side="right")), maximum - 1)


def tokens_of(chain_state: ChainState, name: str) -> Tokens:
    """The chain's value of a text latent."""
    tokens = chain_state.state[name]
    assert isinstance(tokens, tuple)
    return tokens


Proposal = tuple[ChainState | None, float]  # None: certain to be rejected
Again = Callable[
    [int, int], tuple[Move, Key] | None
]  # of a chain, where the cut is at least so much


class Turns:
    """The move that each of N chains is at.

    With ends, a chain need not wait for the others: moves that change nothing are passed over, and
    a proposal that is given up early leaves the state as it is, so that the next move can begin at
    once. Everything is keyed by (chain, step), so its path is the one that it has without.
    """

    def __init__(
        self,
        draw: Callable[[Key], Move],
        chain_states: Sequence[ChainState],
        keys: Sequence[Key],
        ends: Sequence[int] | None,
    ) -> None:
        """draw: the move of a key. keys: each chain's first. ends: (N,) steps that are not to be
        begun.
        """
        self._draw, self._chain_states, self._ends = draw, chain_states, ends
        self._first = [at for _, at in keys]
        self.keys = list(keys)
        self.moves = [draw(key) for key in keys]
        for i, move in enumerate(self.moves):
            if ends is not None and not move.changes(chain_states[i]):
                self._go_on(i, *self._next(i))

    @property
    def counts(self) -> list[int]:
        """(N,) moves of each chain so far, the present one included."""
        return [at - first + 1 for (_, at), first in zip(self.keys, self._first, strict=True)]

    def _next(self, i: int) -> tuple[Move, Key]:
        """The next move that changes chain i, or the last before its end, which may be the present
        one.
        """
        assert self._ends is not None
        move, (number, at) = self.moves[i], self.keys[i]
        while at + 1 < self._ends[i]:
            at += 1
            move = self._draw((number, at))
            if move.changes(self._chain_states[i]):
                break
        return move, (number, at)

    def _go_on(self, i: int, move: Move, key: Key) -> None:
        self.moves[i], self.keys[i] = move, key

    def again(self, rows: Sequence[int]) -> Again | None:
        """What follows a suffix move of these chains in the same batch, by place among them: one
        of the same text.
        """
        if self._ends is None:
            return None

        def follow(place: int, least: int) -> tuple[Move, Key] | None:
            i = rows[place]
            move, key = self._next(i)
            same = (
                move.kind == "suffix"
                and move.latent == self.moves[i].latent
                and move.changes(self._chain_states[i])
            )
            if key == self.keys[i] or not same or move.cut < least:
                return None
            self._go_on(i, move, key)
            return move, key

        return follow
