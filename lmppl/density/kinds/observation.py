"""An observation: a text that the row or the program fixes, under a product of models' laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.density.binder import Binder
from lmppl.density.context import BoundContext, Fixed
from lmppl.density.scoring import Entry
from lmppl.density.terms import BoundTerm
from lmppl.density.views import View
from lmppl.findings import run as run_findings
from lmppl.lm import Tokens


@dataclass(frozen=True)
class BoundObservation:
    """A text that the row or the program fixes, scored after contexts that may hold latents."""

    factor: ir.Observation
    tokens: tuple[Tokens, ...]  # per term, under that term's tokenizer
    terms: tuple[BoundTerm, ...]

    @property
    def name(self) -> str:
        """The factor's."""
        return self.factor.name

    @property
    def reads(self) -> set[str]:
        """Latents that its contexts show."""
        return set().union(*(term.context.latents for term in self.factor.terms))

    @property
    def lengths(self) -> list[tuple[BoundTerm, int]]:
        """Its terms, and how many tokens each scores."""
        return [(term, len(text)) for term, text in zip(self.terms, self.tokens, strict=True)]

    def upper_bound(self, limits: dict[str, int]) -> float:
        """0 where no text can be more probable than 1, else inf."""
        return 0.0 if all(term.power >= 0 for term in self.terms) else np.inf

    def entry(self, views: Sequence[View]) -> Entry:
        """(N,) Σ power · log p(tokens | context)."""
        powers = [term.power for term in self.terms]
        scored = scored_texts(self.terms, self.tokens, views)
        return Entry(scored, lambda scores, fold: fold.sum_of(powers, scores))


def scored_texts(
    terms: Sequence[BoundTerm], tokens: Sequence[Tokens], views: Sequence[View]
) -> list:
    """One text behind the context of each of N states, under each term."""
    owners = range(len(views))
    return [
        term.scored([(text, 0)] * len(views), owners, views)
        for term, text in zip(terms, tokens, strict=True)
    ]


# --- binding --------------------------------------------------------------------------------------


def bind_observation(binder: Binder, factor: ir.Observation) -> BoundObservation:
    """The factor under its models."""
    terms, tokens = bind_target(binder, factor)
    return BoundObservation(factor, tokens, terms)


def bind_target(
    binder: Binder, factor: ir.ScoredText
) -> tuple[tuple[BoundTerm, ...], tuple[Tokens, ...]]:
    """Terms of a factor that scores a text, and the text's tokens under each; findings where it is
    not tokenised as it is written.
    """
    terms = tuple(binder.term(term) for term in factor.terms)
    target = factor.target
    if isinstance(target, ir.Literal):
        text = target.text
        tokens = tuple(
            binder.encode(None, text, term.model, term.context.empty, markers=True)
            for term in terms
        )
    else:
        text = binder.row.givens[target.name]
        tokens = tuple(
            binder.encode(target.name, text, term.model, term.context.empty) for term in terms
        )
    if isinstance(target, ir.Literal) or target.name not in binder.tokens:
        binder.read_back(factor.name, text, tokens[0], terms[0].model, factor.span)
    if text[:1].isalnum() and any(_ends_in_a_word(term.context) for term in terms):
        binder.findings.append(
            run_findings.glued_observation(factor.name, binder.program.source, factor.span)
        )
    return terms, tokens


def _ends_in_a_word(context: BoundContext) -> bool:
    """Whether a context ends in a letter, a digit or a sentence's end, or in a latent, which mostly
    does.
    """
    if context.tail:
        last = context.tail[-1]
        return not isinstance(last, Fixed) or not last.text[-1:].isspace()
    return bool(context.prompt_text) and not context.prompt_text[-1].isspace()
