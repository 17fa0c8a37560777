"""A trained sampler as a proposal, with a little of the prior mixed in (Hesterberg 1995).

q' = (1 − ε) q_θ + ε q₀ over whole states, where q₀ is what is drawn without it: the prior, or its
mixture of temperatures. What one of them draws is traced under the other, so log q' is exact. Since
q' ≥ ε q₀, a weight γ / q' is at most 1 / ε times what it was without: what the sampler has missed
costs draws, and no bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from lmppl.decoding import Purpose, Randomness, Rollout
from lmppl.density import Floats, LearnedProposal, State, Target
from lmppl.engines.proposals import Drawn, Temperatures, draw_prior, trace_prior
from lmppl.engines.resampling import GOLDEN
from lmppl.errors import LmpplError
from lmppl.findings import learning as learning_findings

DEFENSIVE = 0.1  # ε


class Proposing(Protocol):
    """Options of engines that may propose from what was learned before."""

    @property
    def proposal(self) -> str:
        """A folder of a run that has learned; empty for none."""
        ...

    @property
    def defensive(self) -> float:
        """The share of the prior that is mixed in."""
        ...


@dataclass(frozen=True)
class Defended:
    """A trained sampler, and the share ε of the prior that is mixed in with it."""

    sampler: LearnedProposal
    share: float = DEFENSIVE

    def mixed(self, log_learned: Floats | float, log_drawn: Floats | float) -> Floats:
        """log q' from log q_θ and log q₀ of the same states. (N,)"""
        return np.logaddexp(np.log1p(-self.share) + log_learned, np.log(self.share) + log_drawn)

    def draw(
        self,
        target: Target,
        keys: Sequence[tuple[int, int]],
        randomness: Randomness,
        temperatures: Temperatures = None,
        *,
        evenly: bool = False,
    ) -> tuple[Drawn, Floats]:
        """One state a key from q': scored as if q₀ had drawn it, and log q_θ. (N,)

        evenly: a chain's draws take turns, so that the share is met; they are then from q' on
        average only.
        """
        uniforms = _evenly(keys, randomness) if evenly else _apart(keys, randomness)
        ours = np.flatnonzero(uniforms < self.share).tolist()
        theirs = np.flatnonzero(uniforms >= self.share).tolist()
        parts: list[Drawn] = []
        rows, log_learned = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys))
        if ours:
            parts.append(draw_prior(target, [keys[i] for i in ours], randomness, temperatures))
            rows[ours], log_learned[ours] = np.arange(len(ours)), self.log_prob(parts[0].states)
        if theirs:
            states, log_learned[theirs] = self.sampler.draw([keys[i] for i in theirs], randomness)
            distinct, places = _distinct(states)
            parts.append(trace_prior(target, distinct, temperatures))
            rows[theirs] = len(ours) + np.array(places)
        return _picked(parts, rows.tolist()), log_learned

    def log_prob(self, states: Sequence[State]) -> Floats:
        """(N,) log q_θ; equal states are asked about once."""
        distinct, places = _distinct(states)
        return self.sampler.log_prob(distinct)[places]


def _apart(keys: Sequence[tuple[int, int]], randomness: Randomness) -> Floats:
    """(N,) independent uniforms."""
    return np.array([randomness.uniforms(*key, Purpose.MIXTURE, 1)[0] for key in keys])


def _evenly(keys: Sequence[tuple[int, int]], randomness: Randomness) -> Floats:
    """(N,) uniforms, each by itself; those of one chain lie evenly."""
    first = {
        chain: randomness.uniforms(chain, 0, Purpose.MIXTURE, 1)[0]
        for chain in {chain for chain, _ in keys}
    }
    return np.array([(first[chain] + GOLDEN * draw) % 1 for chain, draw in keys])


def _distinct(states: Sequence[State]) -> tuple[list[State], list[int]]:
    """States without repeats, and the place of each of the N among them."""
    names = [tuple(sorted(state.items())) for state in states]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    first = dict(zip(reversed(names), reversed(states), strict=True))
    return [first[name] for name in places], [places[name] for name in names]


def proposal_of(target: Target, options: Proposing) -> Defended | None:
    """What an engine's options `proposal` and `defensive` ask for; None for nothing but the prior.

    Raises LmpplError where the target was not given the sampler: it is read by who runs the engine.
    """
    if not options.proposal:
        return None
    if target.proposal is None:
        raise LmpplError(learning_findings.proposal_not_read(options.proposal))
    return Defended(target.proposal, options.defensive)


def draw_start(
    target: Target,
    keys: Sequence[tuple[int, int]],
    randomness: Randomness,
    temperatures: Temperatures = None,
    proposal: Defended | None = None,
    *,
    evenly: bool = False,
) -> Drawn:
    """One state a key from q', or from q₀ where there is no proposal; log q is that of what
    draws.
    """
    if proposal is None:
        return draw_prior(target, keys, randomness, temperatures)
    drawn, log_learned = proposal.draw(target, keys, randomness, temperatures, evenly=evenly)
    return replace(drawn, log_proposal=proposal.mixed(log_learned, drawn.log_proposal))


def trace_start(
    target: Target,
    states: Sequence[State],
    temperatures: Temperatures = None,
    proposal: Defended | None = None,
) -> Drawn:
    """What `draw_start` would have said of states that were not drawn by it."""
    traced = trace_prior(target, states, temperatures)
    if proposal is None:
        return traced
    return replace(
        traced, log_proposal=proposal.mixed(proposal.log_prob(states), traced.log_proposal)
    )


def _picked(parts: Sequence[Drawn], order: Sequence[int]) -> Drawn:
    """Rows of parts that lie one after the other: N of them, in this order, some more than once."""

    def joined(pieces: Sequence[Any]) -> Any:
        rows = [row for piece in pieces for row in piece]
        rows = [rows[i] for i in order]
        return np.array(rows) if isinstance(pieces[0], np.ndarray) else rows

    rollouts = {
        name: Rollout(
            *(
                joined([vars(part.rollouts[name])[field.name] for part in parts])
                for field in fields(Rollout)
            )
        )
        for name in parts[0].rollouts
    }
    known = {name: joined([part.known[name] for part in parts]) for name in parts[0].known}
    return Drawn(
        joined([part.states for part in parts]),
        joined([part.log_proposal for part in parts]),
        known,
        rollouts,
    )
