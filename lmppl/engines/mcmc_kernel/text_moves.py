"""Proposals of a text: a suffix, or a span in its middle, drawn anew at one temperature.

Per chain a candidate, None where it is certain to be rejected, and log q(old) − log q(new).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmppl import ir
from lmppl.decoding import FREE, Entry, Pasts, Randomness, Rollout, is_hurried
from lmppl.density import Floats, Target
from lmppl.engines.mcmc_kernel.chain_state import ChainState, mixture, remembering
from lmppl.engines.mcmc_kernel.moves import Again, Key, Move, Proposal, tokens_of
from lmppl.engines.mcmc_kernel.rescoring import Scores
from lmppl.lm import Tokens

SLACK = 1e-6  # nats that rounding may take


@dataclass(frozen=True)
class TextMoves:
    """How suffixes and spans are drawn and scored."""

    scores: Scores
    randomness: Randomness
    early: bool  # give proposals up as soon as they are certain to be rejected
    # keep what was run of each chain's texts, so that a move costs its suffix
    remember: bool

    @property
    def target(self) -> Target:
        """The density."""
        return self.scores.target

    def suffixes(
        self,
        chain_states: Sequence[ChainState],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
        again: Again | None = None,
    ) -> list[Proposal]:
        """Texts cut at k, and the rest drawn anew.

        again: what follows in a row whose proposal is given up; the proposal is then that of the
        last.
        """
        latent, current = self._latent(moves), list(moves)
        name, limits = latent.name, self._least_gain(chain_states, moves, betas, latent)

        def entry(i: int, least: int) -> Entry | None:
            following = again(i, least) if again is not None else None
            if following is None:
                return None
            move, key = following
            current[i] = move
            (limit,) = self._least_gain([chain_states[i]], [move], [betas[i]], latent) or (-np.inf,)
            kept = tokens_of(chain_states[i], name)[: move.cut]
            return Entry(kept, move.component, self.token_uniforms([key], latent)[0], limit)

        rollout = self._drawn(
            chain_states,
            moves,
            keys,
            least_gain=None if limits is None else np.array(limits),
            again=entry if again is not None and limits is not None else None,
        )
        survivors = [i for i, gone in enumerate(rollout.abandoned) if not gone]
        candidates = self._candidates(chain_states, current, name, rollout, survivors)
        result: list[Proposal] = [(None, 0.0)] * len(rollout.tokens)
        for i, candidate in candidates.items():
            result[i] = candidate, _suffix_ratio(chain_states[i], candidate, current[i], name)
        return result

    def spans(
        self,
        chain_states: Sequence[ChainState],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
    ) -> list[Proposal]:
        """Texts of which a few tokens are drawn anew, and what follows is kept."""
        latent = self._latent(moves)
        name = latent.name
        stopping = self.target.text_latent(name).stopping
        forced = np.full((len(chain_states), latent.maximum), FREE, dtype=np.int64)
        for row, chain_state, move in zip(forced, chain_states, moves, strict=True):
            scored = stopping.scored(tokens_of(chain_state, name))
            row[move.cut + move.length : len(scored)] = scored[move.cut + move.length :]
        rollout = self._drawn(chain_states, moves, keys, forced=forced)
        # a span that ends the text, lets it go on behind its end, or has a tool write on in it, has
        # no way back
        whole = [
            i
            for i, (chain_state, move) in enumerate(zip(chain_states, moves, strict=True))
            if _same_behind(rollout.tokens[i], tokens_of(chain_state, name), move.cut + move.length)
        ]
        candidates = self._candidates(chain_states, moves, name, rollout, whole)
        result: list[Proposal] = [(None, 0.0)] * len(chain_states)
        for i, candidate in candidates.items():
            span = slice(moves[i].cut, moves[i].cut + moves[i].length)
            old, new = chain_states[i].log_proposal[name], candidate.log_proposal[name]
            if len(old) == len(new):
                component = moves[i].component
                log_ratio = float(old[span, component].sum() - new[span, component].sum())
                result[i] = candidate, log_ratio
        return result

    def _latent(self, moves: Sequence[Move]) -> ir.TextLatent:
        """The text that all of these moves are of."""
        latent = moves[0].latent
        assert latent is not None
        return self.target.text_latent(latent.name).latent

    def _drawn(
        self,
        chain_states: Sequence[ChainState],
        moves: Sequence[Move],
        keys: Sequence[Key],
        **how: Any,
    ) -> Rollout:
        """Texts drawn anew from their cuts on. how: see Target.rollings."""
        latent = self._latent(moves)
        return self.target.roll_out(
            latent.name,
            [chain_state.state for chain_state in chain_states],
            temperatures=self.scores.ladder(latent),
            component=np.array([move.component for move in moves]),
            uniforms=self.token_uniforms(keys, latent),
            kept=_kept(chain_states, moves, latent.name),
            pasts=self._pasts(chain_states, latent.name),
            **how,
        )

    def token_uniforms(self, keys: Sequence[Key], latent: ir.TextLatent) -> Floats:
        """(N, maximum), by position in the text."""
        return np.stack([self.randomness.uniforms(*key, 0, latent.maximum) for key in keys])

    def _pasts(self, chain_states: Sequence[ChainState], name: str) -> list[Pasts | None] | None:
        return (
            [chain_state.pasts.get(name) for chain_state in chain_states] if self.remember else None
        )

    def _candidates(
        self,
        chain_states: Sequence[ChainState],
        moves: Sequence[Move],
        name: str,
        rollout: Rollout,
        rows: Sequence[int],
    ) -> Mapping[int, ChainState]:
        """Some of the chains with the texts that were drawn, by row. What was kept keeps its
        scores.
        """

        def joined(old: Floats, new: Sequence[Floats], i: int) -> Floats:
            return np.concatenate([old[: moves[i].cut], new[i]])

        kept = [chain_states[i] for i in rows]
        log_prior = [joined(chain_states[i].log_prior[name], rollout.log_prior, i) for i in rows]
        log_proposal = [
            joined(chain_states[i].log_proposal[name], rollout.log_proposal, i) for i in rows
        ]
        texts = [rollout.tokens[i] for i in rows]
        moved = self.scores.moved(kept, name, texts, log_prior, log_proposal)
        return {
            i: remembering(candidate, name, rollout.pasts[i])
            for i, candidate in zip(rows, moved, strict=True)
        }

    def _least_gain(
        self,
        chain_states: Sequence[ChainState],
        moves: Sequence[Move],
        betas: Sequence[float],
        latent: ir.TextLatent,
    ) -> list[float] | None:
        """(N,) what Σ (log prior − log q) of a new suffix must reach to be accepted; None where it
        says nothing.

        At β = 1 with powers ≥ 0 that add up to A ≥ 1 and temperatures from 1/A to 1, every token
        lowers it or leaves it, and other factors that the text changes are bounded: a row below
        this has lost for certain.
        """
        ladder, power = self.scores.ladder(latent), latent.total_power
        others = self.target.upper_bound_after(latent.name)
        falling = all(term.power >= 0 for term in latent.terms) and power >= 1 - 1e-9
        cold = min(ladder) < 1 / power - 1e-9 or max(ladder) > 1
        if not self.early or not falling or cold or np.isinf(others):
            return None
        if any(beta != 1 for beta in betas):
            return None
        name = latent.name
        changed = self.target.affected_by(name) - {name}
        limits = []
        for chain_state, move in zip(chain_states, moves, strict=True):
            if move.whole or is_hurried(ladder[move.component]):  # a token may raise it
                limits.append(-np.inf)
                continue
            old = (
                chain_state.log_prior[name][move.cut :].sum()
                - chain_state.log_proposal[name][move.cut :, move.component].sum()
            )
            after = sum(value for key, value in chain_state.factors.items() if key in changed)
            limits.append(move.log_uniform + old + after - others - SLACK)
        return limits


def _suffix_ratio(chain_state: ChainState, candidate: ChainState, move: Move, name: str) -> float:
    """log q(old) − log q(new) of a suffix; of the whole text, of q₀ what the move can change."""
    old, new = chain_state.log_proposal[name], candidate.log_proposal[name]
    if move.whole and chain_state.finds is None:
        return float(mixture(old) - mixture(new))
    if move.whole:
        return float(chain_state.log_start - candidate.log_start)
    return float(old[move.cut :, move.component].sum() - new[move.cut :, move.component].sum())


def _kept(chain_states: Sequence[ChainState], moves: Sequence[Move], name: str) -> list[Tokens]:
    """The beginnings of texts that are not drawn again."""
    return [
        tokens_of(chain_state, name)[: move.cut]
        for chain_state, move in zip(chain_states, moves, strict=True)
    ]


def _same_behind(new: Tokens, old: Tokens, end: int) -> bool:
    """Whether two texts are of one length and alike from a place on."""
    return len(new) == len(old) and new[end:] == old[end:]
