"""The state of a chain, with the scores that it was accepted with, and what q₀ says of it.

q₀ is the law that states are started and restarted from: the equal mixture of the token
temperatures of whole texts; where a trained sampler is to propose, that sampler with a little of
the mixture (defensive.py); and where a short search has found texts, an even chance of all that and
of a draw from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lmppl.decoding import Pasts
from lmppl.density import Density, Floats, State
from lmppl.engines.defensive import Defended
from lmppl.engines.proposals import Drawn

FOUND = 0.5  # share of q₀ that draws from what a search has found, where one has


@dataclass(frozen=True)
class ChainState:
    """One state and the scores it was accepted with."""

    state: State
    log_density: float
    factors: Mapping[str, float]
    log_prior: Mapping[str, Floats]  # per text latent (|z|,)
    log_proposal: Mapping[str, Floats]  # per text latent (|z|, K)
    finds: Finds | None = None  # what q₀ draws from besides the temperatures
    # per text latent, what was last run of it; used only as far as it agrees with the state
    pasts: Mapping[str, Pasts] = field(default_factory=dict, compare=False, repr=False)
    proposal: Defended | None = None  # the trained sampler that q₀ draws from besides them
    # its log probability of the state; None until somebody has asked
    log_learned: float | None = None

    @property
    def log_start(self) -> float:
        """log q₀ of the state: choices from their prior, texts from the equal mixture of their K
        temperatures.
        """
        choices = (self.factors[name] for name in self.state if name not in self.log_proposal)
        drawn = sum(choices) + sum(mixture(rows) for rows in self.log_proposal.values())
        if self.proposal is not None:
            assert self.log_learned is not None, "ask the sampler first"
            drawn = float(self.proposal.mixed(self.log_learned, drawn))
        if self.finds is None:
            return drawn
        return float(
            np.logaddexp(np.log1p(-FOUND) + drawn, np.log(FOUND) + self.finds.log_prob(self.state))
        )

    def level(self, beta: float) -> float:
        """(1 − β) log q₀ + β γ; -inf where the program makes the state impossible, whatever β
        is.
        """
        if not np.isfinite(self.log_density):
            return -np.inf
        return (
            self.log_density if beta == 1 else (1 - beta) * self.log_start + beta * self.log_density
        )


@dataclass(frozen=True)
class Finds:
    """States that a search has found, drawn in proportion to their density."""

    chain_states: Sequence[ChainState]

    @cached_property
    def log_probs(self) -> Floats:
        """(F,) their log densities, normalised over them."""
        levels = np.array([chain_state.log_density for chain_state in self.chain_states])
        return levels - np.logaddexp.reduce(levels)

    @cached_property
    def _places(self) -> dict[tuple, int]:
        return {_key(chain_state.state): i for i, chain_state in enumerate(self.chain_states)}

    @cached_property
    def _cumulative(self) -> Floats:
        return np.exp(self.log_probs).cumsum()

    def log_prob(self, state: State) -> float:
        """log probability of drawing a state; -inf where the search has not found it."""
        place = self._places.get(_key(state))
        return -np.inf if place is None else float(self.log_probs[place])

    def draw(self, uniform: float) -> ChainState:
        """The state at a uniform, which knows what it was drawn from."""
        place = int(np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right"))
        return replace(self.chain_states[min(place, len(self.chain_states) - 1)], finds=self)


def remembering(chain_state: ChainState, name: str, pasts: Pasts | None) -> ChainState:
    """The chain with what was run of its new text; as it is where nothing is told."""
    return (
        chain_state
        if pasts is None
        else replace(chain_state, pasts={**chain_state.pasts, name: pasts})
    )


def mixture(log_proposal: Floats) -> float:
    """log of the mean over K temperatures of a whole text's probability. (|z|, K)"""
    return float(np.logaddexp.reduce(log_proposal.sum(0)) - np.log(log_proposal.shape[1]))


def chain_states_of(drawn: Drawn, density: Density, finds: Finds | None = None) -> list[ChainState]:
    """States of chains from N that were drawn or traced."""
    return [_chain_state_of(drawn, density, i, finds) for i in range(len(drawn.states))]


def _chain_state_of(drawn: Drawn, density: Density, row: int, finds: Finds | None) -> ChainState:
    rollouts = drawn.rollouts
    pasts = {name: rollout.pasts[row] for name, rollout in rollouts.items()}
    return ChainState(
        drawn.states[row],
        float(density.total[row]),
        density.parts(row),
        log_prior={name: rollout.log_prior[row] for name, rollout in rollouts.items()},
        log_proposal={name: rollout.log_proposal[row] for name, rollout in rollouts.items()},
        finds=finds,
        pasts={name: known for name, known in pasts.items() if known is not None},
    )


def proposed(
    chain_states: Sequence[ChainState], proposal: Defended, log_learned: Floats
) -> list[ChainState]:
    """The chains, their q₀ helped by a trained sampler, whose log probabilities of their states
    are known. (N,)
    """
    pairs = zip(chain_states, log_learned.tolist(), strict=True)
    return [
        replace(chain_state, proposal=proposal, log_learned=value) for chain_state, value in pairs
    ]


def asked(
    chain_states: Sequence[ChainState], needed: Sequence[bool] | None = None
) -> list[ChainState]:
    """The chains, those that need it knowing what the trained sampler of their q₀ says of them.
    (N,)

    Most moves at β = 1 never ask.
    """
    wanting = [
        i
        for i, chain_state in enumerate(chain_states)
        if chain_state.proposal is not None
        and chain_state.log_learned is None
        and (needed is None or needed[i])
    ]
    result = list(chain_states)
    if not wanting:
        return result
    proposal = chain_states[wanting[0]].proposal
    assert proposal is not None
    said = proposal.log_prob([chain_states[i].state for i in wanting])
    for i, log_learned in zip(wanting, said.tolist(), strict=True):
        result[i] = replace(chain_states[i], log_learned=log_learned)
    return result


def _key(state: State) -> tuple:
    return tuple(sorted(state.items()))
