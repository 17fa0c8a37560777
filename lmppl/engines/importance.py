"""Importance sampling from the prior, or from a mixture of temperatures of it, or from a trained
sampler and those.

Weights are γ(z) / q(z) with q exact, so the mean weight estimates the evidence without bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import Density, Floats, State, Target
from lmppl.engines.contract import Engine, Interrupted, Outcome, Sample, Settings
from lmppl.engines.cut import of_draws, whole_draws
from lmppl.engines.defensive import DEFENSIVE, draw_start, proposal_of
from lmppl.engines.table import needs
from lmppl.engines.weights import log_mean_weight, require_support, weight_diagnostics
from lmppl.lm import BY_LAWS, Capabilities
from lmppl.screen import Progress
from lmppl.settings import ProperShare, Temperatures


@dataclass(frozen=True)
class Options:
    """Options of `importance`."""

    # of the proposal's equal mixture; empty: from 1 to the prior's 1/power
    temperatures: Temperatures = ()
    # a folder that a run of gflownet, ppo or sft wrote: most draws come from what it learned
    proposal: str = ""
    defensive: ProperShare = DEFENSIVE  # share of the draws that still comes from the temperatures

    def needs(self) -> Capabilities:
        """What models have to do besides drawing: temperatures and proposals are of laws."""
        return BY_LAWS if self.temperatures or self.proposal else frozenset()


def cannot(program: ir.Program) -> str | None:
    """Every program can be run."""
    return None


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """chains × num_samples weighted draws. Raises LmpplError where all are impossible."""
    return _run(target, settings, options, randomness, progress, [])


def go_on(
    target: Target,
    settings: Settings,
    options: Options,
    randomness: Randomness,
    progress: Progress,
    earlier: Outcome,
) -> Outcome:
    """What `run` gives, from a run of fewer draws a chain under the same seed: these are its first
    ones.
    """
    known = [sample for sample in earlier.samples if sample.draw < settings.num_samples]
    return _run(target, settings, options, randomness, progress, known)


def _run(
    target: Target,
    settings: Settings,
    options: Options,
    randomness: Randomness,
    progress: Progress,
    known: Sequence[Sample],
) -> Outcome:
    done = {(sample.chain, sample.draw) for sample in known}
    every = [
        (chain, draw) for draw in range(settings.num_samples) for chain in range(settings.chains)
    ]
    keys = [
        key for key in every if key not in done
    ]  # what is cut short has as many draws of every chain
    proposal, temperatures = proposal_of(target, options), options.temperatures or None
    samples = list(known)
    try:
        for start in range(0, len(keys), target.batch_size):
            progress("drawing", len(samples), len(every))
            block = keys[start : start + target.batch_size]
            drawn = draw_start(target, block, randomness, temperatures, proposal, evenly=True)
            density = target.log_density(drawn.states, drawn.known)
            samples += _samples(block, drawn.states, density, drawn.log_proposal)
        progress("drawing", len(samples), len(every))
    except KeyboardInterrupt:
        whole = whole_draws(samples, settings.chains)
        if not np.isfinite([sample.log_weight for sample in whole]).any():
            raise
        warning = (
            f"{of_draws(len(whole), len(every))}, as --num-samples "
            f"{len(whole) // settings.chains} gives them"
        )
        raise Interrupted(_outcome(whole, [warning])) from None
    require_support(target, [sample.state for sample in samples], _density(samples))
    return _outcome(sorted(samples, key=lambda sample: (sample.chain, sample.draw)))


def _density(samples: Sequence[Sample]) -> Density:
    """The samples' densities as one."""
    factors = {
        name: np.array([sample.factors[name] for sample in samples]) for name in samples[0].factors
    }
    return Density(np.array([sample.log_density for sample in samples]), factors)


def _outcome(samples: Sequence[Sample], warnings: Sequence[str] = ()) -> Outcome:
    log_weights = np.array([sample.log_weight for sample in samples])
    log_evidence, error = log_mean_weight(log_weights)
    return Outcome(
        samples, log_evidence, error, diagnostics=weight_diagnostics(log_weights), warnings=warnings
    )


def _samples(
    keys: Sequence[tuple[int, int]], states: Sequence[State], density: Density, log_proposal: Floats
) -> list[Sample]:
    return [
        Sample(
            chain,
            draw,
            state,
            float(density.total[i]),
            density.parts(i),
            float(density.total[i] - log_proposal[i]),
            float(log_proposal[i]),
        )
        for i, ((chain, draw), state) in enumerate(zip(keys, states, strict=True))
    ]


ENGINE = Engine(
    "importance",
    "weighted draws from the prior or a temperature mixture",
    Options,
    cannot,
    run,
    needs=needs("importance"),
    go_on=go_on,
)
