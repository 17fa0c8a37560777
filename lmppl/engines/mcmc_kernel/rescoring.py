"""States of chains with a new value of one latent: their scores, of which only those are computed
anew that the value changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmppl import ir
from lmppl.density import Density, Floats, State, Target
from lmppl.engines.mcmc_kernel.chain_state import ChainState
from lmppl.engines.proposals import temperature_ladder
from lmppl.lm import Tokens


@dataclass(frozen=True)
class Scores:
    """What the scores of states are made with."""

    target: Target
    temperatures: tuple[float, ...] = ()  # of all proposals; empty: from 1 to the prior's 1/power

    def ladder(self, latent: ir.TextLatent) -> tuple[float, ...]:
        """Temperatures that a latent's tokens are drawn at."""
        return self.temperatures or temperature_ladder(self.target, latent)

    def moved(
        self,
        chain_states: Sequence[ChainState],
        name: str,
        values: Sequence[Tokens | int],
        log_prior: Sequence[Floats],
        log_proposal: Sequence[Floats] | None,
    ) -> list[ChainState]:
        """The chains with a new value of one latent. Entries that it does not affect are kept, not
        computed again.

        log_prior: per chain (S,), of each decision; log_proposal: of a text (S, K). Later texts'
        per-token scores are recomputed where their context reads this latent.
        """
        if not chain_states:
            return []
        target = self.target
        states = [
            {**chain_state.state, name: value}
            for chain_state, value in zip(chain_states, values, strict=True)
        ]
        affected = target.affected_by(name)
        known: dict[str, Floats] = {name: self._log_prior(name, values, log_prior)}
        for key in target.factor_names:
            if key not in affected:
                known[key] = np.array([chain_state.factors[key] for chain_state in chain_states])
        density = target.log_density(states, known)
        moved = [
            _at(chain_state, states[i], density, i, {name: log_prior[i]}, {name: log_proposal[i]})
            if log_proposal
            else _at(chain_state, states[i], density, i)
            for i, chain_state in enumerate(chain_states)
        ]
        for latent in target.texts:
            if latent.name in affected - {name}:
                moved = self._retraced(moved, latent)
        return moved

    def _log_prior(
        self, name: str, values: Sequence[Tokens | int], log_prior: Sequence[Floats]
    ) -> Floats:
        """(N,) log prior of new values from their scores; -inf for texts that may not end so."""
        latent = self.target.latent(name)
        sums = np.array([scores.sum() for scores in log_prior])
        return np.where([latent.legal(value) for value in values], sums, -np.inf)

    def _retraced(
        self, chain_states: Sequence[ChainState], latent: ir.TextLatent
    ) -> list[ChainState]:
        """The chains with per-token scores of a text whose context has changed."""
        name = latent.name
        states = [chain_state.state for chain_state in chain_states]
        rollout = self.target.trace(name, states, self.ladder(latent))
        return [
            replace(
                chain_state,
                log_prior={**chain_state.log_prior, name: log_prior},
                log_proposal={**chain_state.log_proposal, name: log_proposal},
            )
            for chain_state, log_prior, log_proposal in zip(
                chain_states, rollout.log_prior, rollout.log_proposal, strict=True
            )
        ]


NOTHING: Mapping[str, Floats] = {}


def _at(
    chain_state: ChainState,
    state: State,
    density: Density,
    row: int,
    log_prior: Mapping[str, Floats] = NOTHING,
    log_proposal: Mapping[str, Floats] = NOTHING,
) -> ChainState:
    """The chain at another state, whose density is in a row; log_prior, log_proposal: of the text
    that has changed.
    """
    return replace(
        chain_state,
        state=state,
        log_density=float(density.total[row]),
        log_learned=None,
        factors=density.parts(row),
        log_prior={**chain_state.log_prior, **log_prior},
        log_proposal={**chain_state.log_proposal, **log_proposal},
    )
