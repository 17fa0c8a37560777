"""The log prior of a text at each of its prefixes, from one pass a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl.decoding import FREE, Stopping
from lmppl.density.kinds import BoundText
from lmppl.density.scoring import Floats
from lmppl.density.views import View
from lmppl.lm import Tokens


@dataclass(frozen=True)
class Prefixes:
    """Running log prior of one text at every prefix, T tokens long. Nats, the prior's powers
    applied.
    """

    running: Floats  # (T + 1,): of the first t tokens, nothing said about stopping
    stop: Floats  # (T + 1,): of stopping there; -inf where the text cannot stop


def running_prior(bound: BoundText, views: Sequence[View]) -> list[Prefixes]:
    """Of each state's text, given the latents before it; one that is not there costs nothing."""
    there = [view for view in views if bound.name not in view.absent]
    known = iter(_running_prior(bound, there))
    nothing = Prefixes(np.zeros(1), np.zeros(1))
    return [nothing if bound.name in view.absent else next(known) for view in views]


def _running_prior(bound: BoundText, views: Sequence[View]) -> list[Prefixes]:
    texts = [view.tokens[bound.name] for view in views]
    running = [np.zeros(len(tokens) + 1) for tokens in texts]
    free = [bound.stopping.due(tokens) == FREE for tokens in texts]
    stop = [_stops(bound.stopping, tokens) for tokens in texts]
    for term in bound.terms:
        suffixes = term.suffixes(views)
        rows = [suffix + tokens for suffix, tokens in zip(suffixes, texts, strict=True)]
        starts = [len(suffix) for suffix in suffixes]
        scores = term.model.score_prefixes(term.context.prompt, rows, starts)
        for i, (tokens, ends) in enumerate(scores):
            running[i][1:] += term.power * np.cumsum(np.where(free[i][:-1], tokens, 0.0))
            if bound.stopping.end_allowed:
                stop[i][: bound.stopping.maximum] += term.power * ends[: bound.stopping.maximum]
    return [Prefixes(r, s) for r, s in zip(running, stop, strict=True)]


def _stops(stopping: Stopping, tokens: Tokens) -> Floats:
    """0 where a text may stop after its first t tokens, -inf where not; the end token is not yet
    scored.
    """
    if stopping.until is None and stopping.tools is None:
        return np.zeros(len(tokens) + 1)
    reached = [stopping.legal(tokens[:t]) for t in range(len(tokens) + 1)]
    return np.where(reached, 0.0, -np.inf)
