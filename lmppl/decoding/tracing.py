"""Texts that are there already, scored by the laws that would have drawn them: one parallel pass a
model.

The laws of all positions of some rows lie one below the other, as those of a step of a rollout do,
and are read by the code that reads those: masks and temperatures ask for nothing else. Knows token
ids and models, no programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from lmppl.decoding.batch import Beginnings
from lmppl.decoding.rollout import Guide, Rollout, proposal_laws
from lmppl.decoding.stopping import Stopping
from lmppl.lm import Tokens

# numbers in the laws of one block: 128 MiB in float32, and as much for each temporary copy
MOST_LAWS = 32 * 2**20


def trace(
    beginnings: Beginnings,
    powers: Sequence[float],
    stopping: Stopping,
    texts: Sequence[Tokens],
    temperatures: Sequence[float],
) -> Rollout:
    """What a rollout that had drawn these texts would tell. powers: one per language model of the
    prior. (N,)
    """
    scored = [stopping.scored(tokens) for tokens in texts]
    if beginnings.draws_itself:
        return _of_own_draws(beginnings, powers, texts, scored, temperatures)
    log_prior, log_proposal = [], []
    for rows in _blocks(scored, beginnings.terms[0].model.vocabulary_size):
        texts_here = [scored[i] for i in rows]
        tokens = np.array([token for text in texts_here for token in text], dtype=np.int64)  # (R,)
        due = np.concatenate([stopping.due_when_scored(texts[i]) for i in rows])
        guide = _guide(beginnings, texts_here, temperatures)
        found = _laws(beginnings, rows, texts_here)
        prior, laws = proposal_laws(found, powers, stopping, temperatures, guide, due)
        index = torch.as_tensor(tokens, device=prior.device)[:, None]
        ends = np.cumsum([len(text) for text in texts_here])[:-1]
        log_prior += np.split(prior.gather(1, index)[:, 0].double().cpu().numpy(), ends)
        log_proposal += np.split(laws.at(tokens), ends)
    return Rollout(
        list(texts), log_prior, log_proposal, np.zeros(len(texts), dtype=bool), [None] * len(texts)
    )


def _of_own_draws(
    beginnings: Beginnings,
    powers: Sequence[float],
    texts: Sequence[Tokens],
    scored: Sequence[Tokens],
    temperatures: Sequence[float],
) -> Rollout:
    """What `own_draws` would have told of texts: the only model draws from its law as it is."""
    ((term,), (power,)) = beginnings.terms, powers
    assert all(temperature == 1 for temperature in temperatures)
    rows = [tail + tokens for tail, tokens in zip(term.tails, scored, strict=True)]
    own = term.model.score(term.prompt, rows, [len(tail) for tail in term.tails])
    log_prior = [power * row for row in own]
    log_proposal = [np.repeat(row[:, None], len(temperatures), axis=1) for row in own]
    none = np.zeros(len(texts), dtype=bool)
    return Rollout(list(texts), log_prior, log_proposal, none, [None] * len(texts))


def _blocks(scored: Sequence[Tokens], vocabulary_size: int) -> Iterator[range]:
    """Rows in order, as many at a time as their laws have room for."""
    start, size = 0, 0
    for i, tokens in enumerate(scored):
        if i > start and (size + len(tokens)) * vocabulary_size > MOST_LAWS:
            yield range(start, i)
            start, size = i, 0
        size += len(tokens)
    if scored:
        yield range(start, len(scored))


def _laws(beginnings: Beginnings, rows: range, scored: Sequence[Tokens]) -> list[torch.Tensor]:
    """(R, V) laws of all positions of some rows, under each model."""
    found = []
    for term in beginnings.terms:
        tails = [term.tails[i] for i in rows]
        continuations = [tail + tokens for tail, tokens in zip(tails, scored, strict=True)]
        found.append(
            torch.cat(term.model.laws(term.prompt, continuations, [len(tail) for tail in tails]))
        )
    return found


def _guide(
    beginnings: Beginnings, scored: Sequence[Tokens], temperatures: Sequence[float]
) -> Guide:
    """What the masks say at each of these positions. (R, V)"""
    masks = beginnings.masks
    if masks is None:
        return Guide()
    places = [Guide.of(row, temperatures) for tokens in scored for row in masks.before_each(tokens)]
    return Guide.joined(places) if places else Guide(masks.along(()))
