"""Checks on texts, scores and certificates, and on what draws are meant to be."""

from __future__ import annotations

import math

from lmppl.diagnosis.check import Check, above, below
from lmppl.diagnosis.found import Found
from lmppl.diagnosis.levels import (
    COUPLING,
    GUIDANCE,
    LIMIT,
    SCORE_MISMATCH,
    TOTAL_VARIATION,
    Levels,
)


def limit(found: Found) -> Check | None:
    """Whether the limit of tokens decides what texts look like."""
    if not found.maxima or not found.weights.any():
        return None
    shares = {name: _cut(found, name, limit) for name, limit in found.maxima.items()}
    name = max(shares, key=lambda key: shares[key])
    message = (
        f"the limit of {found.maxima[name]} tokens cuts {shares[name]:.0%} of the draws of "
        f"`{name}`. Raise max."
    )
    return above("limit", shares[name], LIMIT, message)


def _cut(found: Found, name: str, limit: int) -> float:
    return float(
        sum(
            w
            for draw, w in zip(found.draws, found.weights, strict=True)
            if len(draw.tokens[name]) >= limit
        )
    )


def guidance(found: Found) -> Check | None:
    """Whether enough of what is proposed meets constraints that nothing guides proposals to."""
    unguided = found.diagnostics.unguided
    if not unguided or (kept := found.kept) is None:
        return None
    lines = sorted({int(line) for _, line in unguided})
    which = f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"
    message = (
        f"nothing guides draws to what {which} of the program asks for: {kept:.1%} of what was "
        f"proposed could be kept. "
        "Say it in the prompt as well, write it as `matches` or `in_grammar`, or ask for more "
        "draws."
    )
    return below("guidance", kept, GUIDANCE, message)


def score_mismatch(found: Found) -> Check | None:
    """Whether decoding and scoring give a text the same log probability."""
    if not (values := found.numbers("score_mismatch")):
        return None
    largest = max(math.inf if math.isnan(value) else value for value in values)
    message = (
        f"decoding and scoring differ by up to {largest:.3f} nats in the log prior of a text. "
        "Run the model in float32, or with --batch-size 1, and distrust the weights until they "
        "agree."
    )
    return above("score_mismatch", largest, SCORE_MISMATCH, message)


def total_variation(found: Found) -> Check | None:
    """Whether exact search has found nearly all mass."""
    if not (bound := found.numbers("total_variation_bound")):
        return None
    tolerance = (found.numbers("tolerance") or [TOTAL_VARIATION.warn])[0]
    message = (
        f"the search stopped at a total variation bound of {bound[0]:.3f}. "
        "Allow more with -o max_evaluations=N, or use another engine."
    )
    return above("total_variation", bound[0], Levels(tolerance, TOTAL_VARIATION.fail), message)


def coupling(found: Found) -> Check | None:
    """Whether coupled pairs of chains, where they were run, met soon enough."""
    coupling = found.diagnostics.coupling
    if coupling is None:
        return None
    bound = coupling.total_variation_after_warmup
    if bound is None:
        apart = sum(time is None for time in coupling.meeting_times)
        message = (
            f"{apart} of {len(coupling.meeting_times)} coupled pairs never met. Run "
            f"longer, or with more restarts."
        )
        return Check("coupling", "fail", None, COUPLING.fail, message)
    message = (
        f"after warmup the chains may be {min(bound, 1):.2f} in total variation from the "
        f"posterior, by coupled pairs. "
        "Raise --num-warmup."
    )
    return above("coupling", bound, COUPLING, message)


def posterior_draws(found: Found) -> Check | None:
    """Whether the draws are meant to be the posterior's."""
    if found.traits.caveat is None:
        return None
    return Check("posterior_draws", "warn", None, None, found.traits.caveat)
