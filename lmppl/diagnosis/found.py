"""What a run found for one row, and what several checks ask of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from lmppl.diagnosis.advice import or_try
from lmppl.diagnosis.diagnostics import Diagnostics
from lmppl.diagnosis.draws import Draw, Floats, columns, indicators, normalised_weights
from lmppl.diagnosis.levels import LEAST_DRAWS, MOST_BEGINNINGS, RARE
from lmppl.diagnosis.summary import chain_sizes, ordered
from lmppl.diagnosis.traits import Alternatives, Traits


@dataclass(frozen=True)
class Found:
    """What a run found for one row, and what several checks ask of it."""

    draws: Sequence[Draw]  # chain by chain
    diagnostics: Diagnostics
    traits: Traits  # of the engine
    maxima: Mapping[str, int]
    choices: Collection[str] = field(default=())

    def numbers(self, name: str) -> list[float]:
        """A diagnostic as numbers, one a replicate or chain."""
        return self.diagnostics.numbers(name)

    @cached_property
    def failed(self) -> set[str]:
        """Engines that are not to be named: this one, and where no restart was accepted, those
        that only take fresh draws.
        """
        restarts = self.numbers("fresh_starts")
        hopeless = self.instead.fresh if restarts and restarts[0] == 0 else ()
        return {self.traits.name, *hopeless}

    @property
    def instead(self) -> Alternatives:
        """Engines to try in place of this one."""
        return self.traits.alternatives

    def or_try(self, plain: str, engines: Sequence[str]) -> str:
        """Advice without its full stop, and the first of these engines that may be named."""
        return or_try(plain, engines, self.failed)

    @property
    def only_value(self) -> bool:
        """Whether the draws are the one state that is possible, so that nothing needs to move."""
        return bool(self.diagnostics.only_value)

    @cached_property
    def weights(self) -> Floats:
        return normalised_weights(self.draws)

    @cached_property
    def statistics(self) -> dict[str, Floats]:
        """What chains are compared by, (chains, draws) each. Empty where draws are weighted or are
        no posterior's.

        Densities that differ by no more than two scorings of one text do are taken as one.
        """
        if not self.traits.inferred or not self.weights.any() or np.ptp(self.weights) > 0:
            return {}
        rounding = max(np.nan_to_num(self.numbers("score_mismatch")), default=0.0)
        found = columns(self.draws)
        for name in ("log density", *self.draws[0].factors):
            if np.isfinite(found[name]).all() and np.ptp(found[name]) <= rounding:
                found[name] = np.zeros_like(found[name])
        followed = {**found, **indicators(self.draws, self.choices, MOST_BEGINNINGS, RARE)}
        return {name: ordered(column) for name, column in followed.items()}

    @cached_property
    def sizes(self) -> dict[str, dict[str, float | None]]:
        """Effective sizes of the statistics that vary. Empty where draws are independent or sized
        by weights.
        """
        if self.traits.independent or self.weight_size is not None:
            return {}
        return {
            name: _sizes(column) for name, column in self.statistics.items() if np.ptp(column) > 0
        }

    @cached_property
    def weight_size(self) -> float | None:
        """Effective size of all weights, before any resampling; replicates are pooled by their
        evidence.
        """
        if total := self.numbers("ess"):
            return float(np.nan_to_num(total).sum())
        if not (by_replicate := self.numbers("ess_by_replicate")):
            return None
        sizes = np.nan_to_num(np.array(by_replicate))
        log_evidence = np.array(self.numbers("log_evidence_by_replicate") or np.zeros(len(sizes)))
        alive = np.isfinite(log_evidence) & (sizes > 0)
        if not alive.any():
            return 0.0
        mass = np.exp(log_evidence[alive] - log_evidence[alive].max())
        return float(mass.sum() ** 2 / (mass**2 / sizes[alive]).sum())

    @cached_property
    def kept(self) -> float | None:
        """The least share of what was proposed that could be kept, as far as it is reported."""
        shares = self.numbers("min_ess_fraction")
        if rates := self.numbers("acceptance"):
            shares.append(float(np.mean(rates)))
        if self.draws and (impossible := self.numbers("impossible_draws")):
            shares.append(1 - impossible[0] / len(self.draws))
        known = [share for share in shares if not math.isnan(share)]
        return min(known, default=None)

    @cached_property
    def num_weights(self) -> int:
        """How many weights there were: particles of all replicates, or draws."""
        particles = self.numbers("particles")
        replicates = max(
            len(self.numbers("ess_by_replicate")), len(self.numbers("log_evidence_by_replicate")), 1
        )
        return int(particles[0] * replicates) if particles else len(self.draws)


def _sizes(column: Floats) -> dict[str, float | None]:
    """Effective sizes; all draws count where they are too few to tell."""
    few = column.shape[1] < LEAST_DRAWS
    return (
        dict.fromkeys(("ess_bulk", "ess_tail"), float(column.size)) if few else chain_sizes(column)
    )
