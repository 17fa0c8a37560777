"""Checks on weights and on replicates of particles: what weighted draws are worth."""

from __future__ import annotations

import math

import numpy as np

from lmppl.diagnosis.check import Check, above, below, judged
from lmppl.diagnosis.found import Found
from lmppl.diagnosis.levels import (
    COVERAGE,
    ESS,
    EVIDENCE_SPREAD,
    FEW_PARTICLES,
    LARGEST_WEIGHT,
    LEAST_SHARE,
    MIN_ESS_FRACTION,
    PARETO_K,
    SURVIVING_ANCESTORS,
    Levels,
)

MORE = "Ask for more --num-samples"
PROPOSAL = (
    "Give its --out folder to another engine as -o proposal=, which adds a share of the prior."
)


def ess(found: Found) -> Check | None:
    """Whether weighted draws are worth enough."""
    if (size := found.weight_size) is None:
        return None
    fail = max(ESS.fail or 0, LEAST_SHARE * found.num_weights)
    message = (
        f"{found.num_weights} weighted draws are worth {size:.1f} draws of equal weight. "
        f"{found.or_try(MORE, found.instead.few)}"
    )
    return below("ess", size, Levels(max(ESS.warn or 0, fail), fail), message)


def pareto_k(found: Found) -> Check | None:
    """Whether the weights have a variance that a mean can be trusted with."""
    if not (shapes := found.numbers("pareto_k")) or np.isnan(shapes).all():
        return None
    shape = float(np.nanmax(shapes))
    nearer = found.traits.nearer
    advice = (
        f"{MORE}, or {nearer}" if nearer is not None else found.or_try(MORE, found.instead.heavy)
    )
    message = (
        f"Pareto k of the weights is {shape:.2f}: the evidence and its error are not to be "
        f"believed. "
        f"{advice}"
    )
    return above("pareto_k", shape, PARETO_K, message)


def largest_weight(found: Found) -> Check | None:
    """Whether one draw is the whole result."""
    if not (shares := found.numbers("largest_weight")):
        return None
    share = float(np.max(shares))
    advice = found.or_try(MORE, found.instead.few)
    message = f"one draw carries {share:.0%} of the weight. {advice}"
    return above("largest_weight", share, LARGEST_WEIGHT, message)


def coverage(found: Found) -> Check | None:
    """Whether a trained policy draws what the posterior holds, told by draws that are not its
    own.
    """
    if not (missed := found.numbers("missed_mass")) or math.isnan(missed[0]):
        return None
    nearer = found.traits.nearer
    train_on = "" if nearer is None else f"{nearer[:1].upper()}{nearer[1:]} "
    message = (
        f"the policy hardly draws texts that hold {missed[0]:.0%} of the mass, by draws of the "
        f"prior: draws and "
        f"evidence leave them out, and no weight shows it. {train_on}{PROPOSAL}"
    )
    return above("coverage", missed[0], COVERAGE, message)


def evidence_spread(found: Found) -> Check | None:
    """Whether replicates agree about the evidence."""
    if not (by_replicate := found.numbers("log_evidence_by_replicate")):
        return None
    values = np.array(by_replicate)
    dead = int((~np.isfinite(values)).sum())
    advice = "Ask for more particles, or for more replicates with --chains."
    if dead:
        message = (
            f"{dead} of {len(values)} replicates died: all their particles became "
            f"impossible. {advice}"
        )
        return judged("evidence_spread", "fail", math.inf, EVIDENCE_SPREAD.fail, message)
    if len(values) < 2:
        return None
    spread = float(values.std(ddof=1))
    message = (
        f"log evidence differs between replicates by {spread:.2f} nats (standard "
        f"deviation). {advice}"
    )
    return above("evidence_spread", spread, EVIDENCE_SPREAD, message)


def surviving_ancestors(found: Found) -> Check | None:
    """Whether the last particles descend from more than a few of the first."""
    if not (counts := found.numbers("surviving_ancestors")):
        return None
    least = float(np.nanmin(counts)) if not np.isnan(counts).all() else 0.0
    particles = min(found.numbers("particles"), default=math.inf)
    pairs = zip(SURVIVING_ANCESTORS, FEW_PARTICLES, strict=True)
    levels = Levels(
        *(
            min(level, share * particles)
            for level, share in pairs
            if level is not None and share is not None
        )
    )
    message = (
        f"all particles of a replicate descend from {least:.0f} of its first ones. Ask for "
        f"more particles."
    )
    return below("surviving_ancestors", least, levels, message)


def min_ess_fraction(found: Found) -> Check | None:
    """Whether a step lost nearly all particles at once."""
    if not (shares := found.numbers("min_ess_fraction")) or np.isnan(shares).all():
        return None
    least = float(np.nanmin(shares))
    message = (
        f"one step left {least:.1%} of the particles with weight: few steps decide the result. "
        "Ask for more particles, or let factors speak earlier in the text."
    )
    return below("min_ess_fraction", least, MIN_ESS_FRACTION, message)
