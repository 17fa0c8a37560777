"""One verdict on the draws of any engine: checks with named thresholds, each with what to do where
it fails.

It reads draws and an engine's `Diagnostics`, nothing else: no model, no file, no engine's
code. A check whose numbers are missing does not apply and is left out. It cannot see what no draw
shows; chains that agree must therefore have jumped now and then (`fresh_starts`), which chains that
all sit in one mode seldom do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lmppl.diagnosis import chains, texts, weights
from lmppl.diagnosis.check import Check, worst
from lmppl.diagnosis.diagnostics import Diagnostics
from lmppl.diagnosis.draws import Draw
from lmppl.diagnosis.found import Found
from lmppl.diagnosis.levels import Status
from lmppl.diagnosis.traits import Traits

__all__ = ["CHECKS", "Check", "Diagnosis", "Status", "diagnose", "worst"]


@dataclass(frozen=True)
class Diagnosis:
    """All checks that apply, and the worst status of them."""

    verdict: Status
    checks: tuple[Check, ...]


def diagnose(
    draws: Sequence[Draw],
    diagnostics: Diagnostics,
    traits: Traits = Traits(),  # noqa: B008  a frozen value
    maxima: Mapping[str, int] | None = None,
    choices: Collection[str] = (),
) -> Diagnosis:
    """Check what an engine found for one row.

    draws: of the row, with weights in nats; traits: what the engine says of itself.
    maxima: the limit, in tokens, of every text that nothing but its limit or the end token ends.
    choices: latents that take one of few options, which are followed one by one.
    """
    ordered = sorted(draws, key=lambda draw: draw.chain)
    found = Found(ordered, diagnostics, traits, maxima or {}, choices)
    checks = tuple(check for make in CHECKS if (check := make(found)) is not None)
    return Diagnosis(worst(check.status for check in checks), checks)


CHECKS = (
    texts.posterior_draws,
    chains.r_hat,
    chains.ess_bulk,
    chains.ess_tail,
    chains.acceptance,
    chains.fresh_starts,
    chains.distinct_draws,
    weights.ess,
    weights.pareto_k,
    weights.largest_weight,
    weights.coverage,
    weights.evidence_spread,
    weights.surviving_ancestors,
    weights.min_ess_fraction,
    texts.guidance,
    texts.limit,
    texts.score_mismatch,
    texts.total_variation,
    texts.coupling,
)
