"""Values of one latent, drawn or traced: what models are asked for them, and what is known of them.

A kind of latent says in its room what it asks, and how the answers make its values. Draws of
several latents, also of several targets, are asked for together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding import Pasts, Rolling, Rollout, roll_out
from lmppl.density.scoring import Entry, Floats, evaluated
from lmppl.density.terms import BoundTerm
from lmppl.density.values import State
from lmppl.lm import Tokens


class Drawer(Protocol):
    """What a target does for its latents: it knows states, batches and prompts."""

    def rollings(
        self,
        name: str,
        states: Sequence[State],
        *,
        temperatures: Sequence[float],
        component: NDArray[np.int64],
        uniforms: Floats,
        by: BoundTerm | None = None,
        masked: bool = True,
        top_p: float = 1.0,
        pasts: Sequence[Pasts | None] | None = None,
    ) -> list[Rolling]:
        """Texts of a latent to be grown, one a state."""
        ...

    def trace(
        self,
        name: str,
        states: Sequence[State],
        temperatures: Sequence[float],
        by: BoundTerm | None = None,
    ) -> Rollout:
        """Scores of texts as they are."""
        ...

    def choice_law(self, name: str, states: Sequence[State], by: BoundTerm | None = None) -> Entry:
        """(N, options) log law of a choice."""
        ...


@dataclass(frozen=True)
class Manner:
    """How N values are drawn. A kind takes of it what bears on it: a choice has no temperature."""

    temperatures: Sequence[float] = (1.0,)  # (K,) of tokens
    component: NDArray[np.int64] | None = None  # (N,) which of them draws each; None: the first
    by: BoundTerm | None = None  # the term that draws, in place of the prior's
    masked: bool = True  # under the latent's constraints, as far as they say what may come next
    top_p: float = 1.0  # share of the law of tokens that is drawn from; below 1 it has holes
    remember: bool = False  # let the rollout tell what it has run

    def components(self, count: int) -> NDArray[np.int64]:
        """(N,) which temperature draws each."""
        return np.zeros(count, dtype=np.int64) if self.component is None else self.component


@dataclass(frozen=True)
class LatentDraws:
    """N values of one latent, with what its prior and what drew them say of each decision. Nats.

    S decisions make a value: tokens of a text, with its end where that was drawn, or one option.
    """

    values: Sequence[Tokens | int]
    log_prior: Sequence[Floats]  # per value (S,), nothing said about whether it may end so
    log_q: Sequence[Floats]  # per value (S, K), at each temperature; K is 1 where there is none
    rollout: Rollout | None = None  # of what is drawn token by token

    @property
    def at_one(self) -> list[Floats]:
        """Per value (S,) log q at the first temperature."""
        return [row[:, 0] for row in self.log_q]


@dataclass(frozen=True)
class Drawing:
    """Draws of one latent, but for what models say."""

    rollings: Sequence[Rolling]
    entries: Sequence[Entry]
    conclude: Callable[[Sequence[Rollout], Sequence[Floats]], LatentDraws]


def drawn(drawings: Sequence[Drawing], most: int) -> list[LatentDraws]:
    """What is drawn, all laws asked for at once. most: texts that grow together, at most."""
    laws = iter(evaluated([entry for one in drawings for entry in one.entries]))
    rollouts = iter(roll_out([rolling for one in drawings for rolling in one.rollings], most))
    found = []
    for one in drawings:
        own = list(islice(rollouts, len(one.rollings)))
        found.append(one.conclude(own, list(islice(laws, len(one.entries)))))
    return found
