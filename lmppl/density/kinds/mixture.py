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
from lmppl.density.kinds.fixed_text import FixedText, bind_target
from lmppl.density.kinds.guards import where_present
from lmppl.density.scoring import Entry
from lmppl.density.views import View


@dataclass(frozen=True)
class BoundMixture(FixedText):
    """A fixed text that one of several models has written."""

    factor: ir.Mixture

    def upper_bound(self, limits: dict[str, int]) -> float:
        """A mean of probabilities is no more than 1."""
        return 0.0

    def entry(self, views: Sequence[View]) -> Entry:
        """(N,) log Σ wᵢ pᵢ(tokens | context)."""
        log_weights = np.log(self.factor.weights).tolist()

        def ask(views: Sequence[View]) -> Entry:
            return Entry(self.scored(views), lambda scores, fold: fold.mixed(log_weights, scores))

        return where_present(self.guard, views, ask)


def bind_mixture(binder: Binder, factor: ir.Mixture) -> BoundMixture:
    """The factor under its models."""
    return BoundMixture(factor, *bind_target(binder, factor))
