"""The log reward of draws: the program's log density, softened while a policy learns.

A draw that a constraint forbids, or that never reaches its `until`, keeps its prior density times ε
for each: a constant in its place would let the many forbidden texts outweigh the few allowed ones.
ε goes down as training goes. β in [0, 1] goes from the prior at power 1 to the program: log γ_β = Σ
w log prior + β Σ factors, w = β + (1 − β) / A.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl.density import Density, Floats, State, Target, log_densities


@dataclass(frozen=True)
class Rewarded:
    """N states and all that rewards need of them, whatever β and ε are. Nats."""

    states: list[State]
    total: Floats  # (N,) log γ, -inf where forbidden
    priors: Floats  # (N,) Σ log prior of the latents to infer, at the program's powers
    level: Floats  # (N,) Σ log prior / A
    others: Floats  # (N,) Σ finite factors
    broken: Floats  # (N,) how many factors forbid the state

    def rows(self, index: Sequence[int]) -> Rewarded:
        """Some of the states."""
        states = [self.states[i] for i in index]
        arrays = (self.total, self.priors, self.level, self.others, self.broken)
        return Rewarded(states, *(values[list(index)] for values in arrays))

    def log_reward(self, beta: float, log_epsilon: float) -> Floats:
        """(N,) log γ_β, with ε in place of 0 where a factor forbids the state."""
        return (
            beta * (self.priors + self.others) + (1 - beta) * self.level + log_epsilon * self.broken
        )


def reward_of(target: Target, states: Sequence[State]) -> Rewarded:
    """Score states once."""
    return rewards_of([(target, states)])[0]


def rewards_of(asked: Sequence[tuple[Target, Sequence[State]]]) -> list[Rewarded]:
    """Score states of several targets, together."""
    return [
        _rewarded(*one, density) for one, density in zip(asked, log_densities(asked), strict=True)
    ]


def _rewarded(target: Target, states: Sequence[State], density: Density) -> Rewarded:
    priors, level, others = (np.zeros(len(states)) for _ in range(3))
    broken = np.zeros(len(states))
    inferred = {latent.name: latent for latent in target.latents}
    for name, values in density.factors.items():
        forbidden = np.isneginf(values)
        broken += forbidden
        if name not in inferred:
            others += np.where(forbidden, 0.0, values)
            continue
        finite = _scored(target, name, states, density, forbidden)
        latent = inferred[name]
        priors += finite
        level += finite / latent.total_power
    return Rewarded(list(states), density.total, priors, level, others, broken)


def _scored(
    target: Target, name: str, states: Sequence[State], density: Density, forbidden: np.ndarray
) -> Floats:
    """(N,) log prior of a latent; texts that may not end as they do are scored as they are."""
    values = density.factors[name].copy()
    rows = np.flatnonzero(forbidden).tolist()
    if rows:
        values[rows] = target.log_prior(name, [states[i] for i in rows], legal=False)
    return values


def joined(parts: Sequence[Rewarded]) -> Rewarded:
    """Several as one."""
    states = [state for part in parts for state in part.states]
    names = ("total", "priors", "level", "others", "broken")
    columns = ([vars(part)[name] for part in parts] for name in names)
    return Rewarded(states, *map(np.concatenate, columns))
