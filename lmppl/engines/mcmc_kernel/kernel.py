"""Metropolis-Hastings moves over complete states, many walkers in one batch, at any inverse
temperature.

A walker's scores are kept, never computed again. Its level at β is (1 − β) log q₀ + β γ, where q₀
is the law that states are started from (walker.py) and γ the program's log density; every move
leaves exp(level) invariant:

suffix   cut a text at k and draw the rest anew at one temperature; log A = Δ level + log q(old) −
         log q(new). The law of k does not look at the state (no move where k lies behind the end),
         so it has no ratio. span     draw a few tokens in the middle anew and keep what follows;
         pays where something is scored after the text. restart  a new state from q₀.
find     the same, where q₀ draws it from what a search has found.
choice   an option drawn from its prior.

`propose` is pure: it takes and returns values, and its randomness is keyed by (walker, step).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.decoding import FREE, Entry, Pasts, Purpose, Randomness, is_hurried
from lmppl.density import Floats, Target, drawn_options
from lmppl.engines.defensive import Defended
from lmppl.engines.mcmc_kernel.moves import Again, Key, Move, Turns, draw_cut, tokens_of
from lmppl.engines.mcmc_kernel.walker import (
    FOUND,
    Finds,
    Walker,
    asked,
    mixture,
    proposed,
    remembering,
    walkers_of,
)
from lmppl.engines.proposals import draw_prior, temperature_ladder, trace_prior
from lmppl.engines.search import Search, cannot_search
from lmppl.lm import Tokens

RESTARTS = 0.1  # share of moves that start anew
SPANS = 0.25  # share of text moves that redraw a span, where something follows the text
LONGEST_SPAN = 3
PEAKED = 1.5  # powers below it leave too many texts probable for a search to be worth its prefixes
TRIAL = 1 / 3  # a search that has found no whole text by this share of its prefixes is given up
# share of what a search has found that its best states must hold: the others are left out
WORTH = 0.999
Ladder = Callable[[ir.TextLatent], tuple[float, ...]]


@dataclass(frozen=True)
class Kernel:
    """What is fixed while walkers move."""

    target: Target
    randomness: Randomness
    temperatures: tuple[float, ...] = ()  # of all proposals; empty: from 1 to the prior's 1/power
    restarts: float = RESTARTS
    spans: float = SPANS
    early: bool = True  # give proposals up as soon as they are certain to be rejected
    finds: Finds | None = None  # what q₀ draws from besides the temperatures
    # keep what was run of each walker's texts, so that a move costs its suffix
    remember: bool = False
    proposal: Defended | None = None  # a trained sampler that q₀ draws from besides them

    def ladder(self, latent: ir.TextLatent) -> tuple[float, ...]:
        """Temperatures that a latent's tokens are drawn at."""
        return self.temperatures or temperature_ladder(self.target, latent)

    # --- states ----------------------------------------------------------------------------------

    def start(self, keys: Sequence[Key]) -> list[Walker]:
        """One draw from q₀ a key, none of the finds; it may be impossible."""
        if self.proposal is not None:
            drawn, log_learned = self.proposal.draw(
                self.target, keys, self.randomness, self.temperatures or None
            )
            density = self.target.log_density(drawn.states, drawn.known)
            return proposed(walkers_of(drawn, density, self.finds), self.proposal, log_learned)
        drawn = draw_prior(
            self.target, keys, self.randomness, self.temperatures or None, self.remember
        )
        density = self.target.log_density(drawn.states, drawn.known)
        return walkers_of(drawn, density, self.finds)

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
        found = walkers_of(traced, density.rows(best))
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
            if (
                self.proposal is None and len(latents) == 1 and isinstance(latent, ir.TextLatent)
            ):  # joins the suffixes
                return Move(
                    "suffix",
                    log_uniform,
                    latent,
                    int(uniforms[2] * len(self.ladder(latent))),
                    whole=True,
                )
            return Move("restart", log_uniform)
        if isinstance(latent, ir.ChoiceLatent):
            return Move("choice", log_uniform, latent)
        component = int(uniforms[2] * len(self.ladder(latent)))
        cut = draw_cut(latent.maximum, uniforms[3])
        if (uniforms[0] - self.restarts) / (1 - self.restarts) < self.spans and self._followed(
            latent
        ):
            return Move(
                "span", log_uniform, latent, component, cut, 1 + int(uniforms[5] * LONGEST_SPAN)
            )
        return Move("suffix", log_uniform, latent, component, cut)

    def _followed(self, latent: ir.TextLatent) -> bool:
        """Whether something is scored after the text, so that its beginning and its end pull at its
        middle.
        """
        return latent.maximum > 1 and len(self.target.affected_by(latent.name)) > 1

    def step(
        self,
        walkers: Sequence[Walker],
        keys: Sequence[Key],
        betas: Sequence[float],
        ends: Sequence[int] | None = None,
    ) -> Step:
        """One move of every walker, each at its own β.

        ends: (N,) step numbers. With them a walker goes on with its next moves, up to this one,
        where a move changes nothing or a proposal is given up while others still run; only its last
        move can be accepted.
        """
        turns = Turns(self.draw_move, walkers, keys, ends)
        moves, keys = turns.moves, turns.keys
        walkers = asked(
            walkers,
            [beta != 1 or moves[i].kind in ("restart", "find") for i, beta in enumerate(betas)],
        )
        result = list(walkers)
        accepted = np.zeros(len(walkers), dtype=bool)
        proposers = {
            "suffix": self._suffixes,
            "span": self._spans,
            "restart": self._restarts,
            "find": self._found,
            "choice": self._choices,
        }
        groups: dict[tuple[str, str | None], list[int]] = {}
        for i, move in enumerate(moves):
            if move.changes(walkers[i]):
                groups.setdefault(
                    (move.kind, move.latent.name if move.latent else None), []
                ).append(i)
        for (kind, _), rows in sorted(groups.items(), key=lambda group: str(group[0])):
            proposals = proposers[kind](
                [walkers[i] for i in rows],
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
                    < candidate.level(betas[i]) - walkers[i].level(betas[i]) + log_ratio
                ):
                    result[i], accepted[i] = candidate, True
        anew = np.array([self._anew(move) for move in moves], dtype=bool)
        return Step(result, accepted, accepted & anew, np.array(turns.counts))

    def _anew(self, move: Move) -> bool:
        """Whether a move proposes a state that does not depend on the old one."""
        alone = len(self.target.latents) == 1
        return (
            move.kind in ("restart", "find")
            or move.whole
            or (alone and move.kind == "suffix" and move.cut == 0)
        )

    # Each proposer gives, per walker, a candidate (None: certain to be rejected) and log q(old) −
    # log q(new).

    def _suffixes(
        self,
        walkers: Sequence[Walker],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
        again: Again | None = None,
    ) -> list[Proposal]:
        """again: what follows in a row whose proposal is given up; the proposal is then that of the
        last.
        """
        latent = _text(moves[0])
        name, current = latent.name, list(moves)
        limits = self._least_gain(walkers, moves, betas, latent)

        def entry(i: int, least: int) -> Entry | None:
            following = again(i, least) if again is not None else None
            if following is None:
                return None
            move, key = following
            current[i] = move
            (limit,) = self._least_gain([walkers[i]], [move], [betas[i]], latent) or (-np.inf,)
            kept = tokens_of(walkers[i], name)[: move.cut]
            return Entry(kept, move.component, self._token_uniforms([key], latent)[0], limit)

        rollout = self.target.roll_out(
            name,
            [walker.state for walker in walkers],
            temperatures=self.ladder(latent),
            component=np.array([move.component for move in moves]),
            uniforms=self._token_uniforms(keys, latent),
            kept=[
                tokens_of(walker, name)[: move.cut]
                for walker, move in zip(walkers, moves, strict=True)
            ],
            least_gain=None if limits is None else np.array(limits),
            again=entry if again is not None and limits is not None else None,
            pasts=self._pasts(walkers, name),
        )
        survivors = [i for i, gone in enumerate(rollout.abandoned) if not gone]
        walkers = [walkers[i] for i in survivors]
        moves = [current[i] for i in survivors]
        log_prior = [
            np.concatenate([walker.log_prior[name][: move.cut], rollout.log_prior[i]])
            for i, walker, move in zip(survivors, walkers, moves, strict=True)
        ]
        log_proposal = [
            np.concatenate([walker.log_proposal[name][: move.cut], rollout.log_proposal[i]])
            for i, walker, move in zip(survivors, walkers, moves, strict=True)
        ]
        candidates = self._rescore(
            walkers, name, [rollout.tokens[i] for i in survivors], log_prior, log_proposal
        )
        result: list[Proposal] = [(None, 0.0)] * len(rollout.tokens)
        for i, walker, move, candidate in zip(survivors, walkers, moves, candidates, strict=True):
            candidate = remembering(candidate, name, rollout.pasts[i])
            old, new = walker.log_proposal[name], candidate.log_proposal[name]
            if move.whole:  # of q₀, what the move can change
                changed = (
                    (mixture(old), mixture(new))
                    if walker.finds is None
                    else (walker.log_start, candidate.log_start)
                )
                log_ratio = changed[0] - changed[1]
            else:
                log_ratio = (
                    old[move.cut :, move.component].sum() - new[move.cut :, move.component].sum()
                )
            result[i] = candidate, float(log_ratio)
        return result

    def _least_gain(
        self,
        walkers: Sequence[Walker],
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
        others = self.target.upper_bound_after(latent.name)
        falling = all(term.power >= 0 for term in latent.terms) and latent.total_power >= 1 - 1e-9
        cold = (
            min(self.ladder(latent)) < 1 / latent.total_power - 1e-9 or max(self.ladder(latent)) > 1
        )
        if (
            not self.early
            or not falling
            or cold
            or np.isinf(others)
            or any(beta != 1 for beta in betas)
        ):
            return None
        name, affected = latent.name, self.target.affected_by(latent.name)
        limits = []
        for walker, move in zip(walkers, moves, strict=True):
            old = (
                walker.log_prior[name][move.cut :].sum()
                - walker.log_proposal[name][move.cut :, move.component].sum()
            )
            after = sum(
                value for key, value in walker.factors.items() if key in affected and key != name
            )
            if move.whole or is_hurried(
                self.ladder(latent)[move.component]
            ):  # a token may raise it
                limits.append(-np.inf)
                continue
            limits.append(move.log_uniform + old + after - others - SLACK)
        return limits

    def _spans(
        self,
        walkers: Sequence[Walker],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
    ) -> list[Proposal]:
        latent = _text(moves[0])
        name = latent.name
        stopping = self.target.text_latent(name).stopping
        forced = np.full((len(walkers), latent.maximum), FREE, dtype=np.int64)
        for row, walker, move in zip(forced, walkers, moves, strict=True):
            scored = stopping.scored(tokens_of(walker, name))
            row[move.cut + move.length : len(scored)] = scored[move.cut + move.length :]
        rollout = self.target.roll_out(
            name,
            [walker.state for walker in walkers],
            temperatures=self.ladder(latent),
            component=np.array([move.component for move in moves]),
            uniforms=self._token_uniforms(keys, latent),
            kept=[
                tokens_of(walker, name)[: move.cut]
                for walker, move in zip(walkers, moves, strict=True)
            ],
            forced=forced,
            pasts=self._pasts(walkers, name),
        )
        # a span that ends the text, lets it go on behind its end, or has a tool write on in it, has
        # no way back
        whole = [
            i
            for i, (walker, move) in enumerate(zip(walkers, moves, strict=True))
            if _same_behind(rollout.tokens[i], tokens_of(walker, name), move.cut + move.length)
        ]
        kept = [walkers[i] for i in whole]
        log_prior = [
            np.concatenate([walkers[i].log_prior[name][: moves[i].cut], rollout.log_prior[i]])
            for i in whole
        ]
        log_proposal = [
            np.concatenate([walkers[i].log_proposal[name][: moves[i].cut], rollout.log_proposal[i]])
            for i in whole
        ]
        candidates = self._rescore(
            kept, name, [rollout.tokens[i] for i in whole], log_prior, log_proposal
        )
        result: list[Proposal] = [(None, 0.0)] * len(walkers)
        for i, candidate in zip(whole, candidates, strict=True):
            span = slice(moves[i].cut, moves[i].cut + moves[i].length)
            old, new = walkers[i].log_proposal[name], candidate.log_proposal[name]
            if len(old) == len(new):
                component = moves[i].component
                candidate = remembering(candidate, name, rollout.pasts[i])
                result[i] = (
                    candidate,
                    float(old[span, component].sum() - new[span, component].sum()),
                )
        return result

    def _restarts(
        self,
        walkers: Sequence[Walker],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
    ) -> list[Proposal]:
        fresh = self.start(keys)
        return [
            (new, old.log_start - new.log_start) for old, new in zip(walkers, fresh, strict=True)
        ]

    def _found(
        self,
        walkers: Sequence[Walker],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
    ) -> list[Proposal]:
        assert self.finds is not None
        fresh = [self.finds.draw(move.place) for move in moves]
        return [
            (new, old.log_start - new.log_start) for old, new in zip(walkers, fresh, strict=True)
        ]

    def _choices(
        self,
        walkers: Sequence[Walker],
        moves: Sequence[Move],
        keys: Sequence[Key],
        betas: Sequence[float],
    ) -> list[Proposal]:
        latent = moves[0].latent
        assert latent is not None
        name = latent.name
        law = self.target.choice_log_probs(
            name, [walker.state for walker in walkers]
        )  # (N, options)
        uniforms = np.array([self.randomness.uniforms(*key, 0, 1)[0] for key in keys])
        new = drawn_options(law, uniforms)
        log_prior = [law[i, [option]] for i, option in enumerate(new)]
        candidates = self._rescore(walkers, name, [int(option) for option in new], log_prior, None)
        return [
            (candidate, float(law[i, int(walker.state[name])] - law[i, new[i]]))  # type: ignore[arg-type]
            for i, (candidate, walker) in enumerate(zip(candidates, walkers, strict=True))
        ]

    # --- scores ----------------------------------------------------------------------------------

    def _pasts(self, walkers: Sequence[Walker], name: str) -> list[Pasts | None] | None:
        return [walker.pasts.get(name) for walker in walkers] if self.remember else None

    def _token_uniforms(self, keys: Sequence[Key], latent: ir.TextLatent) -> Floats:
        return np.stack([self.randomness.uniforms(*key, 0, latent.maximum) for key in keys])

    def _rescore(
        self,
        walkers: Sequence[Walker],
        name: str,
        values: Sequence[Tokens | int],
        log_prior: Sequence[Floats],
        log_proposal: Sequence[Floats] | None,
    ) -> list[Walker]:
        """The walkers with a new value of one latent. Entries that it does not affect are kept, not
        computed again.

        Later texts' per-token scores are recomputed where their context reads this latent.
        """
        if not walkers:
            return []
        target = self.target
        states = [
            {**walker.state, name: value} for walker, value in zip(walkers, values, strict=True)
        ]
        affected = target.affected_by(name)
        known = {
            key: np.array([walker.factors[key] for walker in walkers])
            for key in target.factor_names
            if key not in affected
        }
        density = target.log_density(states, {**known, name: self._prior(name, values, log_prior)})
        moved = [
            replace(
                walker,
                state=states[i],
                log_density=float(density.total[i]),
                log_learned=None,
                factors={key: float(column[i]) for key, column in density.factors.items()},
                log_prior={**walker.log_prior, **({name: log_prior[i]} if log_proposal else {})},
                log_proposal={
                    **walker.log_proposal,
                    **({name: log_proposal[i]} if log_proposal else {}),
                },
            )
            for i, walker in enumerate(walkers)
        ]
        for latent in target.texts:
            if latent.name in affected - {name}:
                moved = self._retrace(moved, latent)
        return moved

    def _prior(
        self, name: str, values: Sequence[Tokens | int], log_prior: Sequence[Floats]
    ) -> Floats:
        """(N,) log prior of new values from their per-token scores; -inf for texts that may not end
        so.
        """
        sums = np.array([scores.sum() for scores in log_prior])
        if isinstance(values[0], int):
            return sums
        legal = self.target.text_latent(name).stopping.legal
        return np.where([legal(value) for value in values], sums, -np.inf)  # type: ignore[arg-type]

    def _retrace(self, walkers: Sequence[Walker], latent: ir.TextLatent) -> list[Walker]:
        """Per-token scores of a text whose context has changed."""
        name = latent.name
        states = [walker.state for walker in walkers]
        rollout = self.target.trace(name, states, self.ladder(latent))
        return [
            replace(
                walker,
                log_prior={**walker.log_prior, name: log_prior},
                log_proposal={**walker.log_proposal, name: log_proposal},
            )
            for walker, log_prior, log_proposal in zip(
                walkers, rollout.log_prior, rollout.log_proposal, strict=True
            )
        ]


Proposal = tuple[Walker | None, float]
SLACK = 1e-6  # nats that rounding may take


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
    """N walkers after a step."""

    walkers: list[Walker]
    accepted: NDArray[np.bool_]  # (N,) which of them accepted their last move
    fresh: NDArray[np.bool_]  # (N,) of those, which kept nothing of the old state
    counts: NDArray[np.int64]  # (N,) moves that each made


def _same_behind(new: Tokens, old: Tokens, end: int) -> bool:
    """Whether two texts are of one length and alike from a place on."""
    return len(new) == len(old) and new[end:] == old[end:]


def _text(move: Move) -> ir.TextLatent:
    assert isinstance(move.latent, ir.TextLatent)
    return move.latent
