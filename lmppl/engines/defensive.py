"""A trained sampler as a proposal, with a little of the prior mixed in (Hesterberg 1995).

q' = (1 − ε) q_θ + ε q₀ over whole states, where q₀ is what is drawn without it: the prior, or its mixture of
temperatures. What one of them draws is traced under the other, so log q' is exact. Since q' ≥ ε q₀, a weight γ / q' is
at most 1 / ε times what it was without: what the sampler has missed costs draws, and no bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from lmppl import run_findings
from lmppl.engines.proposals import Drawn, Temperatures, draw_prior, trace_prior
from lmppl.errors import LmpplError
from lmppl.randomness import Randomness
from lmppl.rollout import Rollout
from lmppl.sampler import Sampler
from lmppl.target import Floats, State, Target

DRAWER = 8_000_000  # purpose number of the uniform that says which of the two draws
DEFENSIVE = 0.1  # ε


@dataclass(frozen=True)
class Defended:
    """A trained sampler, and the share ε of the prior that is mixed in with it."""

    sampler: Sampler
    share: float = DEFENSIVE

    def mixed(self, log_learned: Floats | float, log_drawn: Floats | float) -> Floats:
        """log q' from log q_θ and log q₀ of the same states. (N,)"""
        return np.logaddexp(np.log1p(-self.share) + log_learned, np.log(self.share) + log_drawn)

    def draw(
        self, target: Target, keys: Sequence[tuple[int, int]], randomness: Randomness, temperatures: Temperatures = None
    ) -> tuple[Drawn, Floats]:
        """One state a key from q': scored as if q₀ had drawn it, and log q_θ. (N,)"""
        uniforms = np.array([randomness.uniforms(*key, DRAWER, 1)[0] for key in keys])
        ours = np.flatnonzero(uniforms < self.share).tolist()
        theirs = np.flatnonzero(uniforms >= self.share).tolist()
        parts: list[tuple[Drawn, Floats]] = []
        if len(ours):
            drawn = draw_prior(target, [keys[i] for i in ours], randomness, temperatures)
            parts.append((drawn, self.sampler.log_prob(drawn.states)))
        if len(theirs):
            states, log_learned = self.sampler.draw([keys[i] for i in theirs], randomness)
            parts.append((trace_prior(target, states, temperatures), log_learned))
        order = np.argsort([*ours, *theirs])
        log_learned = np.concatenate([log_learned for _, log_learned in parts])[order]
        return _in_order([drawn for drawn, _ in parts], order.tolist()), log_learned


def proposal_of(target: Target, options: Any) -> Defended | None:
    """What an engine's options `proposal` and `defensive` ask for; None for nothing but the prior.

    Raises LmpplError where the target was not given the sampler: it is read by who runs the engine.
    """
    if not options.proposal:
        return None
    if target.proposal is None:
        raise LmpplError(run_findings.proposal_not_read(options.proposal))
    return Defended(target.proposal, options.defensive)


def draw_start(
    target: Target,
    keys: Sequence[tuple[int, int]],
    randomness: Randomness,
    temperatures: Temperatures = None,
    proposal: Defended | None = None,
) -> Drawn:
    """One state a key from q', or from q₀ where there is no proposal; log q is that of what draws."""
    if proposal is None:
        return draw_prior(target, keys, randomness, temperatures)
    drawn, log_learned = proposal.draw(target, keys, randomness, temperatures)
    return replace(drawn, log_proposal=proposal.mixed(log_learned, drawn.log_proposal))


def trace_start(
    target: Target, states: Sequence[State], temperatures: Temperatures = None, proposal: Defended | None = None
) -> Drawn:
    """What `draw_start` would have said of states that were not drawn by it."""
    traced = trace_prior(target, states, temperatures)
    if proposal is None:
        return traced
    return replace(traced, log_proposal=proposal.mixed(proposal.sampler.log_prob(states), traced.log_proposal))


def _in_order(parts: Sequence[Drawn], order: Sequence[int]) -> Drawn:
    """Parts one after the other, put in another order of their N rows."""

    def joined(pieces: Sequence[Any]) -> Any:
        rows = [row for piece in pieces for row in piece]
        rows = [rows[i] for i in order]
        return np.array(rows) if isinstance(pieces[0], np.ndarray) else rows

    rollouts = {
        name: Rollout(*(joined([vars(part.rollouts[name])[field.name] for part in parts]) for field in fields(Rollout)))
        for name in parts[0].rollouts
    }
    known = {name: joined([part.known[name] for part in parts]) for name in parts[0].known}
    return Drawn(
        joined([part.states for part in parts]), joined([part.log_proposal for part in parts]), known, rollouts
    )
