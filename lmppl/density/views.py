"""States spelled out, and the questions to language models that bound factors make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.density.bound import BoundLatent, BoundTerm, BoundText
from lmppl.density.scoring import Entry, Question
from lmppl.expressions import Environment
from lmppl.lm import Row, Tokens


@dataclass(frozen=True)
class View:
    """One state, spelled out."""

    texts: Mapping[str, str]
    tokens: Mapping[str, Tokens]
    choices: Mapping[str, int]
    environment: Environment


def upper_bound_of_prior(bound: BoundLatent) -> float:
    """0 where no value can have a log prior above 0, else inf."""
    terms = bound.terms if isinstance(bound, BoundText) else (bound.term,)
    return 0.0 if all(term.power >= 0 for term in terms) else np.inf


def latents_read(bound: BoundLatent) -> set[str]:
    """Latents that a latent's contexts read."""
    terms = bound.terms if isinstance(bound, BoundText) else (bound.term,)
    return {
        part.name for term in terms for part in term.context.tail if isinstance(part, ir.LatentText)
    }


def question(term: BoundTerm, targets: Sequence[Row], views: Sequence[View]) -> Question:
    """log p(target | context) under one model."""
    suffixes = [term.context.suffix(view.texts, view.tokens) for view in views]
    rows = [
        (suffix + tokens, len(suffix) + start)
        for suffix, (tokens, start) in zip(suffixes, targets, strict=True)
    ]
    return Question(term.model, term.context.prompt, rows)


def product(
    terms: Sequence[BoundTerm], targets: Sequence[Sequence[Row]], views: Sequence[View]
) -> Entry:
    """Σ aᵢ log pᵢ of targets, N for each term."""
    questions = [question(term, rows, views) for term, rows in zip(terms, targets, strict=True)]
    powers = [term.power for term in terms]
    return Entry(
        questions,
        lambda scores: np.sum([a * score for a, score in zip(powers, scores, strict=True)], axis=0),
    )
