"""Texts drawn token by token, or traced, under the terms of a bound text: from states to what
`decoding` runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl import ir
from lmppl.decoding import (
    ABSENT,
    Again,
    AheadRows,
    Beginning,
    Beginnings,
    Growth,
    LookAhead,
    Pasts,
    Plan,
    Rolling,
    Stopping,
    settled,
)
from lmppl.density.kinds import BoundLatent, BoundScoredText, BoundText
from lmppl.density.scoring import Floats
from lmppl.density.spelling import Spelling
from lmppl.density.values import State
from lmppl.lm import Stream, Tokens

NO_TOKEN = -1  # the end token of a text that none ends


def beginnings(
    text: BoundText,
    spelling: Spelling,
    states: Sequence[State],
    pasts: Sequence[Pasts | None] = (),
) -> Beginnings:
    """Where texts of these states begin, under every term."""
    views = spelling.views(states)
    terms = [
        Beginning(term.model, term.context.prompt, term.suffixes(views)) for term in text.terms
    ]
    return Beginnings(terms, text.masks, pasts)


def batched(
    text: BoundText,
    spelling: Spelling,
    states: Sequence[State],
    kept: Sequence[Tokens],
    plan: Plan,
    batch_size: int,
    again: Again | None = None,
    pasts: Sequence[Pasts | None] | None = None,
) -> Iterator[Rolling]:
    """What draws a text for every state, one a batch. The text says under which terms and masks."""
    powers = [term.power for term in text.terms]
    for start in range(0, len(states), batch_size):
        rows = slice(start, start + batch_size)
        begin = beginnings(text, spelling, states[rows], pasts[rows] if pasts else ())
        following = None if again is None else _from_row(again, start)
        cut = kept[rows], plan.rows(rows)
        yield Rolling(begin, powers, text.stopping, *cut, following, pasts is not None)


def _from_row(again: Again, start: int) -> Again:
    """What the rows of a batch go on with, the first of which is row number `start`."""
    return lambda row, least: again(start + row, least)


def endless(factor: BoundScoredText, component: int) -> BoundText:
    """The text that a factor scores, to be drawn under one of its terms at power 1: as many tokens
    as it has.

    Nothing ends it: the end token is a token like the others, as it is where the text is scored.
    """
    term, length = factor.lengths[component]
    own = factor.factor.terms[component]
    text = ir.TextLatent(factor.name, (own,), None, length, own.span)
    return BoundText(text, (term,), Stopping(None, length, NO_TOKEN, term.model.decode))


def growth(
    text: BoundText,
    spelling: Spelling,
    states: Sequence[State],
    begun: Sequence[Tokens],
    temperature: float,
    ahead: LookAhead | None = None,
) -> Growth:
    """Texts, one a state, to be grown token by token in one batch; equal states share a row.

    begun: what each begins as: empty, or over, as one that is not there. ahead: what looks ahead of
    them, and learns from what it meets.
    """
    powers, place = [term.power for term in text.terms], np.zeros(len(states), dtype=np.int64)
    growing = [row for row, tokens in enumerate(begun) if not text.stopping.closes(tokens)]
    if not growing:
        return Growth([], powers, text.stopping, None, begun, place, temperature)
    keys = [tuple(sorted(states[row].items())) for row in growing]
    first = {key: states[row] for key, row in zip(reversed(keys), reversed(growing), strict=True)}
    number = {key: row for row, key in enumerate(first)}
    nothing: list[Tokens] = [()] * len(first)
    if ahead is not None and ahead.whole:  # it knows all that masks know
        text = replace(text, masks=None)
    batch = beginnings(text, spelling, list(first.values())).whole(nothing)
    rows = None
    if ahead is not None:
        rows = AheadRows(ahead, np.zeros(len(first), dtype=np.int64))
    place[growing] = [number[key] for key in keys]
    streams, masks = batch.streams, batch.masks
    return Growth(streams, powers, text.stopping, masks, begun, place, temperature, rows)


def next_log_probs(
    text: BoundText,
    spelling: Spelling,
    states: Sequence[State],
    prefixes: Sequence[Tokens],
    batch_size: int,
) -> Floats:
    """(N, V) Σ aᵢ log pᵢ of the next token after each prefix; what a tool writes there is the one
    token that may come, at 0.
    """
    pieces: list[NDArray[np.float64]] = []
    for start in range(0, len(states), batch_size):
        rows = slice(start, start + batch_size)
        streams = beginnings(text, spelling, states[rows]).whole(prefixes[rows]).streams
        laws = [stream.log_probs().double().cpu() for stream in streams]
        powered = [term.power * law for term, law in zip(text.terms, laws, strict=True)]
        log_prior = torch.stack(powered).sum(0)
        pieces.append(settled(log_prior, text.stopping.dues(prefixes[rows])).numpy())
    return np.concatenate(pieces)


def kept(latent: BoundLatent, spelling: Spelling, states: Sequence[State]) -> torch.Tensor | None:
    """See Target.kept. Behind a text's last position, nothing is cut away."""
    states = [state for state in states if state[latent.name] != ABSENT]
    if not isinstance(latent, BoundText) or not latent.supports or not states:
        return None
    scored = [latent.stopping.scored(latent.tokens(state[latent.name])) for state in states]
    longest, size = max(map(len, scored)), latent.terms[0].model.vocabulary_size
    found = torch.ones(len(scored), longest, size, dtype=torch.bool)
    views = spelling.views(states)
    for term in latent.supports:
        suffixes = term.suffixes(views)
        rows = [suffix + tokens for suffix, tokens in zip(suffixes, scored, strict=True)]
        laws = term.model.laws(term.context.prompt, rows, [len(suffix) for suffix in suffixes])
        for row, law in zip(found, laws, strict=True):
            row[: len(law)] &= torch.isfinite(law).cpu()
    for row, tokens in zip(found, scored, strict=True):  # numbers differ in their last bits
        row[range(len(tokens)), list(tokens)] = True
    return found


def stream(text: BoundText, spelling: Spelling, state: State) -> Stream:
    """One row that a text's only term goes on with, to be pushed token by token."""
    return beginnings(text, spelling, [state]).whole([()]).streams[0]
