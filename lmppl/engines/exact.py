"""Exact inference: enumeration of small finite supports, and best-first search with a certificate.

Enumeration lists every state, or every one that masks leave possible, and scores it. Search goes
over prefixes of one text latent (search.py says how); what it leaves unexplored bounds the total
variation. What is certain to take too long is refused early, with figures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import Density, Floats, Repeated, State, Target, joined
from lmppl.diagnosis import Diagnostics
from lmppl.engines.contract import Engine, Outcome, Sample, Settings
from lmppl.engines.finite import LISTED, finite_states
from lmppl.engines.hope import outlook
from lmppl.engines.room import require_room
from lmppl.engines.search import BRANCHES, Search, cannot_search, enumerate_states
from lmppl.engines.weights import require_support
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.screen import ABSENT, Progress
from lmppl.settings import Count, PartShare, Seconds, Whole

TRIAL, TRIAL_SECONDS = 256, 4.0  # prefixes, or seconds, after which a search must have a chance
SOON = 20.0  # seconds within which a search may end as it likes


@dataclass(frozen=True)
class Options:
    """Options of `exact`."""

    max_states: Whole = 200_000  # largest support that is enumerated
    # search stops when the total variation is certified to be below this
    tolerance: PartShare = 0.01
    max_evaluations: Whole = 20_000  # prefixes that the search may evaluate
    branches: Count = BRANCHES  # children kept a prefix; the mass of the others stays in the bound
    limit: Seconds = 300.0  # seconds: what is certain to take longer is refused


def cannot(program: ir.Program) -> str | None:
    """Static reasons only: whether a support is small enough depends on the model's vocabulary."""
    return None


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """The whole posterior, and chains × num_samples draws from it. Raises LmpplError where it is
    out of reach.
    """
    listed = listed_states(target, options)
    if listed is not None:
        states, density = _enumerate(target, listed, options, progress)
        residual, figures = -np.inf, {"method": "enumeration", "states": len(states)}
    else:
        states, density, residual, figures = _search(target, options, randomness, progress)
    return _outcome(target, settings, randomness, states, density, residual, figures)


# --- enumeration ----------------------------------------------------------------------------------


def support_size(target: Target) -> float:
    """Number of states, illegal ones included: an upper bound, cheap to compute."""
    return math.prod(target.latent(latent.name).count for latent in target.latents)


def listed_states(target: Target, options: Options) -> list[State] | None:
    """All states where they are to be enumerated; None where they are too many."""
    if (size := support_size(target)) <= options.max_states:
        require_room("exact", int(size))
        return list(enumerate_states(target, target.latents, {}))
    most = min(LISTED, options.max_states) if cannot_search(target) is None else options.max_states
    return finite_states(target, most)


def _enumerate(
    target: Target, states: list[State], options: Options, progress: Progress
) -> tuple[list[State], Density]:
    if not states:
        latent = target.texts[0]
        detail = f"`until {latent.until!r}` was not reached within {latent.maximum} tokens"
        finding = run_findings.no_support(
            0, latent.name, 1.0, target.program.source, latent.span, detail
        )
        raise LmpplError(finding)
    block = 16 * target.batch_size
    # a small block first shows how long it takes
    starts = [0, target.batch_size] if len(states) > block else [0]
    starts += range(starts[-1] + block, len(states), block)
    parts = []
    progress("scoring states", 0, len(states))
    began = time.perf_counter()
    for start, end in zip(starts, [*starts[1:], len(states)], strict=True):
        parts.append(target.log_density(states[start:end]))
        progress("scoring states", end, len(states))
        _require_time(target, options, len(states), end, time.perf_counter() - began)
    density = joined(parts)
    require_support(target, states, density)
    return states, density


def _require_time(target: Target, options: Options, states: int, done: int, seconds: float) -> None:
    """Raise LmpplError where scoring all states would take longer than the limit."""
    expected = seconds * states / done
    if done < states and expected > options.limit:
        reason = (
            f"scoring its {states:,} states would take about {expected:,.0f} s: {done:,} "
            f"took {seconds:.1f} s"
        )
        help = f"use another engine, or allow it with -o limit={2 * expected:.0f}"
        raise LmpplError(
            run_findings.engine_cannot("exact", reason, target.program.source, None, help)
        )


# --- certified best-first search ------------------------------------------------------------------


def _search(
    target: Target, options: Options, randomness: Randomness, progress: Progress
) -> tuple[list[State], Density, float, dict[str, Any]]:
    """States found, their densities, the log of an upper bound on all other mass, and figures of
    the search.
    """
    if reason := cannot_search(target):
        raise LmpplError(run_findings.engine_cannot("exact", reason, target.program.source))
    search = Search(target, options.branches, masked=True)
    began, asked = time.perf_counter(), False
    while search.heap and search.evaluations < options.max_evaluations:
        search.step()
        progress("searching prefixes", search.evaluations, options.max_evaluations)
        if search.total_variation() <= options.tolerance:
            break
        seconds = time.perf_counter() - began
        if not asked and (search.evaluations >= TRIAL or seconds > TRIAL_SECONDS):
            asked = True
            _require_hope(target, search, options, randomness, seconds)
    if not np.isfinite(search.found):
        reason = (
            f"search found no complete text within {search.evaluations} prefixes; the law "
            f"is too spread out"
        )
        help = "lower `max` or raise the power, or use another engine"
        raise LmpplError(
            run_findings.engine_cannot("exact", reason, target.program.source, None, help)
        )
    figures = {
        "method": "best-first search",
        "prefix_evaluations": search.evaluations,
        "tolerance": options.tolerance,
    }
    return search.states, search.density(), search.residual(), figures


def _require_hope(
    target: Target, search: Search, options: Options, randomness: Randomness, seconds: float
) -> None:
    """Raise LmpplError where it is certain that the search takes too long, or that its limit of
    prefixes is too low.

    A search that is over soon is let go on: it tells an interval.
    """
    ahead = outlook(target, search.name, options.tolerance, randomness)
    rate = seconds / max(1, search.evaluations)
    if ahead is None or ahead.prefixes <= search.evaluations:
        return
    longest = min(ahead.prefixes, options.max_evaluations) * rate
    enough = ahead.prefixes <= options.max_evaluations and ahead.prefixes * rate <= options.limit
    if enough or longest <= SOON:
        return
    reason = (
        f"after {search.evaluations:,} prefixes in {seconds:.1f} s its search has a total "
        f"variation bound of "
        f"{search.total_variation():.3f}; {ahead.share:.0%} of the mass lies under prefixes of "
        f"at most "
        f"{ahead.mass:.1g} each, so "
        f"{ahead.prefixes:,.0f} are needed at least, about {ahead.prefixes * rate:,.0f} s"
    )
    help = (
        "lower `max` or raise the power, or use another engine; -o limit= and -o "
        "max_evaluations= allow more"
    )
    raise LmpplError(run_findings.engine_cannot("exact", reason, target.program.source, None, help))


# --- results --------------------------------------------------------------------------------------


def _outcome(
    target: Target,
    settings: Settings,
    randomness: Randomness,
    states: Sequence[State],
    density: Density,
    residual: float,
    figures: Mapping[str, Any],
) -> Outcome:
    found = float(np.logaddexp.reduce(density.total))
    probabilities = np.exp(density.total - found)
    total_variation = float(np.exp(residual - np.logaddexp(residual, found)))
    upper = float(np.logaddexp(found, residual))
    order = np.argsort(-probabilities, kind="stable")
    return Outcome(
        _draws(settings, randomness, states, density, probabilities),
        found,
        upper - found,
        [(states[i], float(probabilities[i])) for i in order if probabilities[i] > 0],
        diagnostics=Diagnostics(
            **figures,
            total_variation_bound=total_variation,
            log_evidence_interval=[found, upper],
        ),
        prior=_prior(target, states, density),
    )


def _prior(
    target: Target, states: Sequence[State], density: Density
) -> dict[str, dict[str, float]]:
    """Probabilities of every choice's options before any evidence, where all latents are
    choices.
    """
    choices = target.choices
    if len(choices) < len(target.latents) or any(choice.arm_of for choice in choices):
        return {}
    mass = np.exp(np.sum([density.factors[choice.name] for choice in choices], axis=0))
    return {choice.name: _marginal(choice, states, mass) for choice in choices}


def _marginal(choice: ir.ChoiceLatent, states: Sequence[State], mass: Floats) -> dict[str, float]:
    numbers = np.array([state[choice.name] for state in states], dtype=np.int64)
    shares = np.bincount(numbers, mass, minlength=len(choice.options))
    options = [*choice.options, ABSENT][: len(shares)]  # the last where it is not always there
    return dict(zip(options, shares.tolist(), strict=True))


def _draws(
    settings: Settings,
    randomness: Randomness,
    states: Sequence[State],
    density: Density,
    probabilities: Floats,
) -> Repeated[Sample]:
    """Draws of the law, which are drawn when somebody reads them."""
    chains, draws = settings.chains, settings.num_samples
    columns = {name: values.tolist() for name, values in density.factors.items()}
    kinds = [
        Sample(0, 0, states[i], total, {name: values[i] for name, values in columns.items()})
        for i, total in enumerate(density.total.tolist())
    ]

    def taken() -> NDArray[np.int64]:
        levels = np.concatenate(
            [randomness.uniforms(chain, 0, 0, draws) for chain in range(chains)]
        )
        cumulative = probabilities.cumsum()
        return np.searchsorted(cumulative, levels * cumulative[-1], side="right")

    return Repeated(kinds, (chains, draws), taken)


ENGINE = Engine(
    "exact", "the whole posterior, by enumeration or certified search", Options, cannot, run
)
