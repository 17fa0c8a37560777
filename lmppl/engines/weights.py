"""Importance weights: evidence, effective sample size, Pareto k̂; and the finding where all are
zero.
"""

from __future__ import annotations

import math

import numpy as np

from lmppl.density import Density, Floats, State, Target, cut_away
from lmppl.diagnosis import Diagnostics
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings

ROUNDING = 1e-5  # of the largest weight, or nats: what float32 may take or add
LEAST = 5  # weights that a shape is fitted to
# of them: where fewer differ, few texts make up the tail, and have been drawn many times
DIFFERENT = 1 / 3
# of all weight: where the largest have less than this beyond their least, they are no tail
TAIL = 0.02


def log_mean_weight(log_weights: Floats) -> tuple[float, float]:
    """log of the mean weight and the standard error of that log (delta method)."""
    total = np.logaddexp.reduce(log_weights) - np.log(len(log_weights))
    relative = np.exp(log_weights - total)
    return float(total), float(relative.std() / np.sqrt(len(relative)))


def effective_sample_size(log_weights: Floats) -> float:
    """(Σ w)² / Σ w²."""
    return float(
        np.exp(2 * np.logaddexp.reduce(log_weights) - np.logaddexp.reduce(2 * log_weights))
    )


def effective_share(log_weights: Floats) -> float:
    """The effective sample size over the number of weights; 0 where all are zero."""
    return (
        0.0
        if np.isneginf(log_weights).all()
        else effective_sample_size(log_weights) / len(log_weights)
    )


def pareto_shape(log_weights: Floats) -> float | None:
    """k̂ of the largest weights (Vehtari et al. 2024, Pareto smoothed importance sampling): those
    above the largest of the others. Weights of one text, drawn often, may be equal to that, and are
    then no part of the tail.

    None for fewer than 25, and where the largest have next to nothing beyond the others, or take a
    few values, each often: they have some shape, which says nothing of the mean.
    """
    import torch
    from pyro.ops.stats import fit_generalized_pareto

    finite = np.sort(log_weights[np.isfinite(log_weights)])
    num_tail = min(len(finite) // 5, int(3 * np.sqrt(len(log_weights))))
    if len(finite) < 25 or num_tail < LEAST:
        return None
    least, tail = finite[-num_tail - 1], finite[-num_tail:]
    tail = tail[tail > least + ROUNDING]
    if len(tail) < LEAST or 1 + int((np.diff(tail) > ROUNDING).sum()) < DIFFERENT * len(tail):
        return None
    excess = np.exp(tail - finite[-1]) - np.exp(least - finite[-1])
    if excess[-1] < ROUNDING or excess.sum() < TAIL * np.exp(finite - finite[-1]).sum():
        return None
    return float(fit_generalized_pareto(torch.as_tensor(excess))[0])


def weight_diagnostics(log_weights: Floats) -> Diagnostics:
    """What to report of (N,) log importance weights, in nats."""
    shape = pareto_shape(log_weights)
    return Diagnostics(
        ess=effective_sample_size(log_weights),
        pareto_k=math.nan if shape is None else shape,
        impossible_draws=int((log_weights == -np.inf).sum()),
        largest_weight=float(np.exp(log_weights.max() - np.logaddexp.reduce(log_weights))),
    )


def require_support(target: Target, states: list[State], density: Density) -> None:
    """Raise the finding that names the factor at fault where every state is impossible."""
    if np.isfinite(density.total).any():
        return
    shares = {name: float((values == -np.inf).mean()) for name, values in density.factors.items()}
    name = max(shares, key=lambda key: shares[key])
    span, detail = _blame(target, name, states)
    first = int(np.flatnonzero(density.factors[name] == -np.inf)[0])
    detail = cut_away(target, name, states[first]) or detail
    source = target.program.source
    raise LmpplError(run_findings.no_support(len(states), name, shares[name], source, span, detail))


def _blame(target: Target, name: str, states: list[State]):
    program = target.program
    for latent in program.texts:
        if latent.name == name:
            limit = f"within {latent.maximum} tokens"
            return latent.span, f"`until {latent.until!r}` was not reached {limit}"
    part = next(part for part in (*program.latents, *program.factors) if part.name == name)
    shown = "; ".join(
        ", ".join(f"{key} = {target.text(key, value)!r:.60}" for key, value in state.items())
        for state in states[:2]
    )
    return part.span, f"for example {shown}"
