"""A new option of a choice that guards latents: those that it brings are drawn, the others go.

What comes is drawn in program order from the mixture of its temperatures, given what is there by
then, and what goes would be drawn so on the way back: the log q of both is in the ratio. Latents
that are there before and after keep their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmppl.decoding import Purpose, Randomness
from lmppl.density import Floats, Target
from lmppl.engines.mcmc_kernel.chain_state import ChainState, chain_states_of, mixture
from lmppl.engines.mcmc_kernel.moves import Key
from lmppl.engines.proposals import draw_latent, trace_prior


def dependants(target: Target, name: str) -> list[str]:
    """Latents behind a choice that may come or go with it: its option decides on them, or on
    choices that do.
    """
    deciding, found = {name}, []
    for latent in target.latents:
        guard = target.latent(latent.name).guard
        if guard is not None and guard.reads & deciding:
            deciding.add(latent.name)
            found.append(latent.name)
    return found


@dataclass(frozen=True)
class BranchMoves:
    """How latents are drawn that come with an option."""

    target: Target
    randomness: Randomness
    temperatures: tuple[float, ...] = ()  # of all proposals; empty: from 1 to the prior's 1/power

    def moved(
        self, chain_states: Sequence[ChainState], name: str, options: Sequence[int],
        keys: Sequence[Key],
    ) -> list[tuple[ChainState, float]]:  # fmt: skip
        """Per chain, its state with another option of a choice and what comes with it, and
        log q(what went) − log q(what came).
        """
        states = [
            {**chain_state.state, name: option}
            for chain_state, option in zip(chain_states, options, strict=True)
        ]
        changed = {latent: self._redrawn(states, latent, keys) for latent in self._names(name)}
        traced = trace_prior(self.target, states, self.temperatures or None)
        density = self.target.log_density(states, traced.known)
        result = []
        for i, new in enumerate(chain_states_of(traced, density)):
            old = chain_states[i]
            moved = replace(new, finds=old.finds, proposal=old.proposal)
            came = sum(_log_q(new, latent) for latent, rows in changed.items() if rows[i] > 0)
            went = sum(_log_q(old, latent) for latent, rows in changed.items() if rows[i] < 0)
            result.append((moved, went - came))
        return result

    def _names(self, name: str) -> list[str]:
        return dependants(self.target, name)

    def _redrawn(self, states: list[dict], name: str, keys: Sequence[Key]) -> Floats:
        """Give states a latent that has come, and take one that has gone. (N,) 1 where it came, -1
        where it went, 0 where it is as it was.
        """
        latent = self.target.latent(name)
        was = np.array([not latent.is_absent(state[name]) for state in states])
        now = self.target.is_there(name, states)
        for i in np.flatnonzero(was & ~now):
            (states[i][name],) = latent.every_value(there=False)
        rows = np.flatnonzero(now & ~was).tolist()
        if rows:
            place = [one.name for one in self.target.latents].index(name)
            how = [keys[i] for i in rows], self.randomness, Purpose.BRANCHES + place
            temperatures = self.temperatures or None
            draws = draw_latent(self.target, name, [states[i] for i in rows], *how, temperatures)
            for i, value in zip(rows, draws.values, strict=True):
                states[i][name] = value
        return now.astype(float) - was


def _log_q(chain_state: ChainState, name: str) -> float:
    """log probability that a latent was drawn with, given what is before it."""
    if name in chain_state.log_proposal:
        return mixture(chain_state.log_proposal[name])
    return chain_state.factors[name]
