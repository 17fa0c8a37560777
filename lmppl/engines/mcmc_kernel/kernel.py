"""Metropolis-Hastings moves over complete states, many chains in one batch, at any inverse
temperature.

A chain's scores are kept, never computed again. Its level at β is (1 − β) log q₀ + β γ, where q₀
is the law that states are started from (chain_state.py) and γ the program's log density; every move
leaves exp(level) invariant:

suffix   cut a text at k and draw the rest anew at one temperature; log A = Δ level + log q(old) −
         log q(new). The law of k does not look at the state (no move where k lies behind the end),
         so it has no ratio. span     draw a few tokens in the middle anew and keep what follows;
         pays where something is scored after the text. restart  a new state from q₀.
find     the same, where q₀ draws it from what a search has found.
choice   an option drawn from its prior; latents that come with it are drawn as q₀ draws them, and
         those that go would be on the way back (branch_moves.py).

`propose` is pure: it takes and returns values, and its randomness is keyed by (chain, step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.decoding import Purpose, Randomness
from lmppl.density import BoundText, Floats, Target, drawn_options
from lmppl.engines.defensive import Defended
from lmppl.engines.mcmc_kernel.branch_moves import BranchMoves, dependants
from lmppl.engines.mcmc_kernel.chain_state import (
    FOUND,
    ChainState,
    Finds,
    asked,
    chain_states_of,
    proposed,
)
from lmppl.engines.mcmc_kernel.moves import Key, Move, Proposal, Turns, draw_cut
from lmppl.engines.mcmc_kernel.rescoring import Scores
from lmppl.engines.mcmc_kernel.text_moves import TextMoves
from lmppl.engines.proposals import draw_prior, trace_prior
from lmppl.engines.search import Search, cannot_search

RESTARTS = 0.1  # share of moves that start anew
SPANS = 0.25  # share of text moves that redraw a span, where something follows the text
LONGEST_SPAN = 3
PEAKED = 1.5  # powers below it leave too many texts probable for a search to be worth its prefixes
TRIAL = 1 / 3  # a search that has found no whole text by this share of its prefixes is given up
# share of what a search has found that its best states must hold: the others are left out
WORTH = 0.999


@dataclass(frozen=True)
class Kernel:
    """What is fixed while chains move."""

    target: Target
    randomness: Randomness
    temperatures: tuple[float, ...] = ()  # of all proposals; empty: from 1 to the prior's 1/power
    restarts: float = RESTARTS
    spans: float = SPANS
    early: bool = True  # give proposals up as soon as they are certain to be rejected
    finds: Finds | None = None  # what q₀ draws from besides the temperatures
    # keep what was run of each chain's texts, so that a move costs its suffix
    remember: bool = False
    proposal: Defended | None = None  # a trained sampler that q₀ draws from besides them

    @property
    def scores(self) -> Scores:
        """What scores of states are made with."""
        return Scores(self.target, self.temperatures)

    @property
    def text_moves(self) -> TextMoves:
        """How suffixes and spans are proposed."""
        return TextMoves(self.scores, self.randomness, self.early, self.remember)

    def ladder(self, latent: ir.TextLatent) -> tuple[float, ...]:
        """Temperatures that a latent's tokens are drawn at."""
        return self.scores.ladder(latent)

    # --- states ----------------------------------------------------------------------------------

    def start(self, keys: Sequence[Key]) -> list[ChainState]:
        """One draw from q₀ a key, none of the finds; it may be impossible."""
        if self.proposal is not None:
            drawn, log_learned = self.proposal.draw(
                self.target, keys, self.randomness, self.temperatures or None
            )
            density = self.target.log_density(drawn.states, drawn.known)
            return proposed(chain_states_of(drawn, density, self.finds), self.proposal, log_learned)
        drawn = draw_prior(
            self.target, keys, self.randomness, self.temperatures or None, self.remember
        )
        density = self.target.log_density(drawn.states, drawn.known)
        return chain_states_of(drawn, density, self.finds)

    def searched(self, evaluations: int) -> Kernel:
        """The same kernel, its q₀ helped by a search of this many prefixes where one applies and
        finds something.
        """
        texts = self.target.texts
        if evaluations <= 0 or cannot_search(self.target) or texts[0].total_power < PEAKED:
            return self
        search = Search(self.target)
        while search.heap and search.evaluations < evaluations:
            search.step()
            if search.evaluations >= TRIAL * evaluations and not search.states:
                return self
        if not np.isfinite(search.found):
            return self
        density = search.density()
        order = np.argsort(-density.total, kind="stable")
        reached = np.exp(density.total[order] - search.found).cumsum()
        best = order[: int(np.searchsorted(reached, WORTH)) + 1].tolist()
        states = [search.states[i] for i in best]
        traced = trace_prior(self.target, states, self.temperatures or None)
        found = chain_states_of(traced, density.rows(best))
        if self.proposal is not None:
            found = proposed(found, self.proposal, self.proposal.log_prob(states))
        return replace(self, finds=Finds(found))

    # --- moves -----------------------------------------------------------------------------------

    def draw_move(self, key: Key) -> Move:
        """What to propose. A uniform each: the kind, the latent, the temperature, the cut,
        acceptance, the length.
        """
        uniforms = self.randomness.uniforms(*key, Purpose.MOVES, 6)
        latents = self.target.latents
        log_uniform = float(np.log1p(-uniforms[4]))  # 1 - u is never 0
        latent = latents[int(uniforms[1] * len(latents))]
        if uniforms[0] < self.restarts:
            if self.finds is not None and uniforms[5] < FOUND:
                return Move("find", log_uniform, place=uniforms[3])
            if self.proposal is None and len(latents) == len(self.target.texts) == 1:
                (text,) = self.target.texts
                component = int(uniforms[2] * len(self.ladder(text)))
                return Move("suffix", log_uniform, text, component, whole=True)  # joins them
            return Move("restart", log_uniform)

        def text_move(text: BoundText) -> Move:
            return self._text_move(text.latent, log_uniform, uniforms)

        return self.target.latent(latent.name).by_kind(
            text=text_move, choice=lambda choice: Move("choice", log_uniform, choice.latent)
        )

    def _text_move(self, latent: ir.TextLatent, log_uniform: float, uniforms: Floats) -> Move:
        """A suffix or a span, by the uniforms of `draw_move`."""
        component = int(uniforms[2] * len(self.ladder(latent)))
        cut = draw_cut(latent.maximum, uniforms[3])
        share = (uniforms[0] - self.restarts) / (1 - self.restarts)
        if share < self.spans and self._followed(latent):
            length = 1 + int(uniforms[5] * LONGEST_SPAN)
            return Move("span", log_uniform, latent, component, cut, length)
        return Move("suffix", log_uniform, latent, component, cut)

    def _followed(self, latent: ir.TextLatent) -> bool:
        """Whether something is scored after the text, so that its beginning and its end pull at its
        middle.
        """
        return latent.maximum > 1 and len(self.target.affected_by(latent.name)) > 1

    def step(
        self,
        chain_states: Sequence[ChainState],
        keys: Sequence[Key],
        betas: Sequence[float],
        ends: Sequence[int] | None = None,
    ) -> Step:
        """One move of every chain, each at its own β.

        ends: (N,) step numbers. With them a chain goes on with its next moves, up to this one,
        where a move changes nothing or a proposal is given up while others still run; only its last
        move can be accepted.
        """
        turns = Turns(self.draw_move, chain_states, keys, ends)
        moves, keys = turns.moves, turns.keys
        chain_states = asked(
            chain_states,
            [beta != 1 or moves[i].kind in ("restart", "find") for i, beta in enumerate(betas)],
        )
        result = list(chain_states)
        accepted = np.zeros(len(chain_states), dtype=bool)
        texts = self.text_moves
        proposers = {
            "suffix": texts.suffixes,
            "span": texts.spans,
            "restart": self._starts,
            "find": self._starts,
            "choice": self._choices,
        }
        groups: dict[tuple[str, str | None], list[int]] = {}
        for i, move in enumerate(moves):
            if move.changes(chain_states[i]):
                groups.setdefault(
                    (move.kind, move.latent.name if move.latent else None), []
                ).append(i)
        for (kind, _), rows in sorted(groups.items(), key=lambda group: str(group[0])):
            proposals = proposers[kind](
                [chain_states[i] for i in rows],
                [moves[i] for i in rows],
                [keys[i] for i in rows],
                [betas[i] for i in rows],
                *([turns.again(rows)] if kind == "suffix" else []),
            )
            proposals = _comparable(proposals, [betas[i] for i in rows])
            for i, (candidate, log_ratio) in zip(rows, proposals, strict=True):
                if candidate is None:
                    continue
                if (
                    moves[i].log_uniform
                    < candidate.level(betas[i]) - chain_states[i].level(betas[i]) + log_ratio
                ):
                    result[i], accepted[i] = candidate, True
        fresh = np.array([self._keeps_nothing(move) for move in moves], dtype=bool)
        return Step(result, accepted, accepted & fresh, np.array(turns.counts))

    def _keeps_nothing(self, move: Move) -> bool:
        """Whether a move proposes a state that does not depend on the old one."""
        alone = len(self.target.latents) == 1
        return (
            move.kind in ("restart", "find")
            or move.whole
            or (alone and move.kind == "suffix" and move.cut == 0)
        )

    # Each proposer gives, per chain, a candidate (None: certain to be rejected) and log q(old) −
    # log q(new).

    def _starts(
        self,
        chain_states: Sequence[ChainState],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
    ) -> list[Proposal]:
        """New states from q₀, or from the part of it that a search has found."""
        if moves[0].kind == "find":
            assert self.finds is not None
            fresh = [self.finds.draw(move.place) for move in moves]
        else:
            fresh = self.start(keys)
        return [
            (new, old.log_start - new.log_start)
            for old, new in zip(chain_states, fresh, strict=True)
        ]

    def _choices(
        self,
        chain_states: Sequence[ChainState],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
    ) -> list[Proposal]:
        """Options drawn from their prior, with the latents that come and go with them."""
        latent = moves[0].latent
        assert latent is not None
        name = latent.name
        law = self.target.choice_log_probs(
            name, [chain_state.state for chain_state in chain_states]
        )  # (N, options)
        uniforms = np.array([self.randomness.uniforms(*key, 0, 1)[0] for key in keys])
        new = drawn_options(law, uniforms)
        log_prior = [law[i, [option]] for i, option in enumerate(new)]
        options = [int(option) for option in new]
        old: list[Any] = [chain_state.state[name] for chain_state in chain_states]
        log_ratio = [float(law[i, old[i]] - law[i, option]) for i, option in enumerate(options)]
        if dependants(self.target, name):
            branches = BranchMoves(self.target, self.randomness, self.temperatures)
            moved = branches.moved(chain_states, name, options, keys)
            return [
                (one, ratio + more) for (one, more), ratio in zip(moved, log_ratio, strict=True)
            ]
        candidates = self.scores.moved(chain_states, name, options, log_prior, None)
        return [*zip(candidates, log_ratio, strict=True)]


def _comparable(proposals: Sequence[Proposal], betas: Sequence[float]) -> list[Proposal]:
    """Proposals whose candidates know what their level at β needs: below 1 also what a trained
    sampler says of them.
    """
    known = list(proposals)
    found = [(i, candidate) for i, (candidate, _) in enumerate(proposals) if candidate is not None]
    needed = [betas[i] != 1 and np.isfinite(candidate.log_density) for i, candidate in found]
    for (i, _), candidate in zip(
        found, asked([candidate for _, candidate in found], needed), strict=True
    ):
        known[i] = candidate, proposals[i][1]
    return known


@dataclass(frozen=True)
class Step:
    """N chains after a step."""

    chain_states: list[ChainState]
    accepted: NDArray[np.bool_]  # (N,) which of them accepted their last move
    fresh: NDArray[np.bool_]  # (N,) of those, which kept nothing of the old state
    counts: NDArray[np.int64]  # (N,) moves that each made
