"""Rejection sampling: exact draws where the weight γ(z) / q(z) has a known upper bound.

With a temperature τ between 1/A and 1, A being the sum of a prior's powers (all at least 0, A at
least 1), the prior over the proposal is at most 1; the other factors' bounds come from the
expressions' ranges. The bound is computed or demanded, never assumed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmppl import ir
from lmppl.decoding import Purpose, Randomness
from lmppl.density import Density, Floats, State, Target, joined
from lmppl.diagnosis import Diagnostics
from lmppl.engines.contract import Engine, Interrupted, Outcome, Sample, Settings
from lmppl.engines.cut import of_draws, one_chain
from lmppl.engines.proposals import Temperatures, draw_prior
from lmppl.engines.table import needs
from lmppl.engines.weights import log_mean_weight, require_support
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.lm import BY_LAWS, Capabilities
from lmppl.screen import Progress
from lmppl.settings import Count, Number, Seconds, Share

SLACK = 1e-3  # nats by which a ratio may exceed its bound through rounding
TRIAL_SECONDS = 4.0  # after which rejection must have a chance
UNSEEN = 3.0  # of n proposals, a share of 3 / n may be of a kind that was not among them (95 %)


@dataclass(frozen=True)
class Options:
    """Options of `rejection`."""

    # upper bound of all factors together, in nats; computed where not given
    bound: Number = math.nan
    temperature: Share = 1.0  # of the proposals, at most 1; a latent's own is at least its 1/power
    max_proposals: Count = 20_000  # give up after this many a chain
    limit: Seconds = 300.0  # seconds: what is expected to take longer, at best, is refused

    def needs(self) -> Capabilities:
        """What models have to do besides drawing: cold proposals are made from laws."""
        return BY_LAWS if self.temperature < 1 else frozenset()


def cannot(program: ir.Program) -> str | None:
    """Whether every prior is bounded by its proposal."""
    for latent in program.texts:
        if any(term.power < 0 for term in latent.terms):
            return f"`{latent.name}` has a negative power, so the weights have no bound"
        if latent.total_power < 1 - 1e-9:
            return (
                f"the powers of `{latent.name}` add up to less than 1, so the weights have no bound"
            )
    return None


@dataclass
class _Chain:
    accepted: list[Sample]
    proposed: int = 0


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """chains × num_samples exact draws. Raises LmpplError where there is no bound or acceptance is
    hopeless.
    """
    bound = _bound(target, options)

    def temperatures(latent: ir.TextLatent) -> tuple[float, ...]:
        return (max(options.temperature, 1 / latent.total_power),)

    chains = [_Chain([]) for _ in range(settings.chains)]
    log_ratios: list[Floats] = []
    try:
        _propose(
            target, chains, log_ratios, settings, options, randomness, progress, temperatures, bound
        )
    except KeyboardInterrupt:
        done = sum(len(chain.accepted) for chain in chains)
        if not done:
            raise
        warning = of_draws(done, settings.chains * settings.num_samples)
        found = _outcome(chains, np.concatenate(log_ratios), bound)
        raise Interrupted(
            replace(found, samples=one_chain(found.samples), warnings=[warning])
        ) from None
    return _outcome(chains, np.concatenate(log_ratios), bound)


def _propose(
    target: Target,
    chains: list[_Chain],
    log_ratios: list[Floats],
    settings: Settings,
    options: Options,
    randomness: Randomness,
    progress: Progress,
    temperatures: Temperatures,
    bound: float,
) -> None:
    """Accept until every chain has its draws; log ratios of all proposals, whatever became of them,
    are kept.
    """
    wanted = settings.num_samples
    densities, states = [], []
    progress("accepted", 0, wanted * settings.chains)
    began = time.perf_counter()
    while open_chains := [c for c, chain in enumerate(chains) if len(chain.accepted) < wanted]:
        block = max(1, target.batch_size // len(open_chains))
        keys = [(c, chains[c].proposed + i) for c in open_chains for i in range(block)]
        drawn = draw_prior(target, keys, randomness, temperatures)
        density = target.log_density(drawn.states, drawn.known)
        log_ratio = density.total - drawn.log_proposal - bound
        _check_bound(target, log_ratio)
        log_ratios.append(log_ratio + bound)
        for c in open_chains:
            chains[c].proposed += block
        _accept(chains, keys, drawn.states, density, log_ratio, randomness, wanted)
        densities.append(density)
        states += drawn.states
        accepted = sum(len(chain.accepted) for chain in chains)
        progress("accepted", accepted, wanted * settings.chains)
        _require_hope(target, options, log_ratios, bound, wanted * settings.chains, accepted, began)
        if any(
            chains[c].proposed >= options.max_proposals
            for c in open_chains
            if len(chains[c].accepted) < wanted
        ):
            require_support(target, states, joined(densities))
            finding = run_findings.hopeless_rejection(
                accepted, len(states), wanted * settings.chains, target.program.source
            )
            raise LmpplError(finding)


def _require_hope(
    target: Target,
    options: Options,
    log_ratios: Sequence[Floats],
    bound: float,
    wanted: int,
    accepted: int,
    began: float,
) -> None:
    """Raise LmpplError where, after a while, the draws that lack would take longer than the limit
    even with luck.
    """
    seconds = time.perf_counter() - began
    if seconds < TRIAL_SECONDS or accepted >= wanted:
        return
    shares = np.exp(
        np.concatenate(log_ratios) - bound
    )  # each proposal's own probability of being accepted
    tried = len(shares)
    likely = float(shares.mean())
    lucky = (
        likely
        + 2 * float(shares.std()) / math.sqrt(tried)
        + UNSEEN / tried * (float(shares.max()) or 1.0)
    )
    at_best = (wanted - accepted) / min(lucky, 1.0) * seconds / tried
    if seconds + at_best > options.limit:
        finding = run_findings.slow_rejection(
            accepted, tried, seconds, wanted, likely, at_best, target.program.source
        )  # fmt: skip
        raise LmpplError(finding)


def _bound(target: Target, options: Options) -> float:
    source = target.program.source
    if not math.isnan(options.bound):
        return options.bound
    bound = target.factor_upper_bound
    if math.isinf(bound):
        unbounded = next(
            f for f in target.program.factors if math.isinf(target.upper_bound_of(f.name))
        )
        reason = f"`{unbounded.name}` has no upper bound that can be computed"
        help = "write the factor so that it is bounded, or give the bound: -o bound=NATS"
        raise LmpplError(
            run_findings.engine_cannot("rejection", reason, source, unbounded.span, help)
        )
    return bound


def _check_bound(target: Target, log_ratio) -> None:
    if log_ratio.max(initial=-np.inf) > SLACK:
        reason = f"a draw exceeds the bound by {log_ratio.max():.3g} nats"
        help = "the -o bound= that was given is too low"
        raise LmpplError(
            run_findings.engine_cannot("rejection", reason, target.program.source, None, help)
        )


def _accept(
    chains: list[_Chain],
    keys: list[tuple[int, int]],
    states: list[State],
    density: Density,
    log_ratio,
    randomness: Randomness,
    wanted: int,
) -> None:
    for i, (chain, proposal) in enumerate(keys):
        kept = chains[chain].accepted
        uniform = randomness.uniforms(chain, proposal, Purpose.ACCEPTANCE, 1)[0]
        if len(kept) < wanted and np.log1p(-uniform) < log_ratio[i]:  # 1 - u is never 0
            factors = density.parts(i)
            kept.append(Sample(chain, len(kept), states[i], float(density.total[i]), factors))


def _outcome(chains: list[_Chain], log_weights, bound: float) -> Outcome:
    log_evidence, error = log_mean_weight(log_weights)
    proposed = sum(chain.proposed for chain in chains)
    accepted = sum(len(chain.accepted) for chain in chains)
    acceptance = float(np.exp(log_evidence - bound))
    diagnostics = Diagnostics(proposals=proposed, acceptance=acceptance, bound=bound)
    samples = [sample for chain in chains for sample in chain.accepted]
    assert len(samples) == accepted
    return Outcome(samples, log_evidence, error, diagnostics=diagnostics)


ENGINE = Engine(
    "rejection",
    "exact draws, accepted from the prior under a known bound",
    Options,
    cannot,
    run,
    needs=needs("rejection"),
)
