"""A mixture: a text that is fixed, under the weighted mean of models' laws of whole texts.

log Σ wᵢ pᵢ(tokens | context). Which model has written the text is summed out; as the weights add up
to 1, it is a law, and it is no more probable than 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.density.binder import Binder
from lmppl.density.kinds.observation import bind_target, scored_texts
from lmppl.density.scoring import Entry
from lmppl.density.terms import BoundTerm
from lmppl.density.views import View
from lmppl.lm import Tokens


@dataclass(frozen=True)
class BoundMixture:
    """A text that the row or the program fixes, scored by several models after their contexts."""

    factor: ir.Mixture
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
        """A mean of probabilities is no more than 1."""
        return 0.0

    def entry(self, views: Sequence[View]) -> Entry:
        """(N,) log Σ wᵢ pᵢ(tokens | context)."""
        log_weights = np.log(self.factor.weights).tolist()
        scored = scored_texts(self.terms, self.tokens, views)
        return Entry(scored, lambda scores, fold: fold.mixed(log_weights, scores))


def bind_mixture(binder: Binder, factor: ir.Mixture) -> BoundMixture:
    """The factor under its models."""
    terms, tokens = bind_target(binder, factor)
    return BoundMixture(factor, tokens, terms)
