"""How much of the posterior a policy hardly draws, by draws that are not its own.

A policy that has collapsed on some texts gives them even weights, and its own draws cannot show
what they leave out. So a few draws of the prior, weighted towards the posterior, are scored under
the policy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmppl.decoding import Randomness
from lmppl.density import Floats, Target
from lmppl.engines.amortised.policy import Policy
from lmppl.engines.proposals import draw_prior
from lmppl.engines.weights import effective_sample_size

# the number of the chain whose draws of the prior these are, apart from the engine's
OTHERS = 2**31
MOST = 64  # of them
LEAST = 20  # draws of the policy for which it is worth asking
WORTH = 10.0  # independent draws that they must be worth to say anything
# N draws of the policy that hold a text N / 20 times too seldom see one in twenty of its mass once,
# or never
SELDOM = 20
RARELY = 10.0  # too seldom, whatever N is


def missed_mass(
    policy: Policy, target: Target, randomness: Randomness, log_evidence: float, count: int
) -> float | None:
    """Share of the posterior's mass on states that `count` draws of a policy hardly show, from 0 to
    1.

    log_evidence: as the policy's own draws estimate it. None where draws of the prior do not tell.
    """
    if count < LEAST or not target.latents:
        return None
    log_density, log_prior, log_policy = _scored(policy, target, randomness, min(MOST, count))
    log_weights = log_density - log_prior
    if np.isneginf(log_weights).all() or effective_sample_size(log_weights) < WORTH:
        return None
    mass = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    possible = mass > 0
    too_seldom = log_density[possible] - log_evidence - log_policy[possible] > np.log(
        max(RARELY, count / SELDOM)
    )
    return float(mass[possible][too_seldom].sum())


def _scored(
    policy: Policy, target: Target, randomness: Randomness, count: int
) -> tuple[Floats, Floats, Floats]:
    """Log density of draws of the prior, and their log probability under it and under the policy.
    (M,)
    """
    keys = [(OTHERS, i) for i in range(count)]
    blocks = [_block(policy, target, randomness, keys[i : i + target.batch_size])
              for i in range(0, count, target.batch_size)]  # fmt: skip
    density, prior, learned = zip(*blocks, strict=True)
    return np.concatenate(density), np.concatenate(prior), np.concatenate(learned)


def _block(
    policy: Policy, target: Target, randomness: Randomness, keys: Sequence[tuple[int, int]]
) -> tuple[Floats, Floats, Floats]:
    drawn = draw_prior(target, keys, randomness)
    density = target.log_density(drawn.states, drawn.known)
    return density.total, drawn.log_proposal, policy.trace(target, drawn.states).total
