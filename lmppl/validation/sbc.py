"""Simulation-based calibration: does an engine draw from the posterior, as far as ranks can tell?

For each simulation a state and the texts it explains are drawn together from the program; the
engine then draws from the posterior given those texts; the state's statistics are ranked among the
engine's. If the engine is right, ranks are uniform (Talts et al. 2018). The joint log density is
always a statistic: without it an engine that ignores what is observed would pass (Modrák et al.
2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lmppl import ir
from lmppl.decoding import Purpose, Randomness
from lmppl.diagnosis import effective_size
from lmppl.engines import Outcome, Sample, Settings, traits
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.run import Request, Session, describe_program, open_session
from lmppl.screen import Progress, quiet
from lmppl.validation.ranks import histogram, rank, uniformity

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.density import Floats, State, Target
    from lmppl.lm import LanguageModel
    from lmppl.validation.simulate import Simulation, Simulator

NUM_SAMPLES = 31  # draws that a state is ranked among, where nothing else is asked for
LEVEL = 0.01  # share of right engines that fail, over all statistics together
BINS = 8  # of histograms
PILOTS = 4  # simulations that the spacing of a chain's draws is chosen by; they are not counted
FIRST_PILOT = 2**30  # pilots are numbered from here
MOST_THIN = 20  # largest spacing that is chosen


@dataclass(frozen=True)
class Statistic:
    """Ranks of one statistic, one a simulation, each from 0 to the number of draws."""

    name: str
    ranks: Sequence[int]
    p_value: float  # of their being uniform
    histogram: Sequence[int]
    status: Literal["pass", "fail"]


@dataclass(frozen=True)
class Calibration:
    """What simulation-based calibration found about one engine on one program."""

    program: Mapping[str, str]
    engine: str
    options: Mapping[str, Any]
    simulations: int
    num_samples: int  # draws that each state was ranked among
    seed: int
    level: float  # p-value below which a statistic fails
    statistics: Sequence[Statistic]
    # independent draws that an engine's draws are worth: median over simulations
    effective_size: float | None
    warnings: Sequence[str]

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """ "fail" where any statistic does."""
        return (
            "fail" if any(statistic.status == "fail" for statistic in self.statistics) else "pass"
        )

    def document(self) -> dict[str, Any]:
        """JSON form; every number is finite."""
        statistics = [vars(statistic) for statistic in self.statistics]
        return {**vars(self), "statistics": statistics, "verdict": self.verdict}


@dataclass(frozen=True)
class Ranked:
    """Ranks of one simulation, by statistic, and what the engine's draws were worth."""

    ranks: Mapping[str, int]
    effective_size: float | None


def calibrate(
    program: ir.Program,
    rows: Sequence[Row],
    models: Mapping[str, LanguageModel],
    request: Request,
    simulations: int = 50,
    progress: Progress = quiet,
) -> Calibration:
    """Rank simulated states among an engine's draws. Rows lend givens and lengths of texts, in
    turn.

    The engine's settings are those of the request, but 31 draws a chain by default; its draws of
    all chains are thinned to that many. Raises LmpplError where the program cannot be simulated or
    the engine fails.
    """
    from lmppl.validation.simulate import simulators_of

    request = replace(request, settings={"num_samples": NUM_SAMPLES, **request.settings})
    session = open_session(program, rows, models, request, progress)
    with session.proposals() as lend:
        run = Trial(session, simulators_of(session), session.settings, lend)
        if "thin" not in request.settings:
            run = replace(run, settings=replace(run.settings, thin=run.spacing(progress)))
        ranked = []
        for number in range(simulations):
            ranked.append(run.ranked(number))
            progress("simulating", number + 1, simulations)
    return _calibration(run, ranked)


@dataclass(frozen=True)
class Trial:
    """The engine of a session, with settings of its own, and what it is tried on."""

    session: Session
    simulators: Sequence[Simulator]
    settings: Settings
    lend: Callable[[Target], None]  # gives a target what its engine is to propose from

    def ranked(self, number: int) -> Ranked:
        """Ranks of one simulated state. Raises LmpplError where the engine gives no draw of
        positive weight.
        """
        simulation, outcome = self.run(number)
        samples = outcome.samples
        log_weights = np.array([sample.log_weight for sample in samples])
        if not np.isfinite(log_weights).any():
            raise LmpplError(run_findings.no_posterior_draws(self.session.engine.name, number))
        uniform = self.randomness(number).uniforms(0, 0, Purpose.RANKS, 1)[0]
        kept = _thinned(samples, log_weights, self.settings.num_samples, float(uniform))
        found = statistics(
            simulation.target, [simulation.state, *(sample.state for sample in kept)]
        )
        uniforms = self.randomness(number).uniforms(0, 1, Purpose.RANKS, len(found))
        ranks = {
            name: rank(float(column[0]), column[1:], float(uniform))
            for (name, column), uniform in zip(found.items(), uniforms, strict=True)
        }
        return Ranked(ranks, worth(self.session.engine.name, samples, log_weights))

    def run(self, number: int) -> tuple[Simulation, Outcome]:
        """One simulation, and what the engine makes of it, under random numbers of its own."""
        simulator = self.simulators[number % len(self.simulators)]
        simulation = simulator.draw(self.randomness(number))
        own = replace(self.randomness(number), row=2 * number + 1)
        self.lend(simulation.target)
        return simulation, self.session.engine.run(
            simulation.target, self.settings, self.session.options, own, quiet
        )

    def randomness(self, number: int) -> Randomness:
        """Random numbers of a simulation; the engine's are the next ones."""
        return Randomness(self.session.request.seed, 2 * number)

    def spacing(self, progress: Progress) -> int:
        """Steps a kept draw that make the draws of all chains worth those that are asked for, by a
        few pilots.
        """
        sizes = []
        if traits(self.session.engine.name).independent:
            return self.settings.thin
        for number in range(PILOTS):
            samples = self.run(FIRST_PILOT + number)[1].samples
            size = worth(
                self.session.engine.name,
                samples,
                np.array([sample.log_weight for sample in samples]),
            )
            if _weighted(samples):
                return self.settings.thin
            sizes += [] if size is None else [size]
            progress("choosing how to thin", number + 1, PILOTS)
        if not sizes:
            return self.settings.thin
        wanted = math.ceil(self.settings.num_samples / float(np.median(sizes)))
        return self.settings.thin * min(max(wanted, 1), MOST_THIN)


def statistics(target: Target, states: Sequence[State]) -> dict[str, Floats]:
    """What states are ranked by: joint log density, its parts, tokens of texts, numbers of options.
    (N,) each.

    All states are scored in one call, so that equal states have equal numbers. A single part is the
    whole.
    """
    density = target.log_density(states)
    hard = {factor.name for factor in target.program.constraints}
    parts = {name: values for name, values in density.factors.items() if name not in hard}
    found = {"log density": density.total}
    if len(parts) > 1:
        found |= {f"log p, {name}": values for name, values in parts.items()}
    for latent in target.latents:
        values = [state[latent.name] for state in states]
        title, sizes = target.latent(latent.name).sizes(values)
        found[title] = np.array(sizes, dtype=np.float64)
    declared = [target.statistics(state) for state in states]
    for name in declared[0]:  # what is no number is ranked below all numbers
        values = np.array([one[name] for one in declared])
        found[name] = np.where(np.isnan(values), -np.inf, values)
    return found


def worth(engine: str, samples: Sequence[Sample], log_weights: Floats) -> float | None:
    """Independent draws that draws are worth; None where they are independent, or nothing can be
    told.
    """
    from lmppl.engines import effective_sample_size

    if _weighted(samples):
        return effective_sample_size(log_weights)
    chains = len({sample.chain for sample in samples})
    if traits(engine).independent or len(samples) % chains:
        return None
    ordered = sorted(samples, key=lambda sample: (sample.chain, sample.draw))
    return effective_size(np.array([sample.log_density for sample in ordered]).reshape(chains, -1))


def _weighted(samples: Sequence[Sample]) -> bool:
    return len({sample.log_weight for sample in samples}) > 1


def _thinned(
    samples: Sequence[Sample], log_weights: Floats, count: int, uniform: float
) -> list[Sample]:
    """Draws at equal distances in cumulative weight: every so many of equal ones, by their weights
    of others.
    """
    from lmppl.engines import resample

    return [samples[i] for i in resample(log_weights, count, uniform)]


def _calibration(run: Trial, ranked: Sequence[Ranked]) -> Calibration:
    names = list(dict.fromkeys(name for one in ranked for name in one.ranks))
    level = LEVEL / len(names)  # Bonferroni
    found = []
    for name in names:
        ranks = [one.ranks[name] for one in ranked if name in one.ranks]
        found.append(_statistic(name, ranks, run.settings.num_samples, level))
    sizes = [one.effective_size for one in ranked if one.effective_size is not None]
    size = float(np.median(sizes)) if sizes else None
    return Calibration(
        describe_program(run.session.program),
        run.session.engine.name,
        {**vars(run.settings), **vars(run.session.options)},
        len(ranked),
        run.settings.num_samples,
        run.session.request.seed,
        level,
        found,
        size,
        _warnings(size, run.settings.num_samples),
    )


def _statistic(name: str, ranks: Sequence[int], num_draws: int, level: float) -> Statistic:
    p_value = uniformity(ranks, num_draws)
    return Statistic(
        name,
        ranks,
        p_value,
        histogram(ranks, num_draws, BINS),
        "fail" if p_value < level else "pass",
    )


def _warnings(size: float | None, num_draws: int) -> list[str]:
    if size is None or size >= num_draws:
        return []
    return [
        f"in the middle simulation, the engine's draws are worth {size:.1f} independent ones, "
        f"and are ranked as "
        f"{num_draws}: ranks can fail for that alone. Raise --chains or --thin, or lower "
        f"--num-samples."
    ]
