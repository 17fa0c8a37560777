"""Figures that an engine reports of one row's draws, for the verdict, for pages and for files.

A figure that an engine does not report is None, and is in no file. One that it reports and that is
no number is NaN, and null in JSON. Figures stand in files in the order of the fields.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lmppl.shapes import Document


@dataclass(frozen=True)
class Coupling:
    """What coupled pairs of chains tell.

    lag: steps by which one of a pair is ahead. meeting_times: steps until each pair met, None where
    it never did. total_variation_after_warmup: a bound of the distance of the chains' law from the
    posterior after warm-up, 0 to 1 or above; None where there is none.
    """

    lag: int | None
    meeting_times: Sequence[int | None]
    total_variation_after_warmup: float | None = None

    def document(self) -> dict[str, Any]:
        """JSON form."""
        return {
            key: value for key, value in vars(self).items() if key != "lag" or value is not None
        }


@dataclass(frozen=True)
class Diagnostics:
    """Figures of one row.

    Of exact laws:

    - method: how the law was found, or what was done, in words.
    - states: states that were enumerated, a count.
    - prefix_evaluations: prefixes that a search has scored, a count.
    - tolerance: total variation at which a search stops, 0 to 1.
    - total_variation_bound: how far the law is from the posterior at most, 0 to 1.

    Of weighted draws:

    - ess: effective size of all weights, in draws of equal weight.
    - ess_by_replicate: of each replicate's weights, in draws.
    - pareto_k: shape of the weights' tail, no unit; NaN where there are too few to tell.
    - impossible_draws: draws of density 0, a count.
    - largest_weight: share of all weight that one draw has, 0 to 1.
    - importance: the same figures of weights that only the evidence is estimated with.
    - residual_variance: variance of log weights, in nats squared.
    - missed_mass: share of the posterior's mass that a trained policy hardly draws, 0 to 1.

    Of replicates of particles:

    - log_evidence_by_replicate: each one's log evidence, in nats; -inf where it died.
    - log_evidence_interval: ends of a 95 % interval or of bounds, in nats. It is null in files, and
      not left out, where replicates are too few for one.
    - particles: particles a replicate, a count.
    - temperatures: steps from the start law to the posterior, a count.
    - resamplings: how often each replicate resampled, counts.
    - min_ess_fraction: least effective size after a step, as a share of the particles, 0 to 1.
    - surviving_ancestors: first particles that the last descend from, a count a replicate.
    - lineages: the same after each resampling, counts, a list a replicate.
    - sampling_seconds: time of each replicate, in seconds.

    Of proposals and chains:

    - proposals: draws of the prior that were tried, a count.
    - acceptance: share of proposals, or of each chain's moves, that was accepted, 0 to 1.
    - bound: log of the bound of density over prior, in nats.
    - fresh_starts: accepted proposals that kept nothing of a state, of all chains, a count.
    - swaps: share of exchanges between neighbouring rungs that was accepted, a pair of rungs each.
    - only_value: whether the draws are the one state that is possible.
    - coupling: what coupled pairs of chains tell.

    Of all engines:

    - score_mismatch: how far decoding and scoring differ in a text's log prior, in nats.
    - unguided: constraints that nothing guides draws to, each its text and its line.
    - others: what other versions report, as it stands in their files.
    """

    method: str | None = None
    states: int | None = None
    prefix_evaluations: int | None = None
    tolerance: float | None = None
    total_variation_bound: float | None = None
    ess: float | None = None
    ess_by_replicate: Sequence[float] | None = None
    pareto_k: float | Sequence[float] | None = None
    impossible_draws: int | None = None
    largest_weight: float | Sequence[float] | None = None
    importance: Diagnostics | None = None
    residual_variance: float | None = None
    missed_mass: float | None = None
    log_evidence_by_replicate: Sequence[float] | None = None
    log_evidence_interval: Sequence[float | None] | None = None
    particles: int | None = None
    temperatures: int | None = None
    resamplings: Sequence[int] | None = None
    min_ess_fraction: float | Sequence[float] | None = None
    surviving_ancestors: Sequence[int] | None = None
    lineages: Sequence[Sequence[int]] | None = None
    sampling_seconds: Sequence[float] | None = None
    proposals: int | None = None
    acceptance: float | Sequence[float] | None = None
    bound: float | None = None
    fresh_starts: int | None = None
    swaps: Sequence[float] | None = None
    only_value: bool | None = None
    coupling: Coupling | None = None
    score_mismatch: float | None = None
    unguided: Sequence[tuple[str, int]] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def numbers(self, name: str) -> list[float]:
        """A figure as numbers, one a replicate or chain; NaN for what is none. Empty where it is
        not reported, and not reported of the weights for the evidence, either.
        """
        value = vars(self)[name]
        if value is None:
            return [] if self.importance is None else self.importance.numbers(name)
        entries = [value] if isinstance(value, int | float) else value
        return [math.nan if entry is None else float(entry) for entry in entries]

    def document(self) -> dict[str, Any]:
        """JSON form: what is reported, by name."""
        found = {name: value for name, value in vars(self).items() if self._reports(name)}
        if self.importance is not None:
            found["importance"] = self.importance.document()
        if self.coupling is not None:
            found["coupling"] = self.coupling.document()
        return {**found, **self.others}

    def _reports(self, name: str) -> bool:
        if name == "log_evidence_interval" and self.log_evidence_by_replicate is not None:
            return True
        return name != "others" and vars(self)[name] is not None


_NAMES = tuple(item.name for item in fields(Diagnostics) if item.name != "others")


def diagnostics_of(document: Document) -> Diagnostics:
    """Diagnostics from their JSON form, whose null is a figure that is no number. Figures of names
    that are not known here are kept as they are.
    """
    found: dict[str, Any] = {
        name: math.nan if document[name] is None else document[name]
        for name in _NAMES
        if name in document
    }
    if document.get("importance") is not None:
        found["importance"] = diagnostics_of(document["importance"])
    if document.get("coupling") is not None:
        found["coupling"] = Coupling(**{"lag": None, **document["coupling"]})
    if "log_evidence_interval" in document:
        found["log_evidence_interval"] = document["log_evidence_interval"]
    others = {name: value for name, value in document.items() if name not in _NAMES}
    return Diagnostics(**found, others=others)
