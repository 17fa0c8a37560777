"""Thresholds of the checks, each named after its check, and what is common to all of them."""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["pass", "warn", "fail"]


class Levels(NamedTuple):
    """Where a check begins to warn and to fail; None: it never does."""

    warn: float | None
    fail: float | None


# Thresholds, each named after its check; docs/diagnosis.md lists them.
R_HAT = Levels(1.01, 1.1)  # above; raised to what independent chains of this length reach by chance
ESS_BULK = Levels(100, 10)  # below, a chain, of at most COUNTED_CHAINS
ESS_TAIL = Levels(100, 10)  # as for the bulk
ESS = Levels(100, 10)  # below, of all weights; fails below LEAST_SHARE of the draws, too
PARETO_K = Levels(0.7, 1)  # above
LARGEST_WEIGHT = Levels(None, 0.5)  # above
EVIDENCE_SPREAD = Levels(0.5, 2)  # above, nats: standard deviation over replicates
SURVIVING_ANCESTORS = Levels(
    10, 3
)  # below; lowered to FEW_PARTICLES of the particles where these are few
MIN_ESS_FRACTION = Levels(0.1, 0.02)  # below
ACCEPTANCE = Levels(0.02, 0)  # warns below, fails at
FRESH_STARTS = Levels(1, None)  # below, a chain, of at most COUNTED_CHAINS
DISTINCT_DRAWS = Levels(0.05, None)  # below, where acceptance is below LOW_ACCEPTANCE
LIMIT = Levels(0.2, None)  # above: share of draws that `max` cuts
SCORE_MISMATCH = Levels(0.05, 0.5)  # above, nats
COUPLING = Levels(0.05, 0.5)  # above
TOTAL_VARIATION = Levels(
    0.01, 0.25
)  # above; warns from the search's own tolerance where that is given

COVERAGE = Levels(
    0.05, 0.25
)  # above: mass that a trained policy hardly draws, by draws of the prior
GUIDANCE = Levels(
    0.1, None
)  # below: share of what is proposed that can be kept, where a constraint is not guided

# a hundred draws a chain are asked of this many chains: 400 in all, as Stan asks of its four
COUNTED_CHAINS = 4
LEAST_SHARE = 0.01
FEW_PARTICLES = Levels(0.5, 0.25)
LOW_ACCEPTANCE = 0.1
LEAST_DRAWS = 4  # a chain, to be compared with others
STUCK_DRAWS = 8  # a chain, that are one value: one of a hundred indicators may have four by chance
MOST_BEGINNINGS = 5  # first tokens a text that are followed
RARE = 0.05  # share of draws below which a beginning is not followed
