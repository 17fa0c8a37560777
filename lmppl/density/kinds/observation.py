"""An observation: a text that the row or the program fixes, under a product of models' laws."""

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
class BoundObservation(FixedText):
    """A fixed text whose scores are added up, each with its power."""

    def upper_bound(self, limits: dict[str, int]) -> float:
        """0 where no text can be more probable than 1, else inf."""
        return 0.0 if all(term.power >= 0 for term in self.terms) else np.inf

    def entry(self, views: Sequence[View]) -> Entry:
        """(N,) Σ power · log p(tokens | context)."""
        powers = [term.power for term in self.terms]

        def ask(views: Sequence[View]) -> Entry:
            return Entry(self.scored(views), lambda scores, fold: fold.sum_of(powers, scores))

        return where_present(self.guard, views, ask)


def bind_observation(binder: Binder, factor: ir.Observation) -> BoundObservation:
    """The factor under its models."""
    return BoundObservation(factor, *bind_target(binder, factor))
