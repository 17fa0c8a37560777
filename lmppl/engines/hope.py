"""Whether a search has a chance, told early: from a few draws of the posterior and what the search
takes a prefix.

Where a share m of the posterior's mass lies in texts whose last prefix, all but the closing token,
has a bound on its mass of at most β, a search that leaves less than a share t unexplored has
evaluated at least (m − t) Z / β prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmppl.decoding import Randomness
from lmppl.density import Floats, Target
from lmppl.engines.proposals import Drawn, draw_prior
from lmppl.engines.weights import effective_sample_size

DRAWS = 64
HOPE = 2**31  # draws are numbered from here, apart from the posterior's
RARE = 0.2  # share of the mass below which a few draws do not tell
RELIABLE = 4  # effective draws below which nothing is said


@dataclass(frozen=True)
class Outlook:
    """Prefixes that are to be evaluated at least, and why."""

    prefixes: float
    share: float  # of the posterior's mass, in texts below prefixes of …
    mass: float  # … at most this each


def outlook(target: Target, name: str, tolerance: float, randomness: Randomness) -> Outlook | None:
    """What a search for this text of the target has before it; None where too few draws are
    possible to tell.
    """
    drawn = draw_prior(target, [(HOPE, draw) for draw in range(DRAWS)], randomness)
    density = target.log_density(drawn.states, drawn.known)
    log_weights = density.total - drawn.log_proposal
    if np.isneginf(log_weights).all() or effective_sample_size(log_weights) < RELIABLE:
        return None
    log_evidence = float(np.logaddexp.reduce(log_weights) - np.log(DRAWS))
    shares = _last_bounds(target, name, drawn) - log_evidence
    order = np.argsort(-shares)
    weights = np.exp(log_weights[order] - np.logaddexp.reduce(log_weights))
    # mass of the texts whose prefix has no more than each one's
    below = 1 - weights.cumsum() + weights
    needed = np.where(below >= RARE, (below - tolerance) / np.exp(shares[order]), 0.0)
    best = int(needed.argmax())
    return Outlook(float(needed[best]), float(below[best]), float(np.exp(shares[order[best]])))


def _last_bounds(target: Target, name: str, drawn: Drawn) -> Floats:
    """(N,) log of the bound that a search has on the mass below a text without its closing
    token.
    """
    return (
        np.array([float(row[:-1].sum()) for row in drawn.rollouts[name].log_prior])
        + target.factor_upper_bound
    )
