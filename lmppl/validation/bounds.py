"""Two-sided bounds on the log evidence, and on how far a proposal is from the posterior, from exact
posterior draws.

With K fresh draws of q, log Ẑ = log mean γ / q lies below log Z on average (Jensen); with one of
the K an exact posterior draw in their place, above (Grosse, Ghahramani and Adams 2015). Both reach
log Z as K grows. The gap is the symmetric divergence of the two ways to fill K places, so it bounds
that of the posterior from the law of one draw resampled from K by weight. q is what `importance`
draws from: temperatures, or a trained sampler mixed with them. All in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import Floats, State, Target
from lmppl.engines import (
    Defended,
    draw_start,
    log_mean_weight,
    proposal_of,
    trace_start,
)
from lmppl.run import Request, Session, open_session
from lmppl.screen import Progress, quiet

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.lm import LanguageModel
    from lmppl.validation.simulate import Simulation

PROPOSER = "importance"  # the engine whose draws are the fresh ones


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, in nats; no error where there is one value only or the mean is
    infinite.
    """

    mean: float
    error: float | None


@dataclass(frozen=True)
class Replicate:
    """Estimates of one target's log evidence. Averages of the first and the third lie below it, of
    the others above.
    """

    lower: float  # from K fresh draws
    upper: float  # from K − 1 fresh draws and the pinned one
    # K = 1: mean log weight of fresh draws; -inf where one of them is impossible
    lower_of_one: float
    upper_of_one: float  # K = 1: log weight of the pinned draw


@dataclass(frozen=True)
class Bounds:
    """What replicates bound. A divergence's two estimates are a lower and an upper bound of it."""

    lower: Estimate
    upper: Estimate
    gap: Estimate
    proposal_from_posterior: tuple[Estimate, Estimate]  # KL(q‖π): large where q wastes draws
    posterior_from_proposal: tuple[Estimate, Estimate]  # KL(π‖q): large where q misses modes
    simulations: int  # groups of replicates, one a target
    replicates: int  # a group
    num_samples: int  # K

    def document(self) -> dict[str, Any]:
        """JSON form; what is infinite or unknown is null."""
        return {field.name: _document(getattr(self, field.name)) for field in fields(self)}


def replicate(
    target: Target,
    pinned: State,
    num_samples: int,
    randomness: Randomness,
    *,
    chain: int = 0,
    temperatures: Sequence[float] | None = None,
    proposal: Defended | None = None,
) -> Replicate:
    """One pair of bounds with K = num_samples. pinned: an exact draw from the target's posterior.

    chain keys the fresh draws; temperatures: of q, None for each latent's ladder; proposal: what q
    is mixed with.
    """
    q = {"temperatures": temperatures, "proposal": proposal}
    drawn = drawn_log_weights(target, num_samples, randomness, chain=chain, **q)
    own = float(state_log_weights(target, [pinned], **q)[0])
    together = np.append(drawn[:-1], own)
    return Replicate(_log_mean(drawn), _log_mean(together), float(drawn.mean()), own)


def drawn_log_weights(
    target: Target,
    count: int,
    randomness: Randomness,
    *,
    chain: int = 0,
    temperatures: Sequence[float] | None = None,
    proposal: Defended | None = None,
) -> Floats:
    """(count,) log γ / q of fresh draws from q."""
    blocks = []
    for start in range(0, count, target.batch_size):
        keys = [(chain, draw) for draw in range(start, min(start + target.batch_size, count))]
        drawn = draw_start(target, keys, randomness, temperatures, proposal)
        blocks.append(target.log_density(drawn.states, drawn.known).total - drawn.log_proposal)
    return np.concatenate(blocks)


def state_log_weights(
    target: Target,
    states: Sequence[State],
    temperatures: Sequence[float] | None = None,
    proposal: Defended | None = None,
) -> Floats:
    """(N,) log γ / q of states that q did not draw, scored by the code that draws."""
    traced = trace_start(target, states, temperatures, proposal)
    return target.log_density(states, traced.known).total - traced.log_proposal


def bounds_of(groups: Sequence[Sequence[Replicate]], num_samples: int) -> Bounds:
    """Means over groups of replicates, one group a target; errors are those of independent groups.

    One group alone has the error of its replicates, which does not count the chance of a pinned
    draw they share.
    """
    rows = [[one] for one in groups[0]] if len(groups) == 1 else groups
    lower, upper, lower_of_one, upper_of_one = (
        _means(rows, field.name) for field in fields(Replicate)
    )
    wasted = [estimate(proposal_divergence(lower_of_one, evidence)) for evidence in (lower, upper)]
    missed = [estimate(posterior_divergence(upper_of_one, evidence)) for evidence in (upper, lower)]
    return Bounds(
        estimate(lower),
        estimate(upper),
        estimate(_difference(upper, lower)),
        (wasted[0], wasted[1]),
        (missed[0], missed[1]),
        len(groups),
        len(groups[0]),
        num_samples,
    )


def proposal_divergence(log_weights: Floats, log_evidence: Floats | float) -> Floats:
    """Terms of KL(q‖π) = E_q[log q − γ] + log Z. log_weights: γ − log q of draws from q, of any
    engine. (N,)
    """
    return _difference(np.broadcast_to(log_evidence, log_weights.shape), log_weights)


def posterior_divergence(log_weights: Floats, log_evidence: Floats | float) -> Floats:
    """Terms of KL(π‖q) = E_π[γ − log q] − log Z. log_weights: γ − log q of exact posterior draws.
    (N,)
    """
    return _difference(log_weights, np.broadcast_to(log_evidence, log_weights.shape))


def estimate(values: Floats) -> Estimate:
    """Mean of (N,) independent values."""
    mean = float(np.mean(values))
    known = len(values) > 1 and np.isfinite(mean)
    return Estimate(mean, float(np.std(values, ddof=1) / np.sqrt(len(values))) if known else None)


def certify(
    program: ir.Program,
    rows: Sequence[Row],
    models: Mapping[str, LanguageModel],
    request: Request,
    simulations: int = 20,
    progress: Progress = quiet,
    most_attempts: int | None = None,
) -> Bounds:
    """Bounds on data that the program simulates; rows lend givens and lengths of texts, in turn.

    Each simulation is a target with an exact posterior draw. The request's engine is `importance`,
    whose chains are replicates and whose num_samples is K. most_attempts: at a prior draw that
    meets the constraints. Raises LmpplError where the program cannot be simulated.
    """
    from lmppl.validation.simulate import MOST_ATTEMPTS, simulators_of

    request = replace(request, engine=PROPOSER)
    session = open_session(program, rows, models, request, progress)
    simulators = simulators_of(session, most_attempts or MOST_ATTEMPTS)
    groups = []
    with session.proposals() as lend:
        for number in range(simulations):
            simulation = simulators[number % len(simulators)].draw(
                Randomness(request.seed, 2 * number)
            )
            lend(simulation.target)
            groups.append(_group(session, simulation, Randomness(request.seed, 2 * number + 1)))
            progress("simulating", number + 1, simulations)
    return bounds_of(groups, session.settings.num_samples)


def _group(session: Session, simulation: Simulation, randomness: Randomness) -> list[Replicate]:
    """One replicate a chain of the session's."""
    target, state = simulation.target, simulation.state
    settings, options = session.settings, session.options
    q = {"temperatures": options.temperatures or None, "proposal": proposal_of(target, options)}
    return [
        replicate(target, state, settings.num_samples, randomness, chain=chain, **q)
        for chain in range(settings.chains)
    ]


def _means(groups: Sequence[Sequence[Replicate]], name: str) -> Floats:
    means = []
    for group in groups:
        means.append(np.mean([getattr(one, name) for one in group]))
    return np.array(means, dtype=np.float64)


def _difference(left: Floats, right: Floats) -> Floats:
    """left − right, infinite where one of them is; 0 where both are the same infinity."""
    pairs = zip(left.tolist(), right.tolist(), strict=True)
    return np.array([0.0 if a == b else a - b for a, b in pairs], dtype=np.float64)


def _log_mean(log_weights: Floats) -> float:
    return log_mean_weight(log_weights)[0] if np.isfinite(log_weights).any() else -np.inf


def _document(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_document(entry) for entry in value]
    if isinstance(value, Estimate):
        return {"mean": value.mean if np.isfinite(value.mean) else None, "error": value.error}
    return value
