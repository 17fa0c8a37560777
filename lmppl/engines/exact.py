"""Exact inference: enumeration of small finite supports, and best-first search with a certificate.

Enumeration lists every state and scores it. Search goes over prefixes of one text latent (search.py says how);
what it leaves unexplored bounds the total variation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir, run_findings
from lmppl.density import Density, joined
from lmppl.engines.contract import Engine, Outcome, Progress, Sample, Settings
from lmppl.engines.search import BRANCHES, Search, cannot_search, enumerate_states
from lmppl.engines.weights import require_support
from lmppl.errors import LmpplError
from lmppl.randomness import Randomness
from lmppl.target import Floats, State, Target


@dataclass(frozen=True)
class Options:
    """Options of `exact`."""

    max_states: int = 200_000  # largest support that is enumerated
    tolerance: float = 0.01  # search stops when the total variation is certified to be below this
    max_evaluations: int = 20_000  # prefixes that the search may evaluate
    branches: int = BRANCHES  # children kept a prefix; the mass of the others stays in the bound


def cannot(program: ir.Program) -> str | None:
    """Static reasons only: whether a support is small enough depends on the model's vocabulary."""
    return None


def run(target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress) -> Outcome:
    """The whole posterior, and chains × num_samples draws from it. Raises LmpplError where it is out of reach."""
    if support_size(target) <= options.max_states:
        states, density = _enumerate(target, progress)
        residual = -np.inf
        diagnostics: dict = {"method": "enumeration", "states": len(states)}
    else:
        states, density, residual, diagnostics = _search(target, options, progress)
    return _outcome(target, settings, options, randomness, states, density, residual, diagnostics)


# --- enumeration ----------------------------------------------------------------------------------


def support_size(target: Target) -> float:
    """Number of states, illegal ones included: an upper bound, cheap to compute."""
    size = 1.0
    for latent in target.latents:
        if isinstance(latent, ir.ChoiceLatent):
            size *= len(latent.options)
        else:
            vocabulary = float(target.text_latent(latent.name).terms[0].model.vocabulary_size)
            size *= sum(vocabulary**length for length in range(latent.maximum + 1)) if latent.maximum < 60 else np.inf
    return size


def _enumerate(target: Target, progress: Progress) -> tuple[list[State], Density]:
    states = list(enumerate_states(target, target.latents, {}))
    if not states:
        latent = next(latent for latent in target.latents if isinstance(latent, ir.TextLatent))
        detail = f"`until {latent.until!r}` was not reached within {latent.maximum} tokens"
        finding = run_findings.no_support(0, latent.name, 1.0, target.program.source, latent.span, detail)
        raise LmpplError(finding)
    block = 16 * target.batch_size
    parts = []
    for start in range(0, len(states), block):
        parts.append(target.log_density(states[start : start + block]))
        progress("scoring states", min(start + block, len(states)), len(states))
    density = joined(parts)
    require_support(target, states, density)
    return states, density


# --- certified best-first search ------------------------------------------------------------------


def _search(target: Target, options: Options, progress: Progress) -> tuple[list[State], Density, float, dict]:
    """States found, their densities, the log of an upper bound on all other mass, and diagnostics."""
    if reason := cannot_search(target):
        raise LmpplError(run_findings.engine_cannot("exact", reason, target.program.source))
    search = Search(target, options.branches)
    while search.heap and search.evaluations < options.max_evaluations:
        search.step()
        progress("searching prefixes", search.evaluations, options.max_evaluations)
        if search.total_variation() <= options.tolerance:
            break
    if not np.isfinite(search.found):
        reason = f"search found no complete text within {search.evaluations} prefixes; the law is too spread out"
        help = "lower `max` or raise the power, or use another engine"
        raise LmpplError(run_findings.engine_cannot("exact", reason, target.program.source, None, help))
    diagnostics = {
        "method": "best-first search",
        "prefix_evaluations": search.evaluations,
        "tolerance": options.tolerance,
    }
    return search.states, search.density(), search.residual(), diagnostics


# --- results --------------------------------------------------------------------------------------


def _outcome(
    target: Target,
    settings: Settings,
    options: Options,
    randomness: Randomness,
    states: Sequence[State],
    density: Density,
    residual: float,
    diagnostics: dict,
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
        {**diagnostics, "total_variation_bound": total_variation, "log_evidence_interval": [found, upper]},
        prior=_prior(target, states, density),
    )


def _prior(target: Target, states: Sequence[State], density: Density) -> dict[str, dict[str, float]]:
    """Probabilities of every choice's options before any evidence, where all latents are choices."""
    choices = [latent for latent in target.latents if isinstance(latent, ir.ChoiceLatent)]
    if len(choices) < len(target.latents):
        return {}
    mass = np.exp(np.sum([density.factors[choice.name] for choice in choices], axis=0))
    return {choice.name: _marginal(choice, states, mass) for choice in choices}


def _marginal(choice: ir.ChoiceLatent, states: Sequence[State], mass: Floats) -> dict[str, float]:
    numbers = np.array([state[choice.name] for state in states], dtype=np.int64)
    shares = np.bincount(numbers, mass, minlength=len(choice.options))
    return dict(zip(choice.options, shares.tolist(), strict=True))


def _draws(
    settings: Settings, randomness: Randomness, states: Sequence[State], density: Density, probabilities: Floats
) -> list[Sample]:
    cumulative = probabilities.cumsum()
    samples = []
    for chain in range(settings.chains):
        for draw in range(settings.num_samples):
            level = randomness.uniforms(chain, draw, 0, 1)[0] * cumulative[-1]
            i = int(np.searchsorted(cumulative, level, side="right"))
            factors = {name: float(values[i]) for name, values in density.factors.items()}
            samples.append(Sample(chain, draw, states[i], float(density.total[i]), factors))
    return samples


ENGINE = Engine("exact", "the whole posterior, by enumeration or certified search", Options, cannot, run)
