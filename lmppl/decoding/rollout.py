"""Drawing a text latent token by token from tempered next-token laws, with exact densities.

The proposal at temperature τ is softmax(Σ aᵢ log pᵢ / (A τ)) over the next token, where the aᵢ are
the powers of the latent's prior and A their sum: the model itself where there is one and τ is 1.
All temperatures come from the same logits, so the density under each costs nothing more. Tokens are
drawn by inverting the distribution function at uniforms that the caller keyed, so a draw does not
depend on its neighbours in the batch. Nothing is truncated; a mask takes away only what no
constraint could accept, and the law is normalised again over what is left. Where a tool writes, the
law is a point mass, of log prior and log q 0. This module knows token ids and streams, no programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.decoding.batch import Batch, Beginnings, Pasts, Pushed
from lmppl.decoding.masks import MaskRows
from lmppl.decoding.own_draws import own_draws
from lmppl.decoding.proposal_law import Laws, is_hurried
from lmppl.decoding.stopping import Stopping
from lmppl.decoding.tools import FREE
from lmppl.lm import Tokens

PER_ROW = ("component", "uniforms", "forced", "least_gain")  # fields of a plan


@dataclass(frozen=True)
class Rollout:
    """Finished texts. S counts scored positions: tokens drawn here, and the end token where
    drawn.
    """

    tokens: list[Tokens]  # whole texts: what was kept and what was drawn, without the end token
    log_prior: list[NDArray[np.float64]]  # per row (S,): Σ aᵢ log pᵢ of each drawn position
    log_proposal: list[
        NDArray[np.float64]
    ]  # per row (S, K): log q of each drawn position at each temperature
    abandoned: NDArray[
        np.bool_
    ]  # (B,) given up before its end, because its gain fell below the plan's
    pasts: Sequence[
        Pasts | None
    ]  # (B,) what was run of each text, where that was asked for and could be kept

    @staticmethod
    def joined(rollouts: Sequence[Rollout]) -> Rollout:
        """Rollouts of several batches as one."""
        abandoned = np.concatenate([one.abandoned for one in rollouts])
        pasts = [*chain.from_iterable(one.pasts for one in rollouts)]
        whole = Rollout([], [], [], abandoned, pasts)
        for rollout in rollouts:
            whole.tokens.extend(rollout.tokens)
            whole.log_prior.extend(rollout.log_prior)
            whole.log_proposal.extend(rollout.log_proposal)
        return whole


@dataclass
class _Row:
    tokens: list[int]
    log_prior: list[float] = field(default_factory=list)
    log_proposal: list[NDArray[np.float64]] = field(default_factory=list)
    gain: float = 0.0  # Σ (log prior − log q) of what was drawn here
    abandoned: bool = False


@dataclass(frozen=True)
class Plan:
    """How B rows are to be drawn: everything that is random about it is decided here."""

    temperatures: Sequence[float]  # (K,)
    component: NDArray[np.int64]  # (B,) which temperature each row draws at
    uniforms: NDArray[np.float64]  # (B, maximum), indexed by position in the text
    # (B, maximum): by position, a token to append, or FREE to draw one
    forced: NDArray[np.int64] | None = None
    # (B,) give a row up once its Σ (log prior − log q) is below
    least_gain: NDArray[np.float64] | None = None
    top_p: float = 1.0  # share of the law that is drawn from; below 1 it has holes

    def rows(self, rows: slice) -> Plan:
        """The plan of some of the rows."""
        cut = {
            name: None if vars(self)[name] is None else vars(self)[name][rows] for name in PER_ROW
        }
        return replace(self, **cut)

    def copied(self) -> Plan:
        """The same plan with arrays of its own."""
        return replace(self, **{name: copy(vars(self)[name]) for name in PER_ROW})

    def set(self, row: int, entry: Entry) -> None:
        """Another text for a row; nothing is forced on it."""
        assert self.forced is None
        self.component[row], self.uniforms[row] = entry.component, entry.uniforms
        if self.least_gain is not None:
            self.least_gain[row] = entry.least_gain


@dataclass(frozen=True)
class Entry:
    """How a row is drawn anew after it was given up."""

    kept: Tokens
    component: int
    uniforms: NDArray[np.float64]  # (maximum,)
    least_gain: float


Again = Callable[[int, int], Entry | None]  # of a row, with at least so many tokens kept


def roll_out(rollings: Sequence[Rolling], most: int) -> list[Rollout]:
    """Grow every row until its text is over. Some rollings grow together, with `most` rows at most
    or one rolling.
    """
    results: list[Rollout] = []
    for group in _groups(rollings, most):
        for rolling in group:
            rolling.begin()
        while growing := [rolling for rolling in group if rolling.grows()]:
            Batch.push([rolling.due() for rolling in growing])
            for rolling in growing:
                rolling.draw()
        results += [rolling.result() for rolling in group]
    return results


def _groups(rollings: Sequence[Rolling], most: int) -> Iterator[list[Rolling]]:
    group: list[Rolling] = []
    for rolling in rollings:
        if group and sum(map(len, group)) + len(rolling) > most:
            yield group
            group = []
        group.append(rolling)
    if group:
        yield group


class Rolling:
    """N rows on their way. All that grow are in one batch; those that begin late join it."""

    def __init__(
        self,
        beginnings: Beginnings,
        powers: Sequence[float],
        stopping: Stopping,
        kept: Sequence[Tokens],
        plan: Plan,
        again: Again | None = None,
        remember: bool = False,
    ) -> None:
        """powers: one per language model of the prior. kept: per row, the text so far. again: what
        a row goes on with that was given up while others still grow; what is told of a row is its
        last text. remember: tell what was run.
        """
        self._beginnings, self._powers, self._stopping, self._again = (
            beginnings,
            powers,
            stopping,
            again,
        )
        self._plan, self._remember = plan if again is None else plan.copied(), remember
        self._rows = [_Row(list(tokens)) for tokens in kept]
        self._growing = np.array(
            [not stopping.closes(row.tokens) for row in self._rows], dtype=bool
        )
        self._next = np.zeros(
            len(kept), dtype=np.int64
        )  # the token that each row is to be pushed with
        self._drawn = np.zeros(len(kept), dtype=bool)  # where that was drawn, not kept
        self._pasts: list[Pasts | None] = [None] * len(kept)
        self._batch: Batch | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def begin(self) -> None:
        """Draw the first token of every row; or whole texts, where a model tells no laws."""
        if self._beginnings.draws_itself:
            self._draw_whole()
            return
        self._enter(np.flatnonzero(self._growing))

    def grows(self) -> bool:
        """Whether any row is not over; finished ones are dropped where that pays."""
        return self._batch is not None and self._batch.compact(self._growing)

    def due(self) -> Pushed:
        """The batch, and what is to be pushed before the next draw."""
        assert self._batch is not None
        rows = self._batch.rows
        return self._batch, self._next[rows], self._drawn[rows] & self._growing[rows]

    def draw(self) -> None:
        """Draw the next token of every row that grows."""
        assert self._batch is not None
        self._enter(self._begun_again(self._draw(self._batch)))

    def result(self) -> Rollout:
        """What came of it, in the end; caches are let go."""
        self._batch = None
        abandoned = np.array([row.abandoned for row in self._rows], dtype=bool)
        result = Rollout([], [], [], abandoned, self._pasts)
        for row in self._rows:
            log_proposal = np.array(row.log_proposal, dtype=np.float64)
            result.tokens.append(tuple(row.tokens))
            result.log_prior.append(np.array(row.log_prior, dtype=np.float64))
            result.log_proposal.append(log_proposal.reshape(-1, self._width))
        return result

    @property
    def _width(self) -> int:
        return len(self._plan.temperatures)

    def _enter(self, rows: NDArray[np.int64]) -> None:
        """Let rows begin: each is in the batch with a token to be pushed, or over already.

        A row that has been run before but for its last token shares the pass that the others' next
        tokens need.
        """
        while len(rows):
            resumable = self._beginnings.resumable(rows, self._texts(rows))
            given_up: list[int] = []
            if not resumable.all():
                fed = rows[~resumable]
                batch = self._beginnings.batch(fed, self._texts(fed))
                given_up = self._draw(batch)
                self._join(batch)
            if resumable.any():
                waiting = rows[resumable]
                batch, self._next[waiting] = self._beginnings.resumed(waiting, self._texts(waiting))
                self._drawn[waiting] = False
                self._join(batch)
            rows = self._begun_again(given_up)

    def _draw_whole(self) -> None:
        """Let the only model draw every text, from its beginning and as it is."""
        ((beginning,), (power,), plan) = self._beginnings.terms, self._powers, self._plan
        assert [*plan.temperatures, plan.top_p] == [1.0, 1.0]
        assert plan.forced is None
        growing = np.flatnonzero(self._growing)
        if not len(growing):
            return
        beginning = replace(beginning, tails=[beginning.tails[i] for i in growing.tolist()])
        drawn = own_draws(beginning, self._stopping, plan.uniforms[growing])
        rows = [self._rows[i] for i in growing.tolist()]
        for row, (tokens, log_probs) in zip(rows, drawn, strict=True):
            assert not row.tokens
            row.tokens, row.log_prior = [*tokens], [*(power * log_probs)]
            row.log_proposal = [*log_probs[:, None]]

    def _texts(self, rows: NDArray[np.int64]) -> list[Tokens]:
        return [tuple(self._rows[i].tokens) for i in rows]

    def _join(self, batch: Batch) -> None:
        if self._batch is None:
            self._batch = batch
            return
        batch.drop(self._growing)
        if len(batch.rows):
            self._batch.drop(self._growing)
            self._batch.join(batch)

    def _draw(self, batch: Batch) -> list[int]:
        """Draw the next token of every row; says which rows are given up."""
        plan, rows = self._plan, batch.rows
        due = np.array(
            [
                self._stopping.due_next(self._rows[i].tokens) if self._growing[i] else FREE
                for i in rows
            ]
        )
        log_prior, laws = proposal_laws(  # (B, V), at K
            [stream.log_probs() for stream in batch.streams],
            self._powers,
            self._stopping,
            plan.temperatures,
            Guide.of(batch.masks, plan.temperatures),
            due,
            plan.top_p,
        )
        position = [min(len(self._rows[i].tokens), self._stopping.maximum - 1) for i in rows]
        drawn = laws.draw(plan.component[rows], plan.uniforms[rows, position])
        if plan.forced is not None:
            forced = plan.forced[rows, position]
            drawn = np.where((forced == FREE) | (due != FREE), drawn, forced)
        before = self._growing[rows]
        _record(self._rows, rows, self._growing, drawn, log_prior, laws, plan)
        _append(self._rows, rows, self._growing, drawn, self._stopping)
        self._next[rows], self._drawn[rows] = drawn, True
        self._keep_pasts(batch, before)
        return [int(i) for i in rows[before] if self._rows[i].abandoned]

    def _keep_pasts(self, batch: Batch, before: NDArray[np.bool_]) -> None:
        """Remember what was run of rows that are over now. before: (B,) which grew until now."""
        if not self._remember or not batch.joins:
            return
        over = np.flatnonzero(before & ~self._growing[batch.rows])
        over = [int(b) for b in over if not self._rows[batch.rows[b]].abandoned]
        if over:
            for b, pasts in zip(over, batch.take(over), strict=True):
                self._pasts[batch.rows[b]] = pasts

    def _begun_again(self, given_up: Sequence[int]) -> NDArray[np.int64]:
        """Of rows that were given up, those that are to begin another text now.

        It keeps as much as the shortest that still grows has: what is over waits for no row that
        began late.
        """
        begun: list[int] = []
        if (
            self._again is None
            or self._batch is None
            or not self._batch.joins
            or not self._growing.any()
        ):
            return np.array(begun, dtype=np.int64)
        shortest = min(len(self._rows[i].tokens) for i in np.flatnonzero(self._growing))
        entries = [(i, entry) for i in given_up if (entry := self._again(i, shortest)) is not None]
        if entries:
            self._batch.drop(self._growing)
        for i, entry in entries:
            self._plan.set(i, entry)
            self._rows[i] = _Row(list(entry.kept))
            self._growing[i] = True
            begun.append(i)
        return np.array(begun, dtype=np.int64)


def proposal_laws(
    laws: Sequence[torch.Tensor],
    powers: Sequence[float],
    stopping: Stopping,
    temperatures: Sequence[float],
    guide: Guide,
    due: NDArray[np.int64],
    top_p: float = 1.0,
) -> tuple[torch.Tensor, Laws]:
    """Next-token log prior (B, V), and the proposals' laws. laws: (B, V) of each model. guide: what
    masks say. due: (B,) tokens that a tool writes, FREE where it writes none."""
    log_prior = powered(laws[0], powers[0])
    for law, power in zip(laws[1:], powers[1:], strict=True):
        log_prior = log_prior + powered(law, power)
    log_prior = settled(log_prior, due)
    drawn_from = log_prior / sum(powers) if sum(powers) != 1 else log_prior
    if len(laws) > 1:  # where they have no token in common, any is as impossible
        nothing = torch.isneginf(drawn_from.amax(-1, keepdim=True))
        drawn_from = torch.where(nothing, 0.0, drawn_from)
    base = possible_law(drawn_from, stopping, guide.allowed)
    closing = guide.nearest
    if closing is None and any(map(is_hurried, temperatures)):
        closing = stopping.closing(base.shape[-1])
    normalised = len(laws) == 1 and stopping.end_allowed and guide.allowed is None
    return log_prior, Laws(base, temperatures, closing, normalised=normalised, top_p=top_p)


@dataclass(frozen=True)
class Guide:
    """What masks say of the next token of B rows."""

    # (B, V) what the constraints leave open; None without masks
    allowed: torch.Tensor | None = None
    # (B, V) what of it brings an end nearest; None where nothing asks for it
    nearest: torch.Tensor | None = None

    @staticmethod
    def of(masks: MaskRows | None, temperatures: Sequence[float]) -> Guide:
        """Of rows that have come so far, for laws at these temperatures."""
        if masks is None:
            return Guide()
        allowed = masks.allowed()
        asked = masks.leads and any(map(is_hurried, temperatures))
        return Guide(allowed, masks.nearest(allowed) if asked else None)

    @staticmethod
    def joined(guides: Sequence[Guide]) -> Guide:
        """Of all their rows, one guide's after the other's; each has masks."""
        allowed = torch.cat([guide.allowed for guide in guides if guide.allowed is not None])
        nearest = [guide.nearest for guide in guides if guide.nearest is not None]
        return Guide(allowed, torch.cat(nearest) if nearest else None)


def powered(law: torch.Tensor, power: float) -> torch.Tensor:
    """A log law times a power. Power 0 leaves of it where it has no probability: there it is −inf
    still.
    """
    if power == 0:
        return torch.where(torch.isneginf(law), law, 0.0)
    return law if power == 1 else power * law


def settled(law: torch.Tensor, due: NDArray[np.int64]) -> torch.Tensor:
    """A log law that is a point mass where a token is due, whatever the models and their powers
    say. (B, V)
    """
    rows = np.flatnonzero(due != FREE)
    if not len(rows):
        return law
    index, tokens = (torch.as_tensor(values, device=law.device) for values in (rows, due[rows]))
    law = law.clone()
    law[index] = -torch.inf
    law[index, tokens] = 0.0
    return law


def possible_law(
    law: torch.Tensor, stopping: Stopping, allowed: torch.Tensor | None
) -> torch.Tensor:
    """A law without the tokens that cannot come next; as it is where that would leave none. (B,
    V)
    """
    if stopping.end_allowed and allowed is None:
        return law
    law = law.clone()
    if not stopping.end_allowed:
        end = law[:, stopping.end].clone()
        law[:, stopping.end] = -torch.inf
        law[:, stopping.end] = torch.where(torch.isneginf(law.amax(-1)), end, -torch.inf)
    if allowed is None:
        return law
    cut = law.masked_fill(~allowed.to(law.device), -torch.inf)
    lost = torch.isneginf(cut).all(-1, keepdim=True)
    return torch.where(lost, law, cut)


def _record(
    rows: list[_Row],
    held: NDArray[np.int64],
    growing: NDArray[np.bool_],
    drawn: NDArray[np.int64],
    log_prior: torch.Tensor,
    laws: Laws,
    plan: Plan,
) -> None:
    index = torch.as_tensor(drawn, device=log_prior.device)[:, None]
    prior = log_prior.gather(1, index)[:, 0].double().cpu().numpy()
    proposal = laws.at(drawn)
    by = proposal[np.arange(len(held)), plan.component[held]]
    # what is impossible stays so, whatever drew it
    gain = np.subtract(prior, by, out=np.full(len(held), -np.inf), where=np.isfinite(prior))
    for b, i in enumerate(held):
        if not growing[i]:
            continue
        row = rows[i]
        row.log_prior.append(prior[b])
        row.log_proposal.append(proposal[b])
        row.gain += gain[b]
        if plan.least_gain is not None and row.gain < plan.least_gain[i]:
            row.abandoned, growing[i] = True, False


def _append(
    rows: list[_Row],
    held: NDArray[np.int64],
    growing: NDArray[np.bool_],
    drawn: NDArray[np.int64],
    stopping: Stopping,
) -> None:
    """Append what was drawn and mark the rows that are over."""
    for b, i in enumerate(held):
        if not growing[i]:
            continue
        if drawn[b] != stopping.end:
            rows[i].tokens.append(int(drawn[b]))
        growing[i] = drawn[b] != stopping.end and not stopping.closes(rows[i].tokens)
