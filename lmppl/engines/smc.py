"""Sequential Monte Carlo token by token, with masks as exact local normalisers.

N particles a replicate grow together; equal ones share the work of the model and of the masks, and
their draws can be spread evenly over their law. A token is drawn from the masked, tempered law and
the particle's weight takes prior / proposal, so that it carries the mass that the mask left. Where
an automaton looks ahead (decoding/look_ahead.py), the law is twisted by the chance of an end that
meets the constraint, and particles are resampled, before they draw, by their weight times that
chance; it is learned by a pilot, and on the way. Else, where masks know how far the end of a text
is, a quarter of the law is on the tokens that bring it nearest. When the
effective sample size of the *running* particles falls below a share of them, they are resampled
among themselves, systematically: finished texts keep their weights, because a finished text and a
prefix are not measured alike. Factors enter when the latents that they read are known. Constraints
are asked before a text is closed: about every token that could close it where these are few, and
the weight takes the mass of the good ones; else by rejection: some rounds of draws find bad tokens
and take them out of the law, then of m draws the first good one is kept and the weight takes the
share of good ones, which leaves it unbiased (after the adaptive weighted rejection of Lipkin et al.
2025). The mean weight estimates the evidence without bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl import ir
from lmppl.decoding import Growth, LookAhead, Purpose, Randomness, invert
from lmppl.density import (
    BoundChoice,
    BoundText,
    Density,
    Floats,
    Manner,
    Target,
    joined,
)
from lmppl.diagnosis import Diagnostics
from lmppl.engines.contract import Engine, Interrupted, Outcome, Sample, Settings
from lmppl.engines.resampling import replicate_evidence, resample, resample_apart
from lmppl.engines.weights import effective_share, require_support, weight_diagnostics
from lmppl.screen import Progress
from lmppl.settings import OneOf, Share, Size, TemperatureOrZero, Whole

BOUNDARIES = ("token", "latent")
PILOT = 2**29  # the number of the run that learns, apart from those of chains
Ahead = Mapping[str, LookAhead]  # of text latents, by name
STEPS = 4096  # positions of one latent are numbered below this


@dataclass(frozen=True)
class Options:
    """Options of `smc`."""

    particles: Whole = 0  # texts a replicate; 0: as many as the draws asked for
    ess: Share = 0.5  # running particles are resampled below this share of them
    # where to resample: latent: only after whole ones
    boundary: Annotated[str, OneOf(BOUNDARIES)] = "token"
    temperature: TemperatureOrZero = 0.0  # of the proposal; 0: 1/power of the prior
    # equal particles draw evenly spaced; less variance, but few replicates may show no error
    spread: bool = False
    tries: Size = 8  # tokens drawn at once where a constraint must be asked
    rounds: Size = 3  # rounds of draws: in all but the last, bad tokens are found and taken out
    pilot: Whole = 32  # texts of a first run, from which it is learned to look ahead; 0: it is not


def cannot(program: ir.Program) -> str | None:
    """Every program can be run."""
    return None


@dataclass
class Replicate:
    """The particles of one replicate."""

    number: int
    states: list[dict]
    log_weights: Floats  # (N,)
    ancestors: NDArray[np.int64]  # (N,) which of the first N each descends from
    log_priors: dict[str, Floats] = field(
        default_factory=dict
    )  # (N,) a text latent, of its tokens so far
    judged: dict[str, Floats] = field(default_factory=dict)  # (N,) a factor that is in the weights
    resamplings: int = 0
    lineages: list[int] = field(
        default_factory=list
    )  # ancestors that are left after each resampling
    ess: list[float] = field(
        default_factory=list
    )  # share of the running particles, before each resampling

    def keep(self, index: NDArray[np.int64], log_weights: Floats) -> None:
        self.states = [dict(self.states[i]) for i in index]
        self.ancestors = self.ancestors[index]
        self.lineages.append(len(set(self.ancestors.tolist())))
        self.log_priors = {name: values[index] for name, values in self.log_priors.items()}
        self.judged = {name: values[index] for name, values in self.judged.items()}
        self.log_weights = log_weights


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """chains replicates, num_samples draws each. Raises LmpplError where every text is
    impossible.
    """
    count = options.particles or settings.num_samples
    ahead = _learned(target, options, randomness)
    replicates, densities = [], []
    for number in range(settings.chains):
        progress(f"replicates of {count} particles", number, settings.chains)
        try:
            replicate, density = _replicate(target, number, count, ahead, options, randomness)
        except KeyboardInterrupt:
            if not any(np.isfinite(done.log_weights).any() for done in replicates):
                raise
            found = _outcome(replicates, densities, settings, count, randomness)
            warning = (
                f"interrupted after {number} of {settings.chains} replicates: what is "
                f"reported is of those"
            )
            raise Interrupted(replace(found, warnings=[warning])) from None
        densities.append(density)
        replicates.append(replicate)
    states = [state for replicate in replicates for state in replicate.states]
    require_support(target, states, joined(densities))
    return _outcome(replicates, densities, settings, count, randomness)


def _learned(target: Target, options: Options, randomness: Randomness) -> Ahead:
    """What looks ahead of each text, after a run that nothing else is kept of."""
    found = {text.name: target.text_latent(text.name).look_ahead() for text in target.texts}
    ahead = {name: one for name, one in found.items() if one is not None and options.pilot}
    if ahead:
        _replicate(target, PILOT, options.pilot, ahead, options, randomness)
    return ahead


def _replicate(
    target: Target,
    number: int,
    count: int,
    ahead: Ahead,
    options: Options,
    randomness: Randomness,
) -> tuple[Replicate, Density]:
    """One replicate from its first token to its last, and the density of its particles."""
    replicate = Replicate(number, [{} for _ in range(count)], np.zeros(count), np.arange(count))
    for place, latent in enumerate(target.latents):
        _extend(target, replicate, place, latent, ahead, options, randomness)
        if place + 1 < len(target.latents):
            _judge(target, replicate)
            key = (number, place * STEPS + STEPS - 1)
            _resample(replicate, np.arange(count), options, randomness, key)
    return replicate, _judge(target, replicate)


# --- one latent -----------------------------------------------------------------------------------


def _extend(
    target: Target,
    replicate: Replicate,
    place: int,
    latent: ir.Latent,
    ahead: Ahead,
    options: Options,
    randomness: Randomness,
) -> None:
    """Give every particle a value of the next latent; the factor it brings is in the weights."""

    def choice(bound: BoundChoice) -> None:
        uniforms = randomness.uniforms(replicate.number, place * STEPS, 0, len(replicate.states))
        draws = target.draw(bound.name, replicate.states, uniforms[:, None], Manner())
        for state, option in zip(replicate.states, draws.values, strict=True):
            state[latent.name] = option

    def text(bound: BoundText) -> None:
        growth = target.grow(
            bound.name,
            replicate.states,
            options.temperature or 1 / bound.latent.total_power,
            ahead.get(bound.name),
        )
        _grow(target, replicate, place, bound, growth, options, randomness)

    target.latent(latent.name).by_kind(text, choice)


def _grow(
    target: Target,
    replicate: Replicate,
    place: int,
    bound: BoundText,
    growth: Growth,
    options: Options,
    randomness: Randomness,
) -> None:
    """Give every particle a text, token by token."""
    name = bound.name
    replicate.log_priors[name] = np.zeros(len(replicate.states))
    growing = _Growing(target, replicate, bound, growth, options, randomness)
    before = replicate.log_weights.copy()
    for position in range(bound.latent.maximum):
        if not growth.running.any():
            break
        key = (replicate.number, place * STEPS + position)
        log_prior, law = growth.laws()
        if position and options.boundary == "token":
            running = np.flatnonzero(growth.running)
            hope = (
                growth.chances(log_prior)[running]
                if growth.looks_ahead
                else _hope(
                    _gained(replicate.log_weights[running], before[running]),
                    position,
                    growth.needed()[running],
                )
            )
            index = _resample(replicate, running, options, randomness, key, hope)
            if index is not None:
                growth.keep(index)
                before = before[index]
        growing.token(log_prior, law, key)
    for state, tokens in zip(replicate.states, growth.tokens, strict=True):
        state[name] = tokens
    legal = [bound.legal(tokens) for tokens in growth.tokens]
    replicate.log_weights = np.where(legal, replicate.log_weights, -np.inf)
    replicate.log_priors[name] = np.where(legal, replicate.log_priors[name], -np.inf)


@dataclass(frozen=True)
class _Growing:
    """A text that the particles of a replicate are given, token by token."""

    target: Target
    replicate: Replicate
    bound: BoundText
    growth: Growth
    options: Options
    randomness: Randomness

    @cached_property
    def constraints(self) -> Sequence[ir.Constraint]:
        """Those that are asked before the text is closed."""
        return self.target.constraints_on(self.bound.name)

    def token(self, log_prior: torch.Tensor, law: torch.Tensor, key: tuple[int, int]) -> None:
        """Draw a token for every running particle and put it into the weights. log_prior, law:
        (U, V), as the growth has told.
        """
        growth, replicate = self.growth, self.replicate
        rows = np.flatnonzero(growth.running)
        place = torch.as_tensor(growth.place, device=law.device)
        left, log_share, asked = self._without_bad(law)
        uniforms = self.randomness.uniforms(*key, 0, len(growth.running))[rows]
        uniforms = _spread(growth.place[rows], uniforms) if self.options.spread else uniforms
        drawn = np.zeros(len(growth.running), dtype=np.int64)
        drawn[rows] = _invert_shared(left, growth.place[rows], uniforms)
        if asked.size:
            drawn[asked], log_share[asked] = self._draw_good(law[place[asked]], asked, key)
        place, tokens = place[rows], torch.as_tensor(drawn[rows], device=law.device)
        gained = log_prior[place, tokens].double().cpu().numpy()
        dead = np.isneginf(log_share[rows])
        share = np.where(dead, 0.0, log_share[rows])
        gain = gained - law[place, tokens].double().cpu().numpy() + share
        replicate.log_priors[self.bound.name][rows] += gained
        replicate.log_weights[rows] += np.where(dead, -np.inf, gain)
        growth.push(drawn)

    def _without_bad(self, law: torch.Tensor) -> tuple[torch.Tensor, Floats, NDArray[np.int64]]:
        """The laws without tokens that close a text against a constraint, the log of the mass left
        for each particle, and the particles for which that would take too many questions.
        """
        growth, options = self.growth, self.options
        log_share, asked = np.zeros(len(growth.running)), np.zeros(len(growth.running), dtype=bool)
        if not self.constraints:
            return law, log_share, np.flatnonzero(asked)
        left = law.clone()
        rows = np.flatnonzero(growth.running)
        places, first = np.unique(growth.place[rows], return_index=True)
        for place, row in zip(places.tolist(), rows[first].tolist(), strict=True):
            tokens = growth.closing(row, law[place])
            same = growth.running & (growth.place == place)
            if len(tokens) > options.tries * options.rounds:
                asked |= same
                continue
            bad = [t for t in tokens.tolist() if not self._good(row, t)]
            if bad:
                left[place, bad] = -torch.inf
                log_share[same] = float(torch.logsumexp(left[place].double(), -1))
            if np.isneginf(log_share[row]):  # the weight is 0 whatever is drawn
                left[place] = law[place]
        return left, log_share, np.flatnonzero(asked)

    def _draw_good(
        self, law: torch.Tensor, rows: NDArray[np.int64], key: tuple[int, int]
    ) -> tuple[NDArray[np.int64], Floats]:
        """Per row, a token that closes no text against a constraint, and the log of an unbiased
        estimate of their mass.

        law: (R, V), of these rows. The rounds before the last only find bad tokens, which leave the
        law; the estimate is made from the last alone.
        """
        count, tries, rounds = len(self.growth.running), self.options.tries, self.options.rounds
        chosen, log_share = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows))
        for attempt in range(rounds):
            every = self.randomness.uniforms(*key, 1 + attempt, count * tries)
            tokens = invert(law, every.reshape(count, tries)[rows])
            for b, row in enumerate(rows.tolist()):
                drawn = tokens[b]
                good = np.array([self._good(row, int(t)) for t in drawn])
                if attempt + 1 < rounds:
                    law[b, torch.as_tensor(drawn[~good])] = -torch.inf
                    continue
                left = float(torch.logsumexp(law[b].double(), -1))
                chosen[b] = drawn[good.argmax()]
                log_share[b] = left + np.log(good.mean()) if good.any() else -np.inf
        return chosen, log_share

    def _good(self, row: int, token: int) -> bool:
        """Whether a token closes no text against a constraint."""
        if not self.growth.closes(row, token):
            return True
        text = self.growth.extended(row, token)
        state = {**self.replicate.states[row], self.bound.name: text}
        return self.bound.stopping.legal(text) and self.target.holds(self.constraints, state)


def _spread(groups: NDArray[np.int64], uniforms: Floats) -> Floats:
    """Uniforms that are evenly spaced within each group, turned by the first of its own: each stays
    uniform on [0, 1).

    Particles of a group draw from one law, so together they meet it as closely as their number
    allows.
    """
    order = np.argsort(groups, kind="stable")
    _, start, count = np.unique(groups[order], return_index=True, return_counts=True)
    rank = np.arange(len(groups)) - np.repeat(start, count)
    turned = np.empty(len(groups))
    turned[order] = (
        np.repeat(uniforms[order][start], count) + rank / np.repeat(count, count)
    ) % 1.0
    return turned


def _invert_shared(
    law: torch.Tensor, place: NDArray[np.int64], uniforms: Floats
) -> NDArray[np.int64]:
    """Tokens (R,) of the laws (U, V) that each particle draws from, at its uniform."""
    order = np.argsort(place, kind="stable")
    held, start, count = np.unique(place[order], return_index=True, return_counts=True)
    column = np.arange(len(place)) - np.repeat(start, count)
    row = np.repeat(np.arange(len(held)), count)
    table = np.zeros((len(held), int(count.max())))
    table[row, column] = uniforms[order]
    drawn = np.empty(len(place), dtype=np.int64)
    drawn[order] = invert(law[torch.as_tensor(held, device=law.device)], table)[row, column]
    return drawn


def _gained(after: Floats, before: Floats) -> Floats:
    """What log weights have gained; -inf of those that are -inf, also where they were so before."""
    return after - np.where(np.isneginf(before), 0.0, before)


def _hope(gains: Floats, length: int, needed: NDArray[np.int64]) -> Floats:
    """What particles (N,) are likely to lose yet, up to a constant. gains: of the log weights, by
    `length` tokens.

    A token that a mask still needs for an end is taken to cost what tokens have cost so far.

    A text that is nearly there has paid for it already; beside one that is not it would die out.
    """
    if not len(gains) or np.isneginf(gains).all():
        return np.zeros(len(gains))
    cost = -(np.logaddexp.reduce(gains) - np.log(len(gains))) / length
    return -max(cost, 0.0) * (needed - needed.min())


def _resample(
    replicate: Replicate,
    rows: NDArray[np.int64],
    options: Options,
    randomness: Randomness,
    key: tuple[int, int],
    hope: Floats | float = 0.0,
) -> NDArray[np.int64] | None:
    """Resample these particles among themselves, where their weights have become too uneven.

    Says which particle (N,) each now is; None where all stay. hope: log factors that the weights
    are judged and drawn with; what is drawn has its own taken out again.
    """
    log_weights = replicate.log_weights[rows] + hope
    if len(rows) < 2 or np.isneginf(log_weights).all():
        return None
    share = effective_share(log_weights)
    if share >= options.ess:
        return None
    replicate.ess.append(share)
    replicate.resamplings += 1
    kept = resample(log_weights, len(rows), randomness.uniforms(*key, Purpose.RESAMPLING, 1)[0])
    index = np.arange(len(replicate.states))
    index[rows] = rows[kept]
    weights = replicate.log_weights.copy()
    weights[rows] = (
        np.logaddexp.reduce(log_weights)
        - np.log(len(rows))
        - np.broadcast_to(hope, len(rows))[kept]
    )
    replicate.keep(index, weights)
    return index


# --- results --------------------------------------------------------------------------------------


def _judge(target: Target, replicate: Replicate) -> Density:
    """Log densities of the states so far; factors that can be told, and are not in the weights yet,
    enter them.
    """
    density = target.log_density(replicate.states, {**replicate.log_priors, **replicate.judged})
    inferred = {latent.name for latent in target.latents}
    new = {
        k: values
        for k, values in density.factors.items()
        if k not in inferred and k not in replicate.judged
    }
    rest = np.sum(list(new.values()), axis=0) if new else np.zeros(len(replicate.states))
    replicate.judged |= new
    possible = np.isfinite(density.total)
    replicate.log_weights = np.where(
        possible, replicate.log_weights + np.where(possible, rest, 0.0), -np.inf
    )
    return density


def _outcome(
    replicates: Sequence[Replicate],
    densities: Sequence[Density],
    settings: Settings,
    count: int,
    randomness: Randomness,
) -> Outcome:
    logs = [float(np.logaddexp.reduce(r.log_weights) - np.log(count)) for r in replicates]
    log_evidence, error, interval = replicate_evidence(logs)
    samples: list[Sample] = []
    for replicate, density, log_mean in zip(replicates, densities, logs, strict=True):
        if np.isneginf(log_mean):
            continue
        uniforms = randomness.uniforms(replicate.number, 0, Purpose.FINAL, 1 + settings.num_samples)
        for draw, i in enumerate(resample_apart(replicate.log_weights, uniforms)):
            found = replicate.states[i], float(density.total[i]), density.parts(i)
            samples.append(Sample(replicate.number, draw, *found, log_mean))
    return Outcome(
        samples,
        log_evidence,
        error,
        diagnostics=_diagnostics(replicates, logs, interval, count),
    )


def _diagnostics(
    replicates: Sequence[Replicate],
    logs: list[float],
    interval: list[float | None] | None,
    count: int,
) -> Diagnostics:
    """What the replicates, of `count` particles each, tell of themselves. logs: of their Ẑ."""
    everything = np.concatenate([replicate.log_weights for replicate in replicates])
    least = [min([*r.ess, effective_share(r.log_weights)]) for r in replicates]
    alive = [r.ancestors[np.isfinite(r.log_weights)] for r in replicates]
    return replace(
        weight_diagnostics(everything),
        log_evidence_by_replicate=logs,
        log_evidence_interval=interval,
        particles=count,
        resamplings=[replicate.resamplings for replicate in replicates],
        min_ess_fraction=min(least),
        surviving_ancestors=[len(set(ancestors.tolist())) for ancestors in alive],
        lineages=[[count, *replicate.lineages] for replicate in replicates],
    )


ENGINE = Engine("smc", "token-level sequential Monte Carlo under masks", Options, cannot, run)
