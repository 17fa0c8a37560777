"""One verdict on the draws of any engine: checks with named thresholds, each with what to do where it fails.

It reads draws and an engine's `diagnostics` mapping, nothing else: no model, no file, no engine's code. A check
whose numbers are missing does not apply and is left out. It cannot see what no draw shows; chains that agree must
therefore have jumped now and then (`fresh_starts`), which chains that all sit in one mode seldom do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from lmppl.diagnose import chain_sizes, r_hat_by_chance, rank_r_hat
from lmppl.draws import Draw, Floats, columns, indicators, normalised_weights

Status = Literal["pass", "warn", "fail"]


class Levels(NamedTuple):
    """Where a check begins to warn and to fail; None: it never does."""

    warn: float | None
    fail: float | None


# Thresholds, each named after its check; docs/diagnosis.md lists them.
R_HAT = Levels(1.01, 1.1)  # above; raised to what independent chains of this length reach by chance
ESS_BULK = Levels(100, 10)  # below, a chain, of at most COUNTED_CHAINS
ESS_TAIL = Levels(100, 10)  # as for the bulk
ESS = Levels(100, 10)  # below, of all weights; fails below LEAST_SHARE of the draws, too
PARETO_K = Levels(0.7, 1)  # above
LARGEST_WEIGHT = Levels(None, 0.5)  # above
EVIDENCE_SPREAD = Levels(0.5, 2)  # above, nats: standard deviation over replicates
SURVIVING_ANCESTORS = Levels(10, 3)  # below; lowered to FEW_PARTICLES of the particles where these are few
MIN_ESS_FRACTION = Levels(0.1, 0.02)  # below
ACCEPTANCE = Levels(0.02, 0)  # warns below, fails at
FRESH_STARTS = Levels(1, None)  # below, a chain, of at most COUNTED_CHAINS
DISTINCT_DRAWS = Levels(0.05, None)  # below, where acceptance is below LOW_ACCEPTANCE
LIMIT = Levels(0.2, None)  # above: share of draws that `max` cuts
SCORE_MISMATCH = Levels(0.05, 0.5)  # above, nats
COUPLING = Levels(0.05, 0.5)  # above
TOTAL_VARIATION = Levels(0.01, 0.25)  # above; warns from the search's own tolerance where that is given

COUNTED_CHAINS = 4  # a hundred draws a chain are asked of this many chains: 400 in all, as Stan asks of its four
LEAST_SHARE = 0.01
FEW_PARTICLES = Levels(0.5, 0.25)
LOW_ACCEPTANCE = 0.1
LEAST_DRAWS = 4  # a chain, to be compared with others
MOST_BEGINNINGS = 5  # first tokens a text that are followed
RARE = 0.05  # share of draws below which a beginning is not followed

INDEPENDENT = ("exact", "rejection", "prompting")  # engines whose draws are independent by construction
FLATTER = {  # how a proposal comes nearer to the posterior, by engine
    "importance": "flatten the proposal with -o temperatures=.",
    **dict.fromkeys(("gflownet", "ppo", "sft"), "train on with more -o steps=."),
}
PROMPTING = "prompting"  # its draws are no posterior draws


@dataclass(frozen=True)
class Check:
    """What one check found. value and threshold are None where there is no (finite) number."""

    name: str
    status: Status
    value: float | None
    threshold: float | None  # the one crossed; where passed, the one to keep
    message: str  # what was found and what to do; empty where passed


@dataclass(frozen=True)
class Diagnosis:
    """All checks that apply, and the worst status of them."""

    verdict: Status
    checks: tuple[Check, ...]


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of some statuses; "pass" where there are none."""
    found = set(statuses)
    return "fail" if "fail" in found else "warn" if "warn" in found else "pass"


def diagnose(
    draws: Sequence[Draw],
    diagnostics: Mapping[str, Any],
    engine: str = "",
    maxima: Mapping[str, int] | None = None,
    choices: Collection[str] = (),
) -> Diagnosis:
    """Check what an engine found for one row.

    maxima: the limit, in tokens, of every text that nothing but its limit or the end token ends.
    choices: latents that take one of few options, which are followed one by one.
    """
    ordered = sorted(draws, key=lambda draw: draw.chain)
    found = _Found(ordered, diagnostics, engine, maxima or {}, choices)
    checks = tuple(check for make in _CHECKS if (check := make(found)) is not None)
    return Diagnosis(worst(check.status for check in checks), checks)


@dataclass(frozen=True)
class _Found:
    """What a run found for one row, and what several checks ask of it."""

    draws: Sequence[Draw]  # chain by chain
    diagnostics: Mapping[str, Any]
    engine: str
    maxima: Mapping[str, int]
    choices: Collection[str] = field(default=())

    def numbers(self, key: str) -> list[float]:
        """A diagnostic as numbers, one a replicate or chain; NaN for null. Empty where it is not reported."""
        nested = self.diagnostics.get("importance")  # weights that only the evidence is estimated with
        value = self.diagnostics.get(key, nested.get(key) if isinstance(nested, Mapping) else None)
        if value is None:
            return []
        entries = value if isinstance(value, list | tuple | np.ndarray) else [value]
        return [math.nan if entry is None else float(entry) for entry in entries]

    @cached_property
    def weights(self) -> Floats:
        return normalised_weights(self.draws)

    @cached_property
    def statistics(self) -> dict[str, Floats]:
        """What chains are compared by, (chains, draws) each. Empty where draws are weighted or are no posterior's."""
        if self.engine == PROMPTING or not self.weights.any() or np.ptp(self.weights) > 0:
            return {}
        followed = {**columns(self.draws), **indicators(self.draws, self.choices, MOST_BEGINNINGS, RARE)}
        return {name: column for name, column in followed.items() if np.isfinite(column).all()}

    @cached_property
    def sizes(self) -> dict[str, dict[str, float | None]]:
        """Effective sizes of the statistics that vary. Empty where draws are independent or sized by weights."""
        if self.engine in INDEPENDENT or self.weight_size is not None:
            return {}
        return {name: _sizes(column) for name, column in self.statistics.items() if np.ptp(column) > 0}

    @cached_property
    def weight_size(self) -> float | None:
        """Effective size of all weights, before any resampling; replicates are pooled by their evidence."""
        if total := self.numbers("ess"):
            return float(np.nan_to_num(total).sum())
        sizes = np.nan_to_num(np.array(self.numbers("ess_by_replicate")))
        if not len(sizes):
            return None
        log_evidence = np.array(self.numbers("log_evidence_by_replicate") or np.zeros(len(sizes)))
        alive = np.isfinite(log_evidence) & (sizes > 0)
        if not alive.any():
            return 0.0
        mass = np.exp(log_evidence[alive] - log_evidence[alive].max())
        return float(mass.sum() ** 2 / (mass**2 / sizes[alive]).sum())

    @cached_property
    def num_weights(self) -> int:
        """How many weights there were: particles of all replicates, or draws."""
        particles = self.numbers("particles")
        replicates = max(len(self.numbers("ess_by_replicate")), len(self.numbers("log_evidence_by_replicate")), 1)
        return int(particles[0] * replicates) if particles else len(self.draws)


def _sizes(column: Floats) -> dict[str, float | None]:
    """Effective sizes; all draws count where they are too few to tell."""
    few = column.shape[1] < LEAST_DRAWS
    return dict.fromkeys(("ess_bulk", "ess_tail"), float(column.size)) if few else chain_sizes(column)


# --- verdicts on a number -------------------------------------------------------------------------


def _above(name: str, value: float, levels: Levels, message: str) -> Check:
    """A check of a number that should be small."""
    if levels.fail is not None and value > levels.fail:
        return _check(name, "fail", value, levels.fail, message)
    if levels.warn is not None and value > levels.warn:
        return _check(name, "warn", value, levels.warn, message)
    return _check(name, "pass", value, levels.fail if levels.warn is None else levels.warn, "")


def _below(name: str, value: float, levels: Levels, message: str) -> Check:
    """A check of a number that should be large."""
    flipped = Levels(*(None if level is None else -level for level in levels))
    check = _above(name, -value, flipped, message)
    threshold = None if check.threshold is None else -check.threshold
    return _check(name, check.status, value, threshold, check.message)


def _check(name: str, status: Status, value: float, threshold: float | None, message: str) -> Check:
    return Check(name, status, _or_none(value), _or_none(threshold), message)


def _or_none(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None


# --- chains of equal weight -----------------------------------------------------------------------


def _r_hat(found: _Found) -> Check | None:
    """Whether chains agree."""
    values = {name: rank_r_hat(column) for name, column in found.statistics.items()}
    known = {name: value for name, value in values.items() if value is not None}
    if not known:
        return None
    name = max(known, key=lambda key: known[key])
    value, advice = known[name], "Take more --num-warmup and --num-samples, or another --engine."
    if math.isinf(value):
        message = f"R-hat of {name} is infinite: chains are stuck, each at a value of its own. {advice}"
        return _check("r_hat", "fail", value, R_HAT.fail, message)
    levels = _above_chance(R_HAT, [found.statistics[name] for name in known])
    return _above("r_hat", value, levels, f"R-hat of {name} is {value:.3f}: chains disagree. {advice}")


def _above_chance(levels: Levels, statistics: Sequence[Floats]) -> Levels:
    """Levels raised to what independent chains reach, so that short runs do not fail by chance."""
    chains, draws = statistics[0].shape
    varying = sum(bool(np.ptp(column) > 0) for column in statistics)
    chance = r_hat_by_chance((chains, draws), 2 * max(varying, 1))  # two for each: R-hat ranks values, and distances
    return Levels(*(None if level is None else max(level, chance) for level in levels))


def _ess_bulk(found: _Found) -> Check | None:
    """Whether the draws of all chains are worth enough independent ones for means."""
    return _chain_ess(found, "ess_bulk", ESS_BULK, "the middle")


def _ess_tail(found: _Found) -> Check | None:
    """Whether they are worth enough for the 5 % and 95 % quantiles."""
    return _chain_ess(found, "ess_tail", ESS_TAIL, "the tails")


def _chain_ess(found: _Found, key: str, levels: Levels, part: str) -> Check | None:
    known = {name: size for name, sizes in found.sizes.items() if (size := sizes[key]) is not None}
    if not known:
        return None
    name = min(known, key=lambda k: known[k])
    size, (chains, draws) = known[name], found.statistics[name].shape
    asked = Levels(*(level * min(chains, COUNTED_CHAINS) for level in levels if level is not None))
    needed = math.ceil(draws * (asked.warn or 0) / size)
    message = (
        f"for {part} of {name}, {chains * draws} draws are worth {size:.0f} independent ones. "
        f"Take --num-samples {_rounded_up(needed)} or more, or a higher --thin."
    )
    return _below(key, size, asked, message)


def _rounded_up(number: int) -> int:
    """Two digits, then zeros."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return -(-number // unit) * unit


def _acceptance(found: _Found) -> Check | None:
    """Whether chains move. A single number is the acceptance of proposals, not of moves: it is no fault."""
    if not isinstance(found.diagnostics.get("acceptance"), list | tuple):
        return None
    rates = np.array(found.numbers("acceptance") or [0.0])
    stuck, least = int((rates == 0).sum()), float(rates.min())
    if stuck:
        message = (
            f"{stuck} of {len(rates)} chains accepted no move: their draws are one text each. "
            "Take more --num-warmup and --num-samples, or use --engine importance."
        )
        return _check("acceptance", "fail", 0.0, ACCEPTANCE.fail, message)
    message = f"a chain accepted {least:.1%} of its moves. Take more --num-samples, or use --engine importance."
    return _below("acceptance", least, Levels(ACCEPTANCE.warn, None), message)


def _fresh_starts(found: _Found) -> Check | None:
    """Whether chains have shown that they can go anywhere: proposals that kept nothing of a state were accepted."""
    if not (counts := found.numbers("fresh_starts")):
        return None
    chains = min(len({draw.chain for draw in found.draws}), COUNTED_CHAINS)
    message = (
        f"chains went somewhere else at once {counts[0]:.0f} times: a mode far from where they are would go unseen. "
        "Compare with --engine annealed, or take -o levels=4 or more draws."
    )
    return _below("fresh_starts", counts[0], Levels((FRESH_STARTS.warn or 0) * chains, None), message)


def _distinct_draws(found: _Found) -> Check | None:
    """Whether draws are one text for want of movement. A peaked posterior gives one text, too, and is no fault."""
    possible = [draw for draw, weight in zip(found.draws, found.weights, strict=True) if weight > 0]
    if not possible or found.engine == PROMPTING:
        return None
    by_chain: dict[int, list[tuple[str, ...]]] = {}
    for draw in possible:
        by_chain.setdefault(draw.chain, []).append(tuple(draw.values.values()))
    kinds = {texts for chain in by_chain.values() for texts in chain}
    share = len(kinds) / len(possible)
    if reason := _single(found, list(by_chain.values()), len(kinds)):
        return _check("distinct_draws", "fail", share, None, reason)
    rates = found.numbers("acceptance")
    slow = bool(rates) and float(np.mean(rates)) < LOW_ACCEPTANCE
    message = (
        f"{len(possible)} draws hold {len(kinds)} distinct texts, few moves being accepted. Take more --num-samples."
    )
    return _below("distinct_draws", share, DISTINCT_DRAWS if slow else Levels(None, None), message)


def _single(found: _Found, chains: Sequence[Sequence[tuple[str, ...]]], kinds: int) -> str | None:
    """Why single texts are no posterior; None where they may be."""
    alone = all(len(set(chain)) == 1 and len(chain) >= LEAST_DRAWS for chain in chains)
    if alone and kinds > 1:
        return f"each of {len(chains)} chains holds one text, {kinds} different ones in all. Take more --num-warmup."
    size = found.weight_size
    if kinds == 1 and len(found.draws) > 1 and size is not None and size < (ESS.fail or 0):
        return f"all draws are one text, on weights worth {size:.1f} draws. Ask for more --num-samples."
    return None


# --- weights --------------------------------------------------------------------------------------


def _ess(found: _Found) -> Check | None:
    """Whether weighted draws are worth enough."""
    if (size := found.weight_size) is None:
        return None
    fail = max(ESS.fail or 0, LEAST_SHARE * found.num_weights)
    message = (
        f"{found.num_weights} weighted draws are worth {size:.1f} draws of equal weight. "
        "Ask for more --num-samples, or try --engine mcmc."
    )
    return _below("ess", size, Levels(max(ESS.warn or 0, fail), fail), message)


def _pareto_k(found: _Found) -> Check | None:
    """Whether the weights have a variance that a mean can be trusted with."""
    if not (shapes := found.numbers("pareto_k")) or np.isnan(shapes).all():
        return None
    shape = float(np.nanmax(shapes))
    advice = FLATTER.get(found.engine, "try --engine annealed.")
    message = (
        f"Pareto k of the weights is {shape:.2f}: the evidence and its error are not to be believed. "
        f"Ask for more --num-samples, or {advice}"
    )
    return _above("pareto_k", shape, PARETO_K, message)


def _largest_weight(found: _Found) -> Check | None:
    """Whether one draw is the whole result."""
    if not (shares := found.numbers("largest_weight")):
        return None
    share = float(np.max(shares))
    message = f"one draw carries {share:.0%} of the weight. Ask for more --num-samples, or try --engine mcmc."
    return _above("largest_weight", share, LARGEST_WEIGHT, message)


# --- replicates of particles ----------------------------------------------------------------------


def _evidence_spread(found: _Found) -> Check | None:
    """Whether replicates agree about the evidence."""
    values = np.array(found.numbers("log_evidence_by_replicate"))
    dead = int((~np.isfinite(values)).sum())
    advice = "Ask for more particles, or for more replicates with --chains."
    if dead:
        message = f"{dead} of {len(values)} replicates died: all their particles became impossible. {advice}"
        return _check("evidence_spread", "fail", math.inf, EVIDENCE_SPREAD.fail, message)
    if len(values) < 2:
        return None
    spread = float(values.std(ddof=1))
    message = f"log evidence differs between replicates by {spread:.2f} nats (standard deviation). {advice}"
    return _above("evidence_spread", spread, EVIDENCE_SPREAD, message)


def _surviving_ancestors(found: _Found) -> Check | None:
    """Whether the last particles descend from more than a few of the first."""
    if not (counts := found.numbers("surviving_ancestors")):
        return None
    least = float(np.nanmin(counts)) if not np.isnan(counts).all() else 0.0
    particles = min(found.numbers("particles"), default=math.inf)
    pairs = zip(SURVIVING_ANCESTORS, FEW_PARTICLES, strict=True)
    levels = Levels(
        *(min(level, share * particles) for level, share in pairs if level is not None and share is not None)
    )
    message = f"all particles of a replicate descend from {least:.0f} of its first ones. Ask for more particles."
    return _below("surviving_ancestors", least, levels, message)


def _min_ess_fraction(found: _Found) -> Check | None:
    """Whether a step lost nearly all particles at once."""
    if not (shares := found.numbers("min_ess_fraction")) or np.isnan(shares).all():
        return None
    least = float(np.nanmin(shares))
    message = (
        f"one step left {least:.1%} of the particles with weight: few steps decide the result. "
        "Ask for more particles, or let factors speak earlier in the text."
    )
    return _below("min_ess_fraction", least, MIN_ESS_FRACTION, message)


# --- texts, scores and certificates ---------------------------------------------------------------


def _limit(found: _Found) -> Check | None:
    """Whether the limit of tokens decides what texts look like."""
    if not found.maxima or not found.weights.any():
        return None
    shares = {name: _cut(found, name, limit) for name, limit in found.maxima.items()}
    name = max(shares, key=lambda key: shares[key])
    message = f"the limit of {found.maxima[name]} tokens cuts {shares[name]:.0%} of the draws of `{name}`. Raise max."
    return _above("limit", shares[name], LIMIT, message)


def _cut(found: _Found, name: str, limit: int) -> float:
    return float(sum(w for draw, w in zip(found.draws, found.weights, strict=True) if len(draw.tokens[name]) >= limit))


def _score_mismatch(found: _Found) -> Check | None:
    """Whether decoding and scoring give a text the same log probability."""
    if not (values := found.numbers("score_mismatch")):
        return None
    largest = max(math.inf if math.isnan(value) else value for value in values)
    message = (
        f"decoding and scoring differ by up to {largest:.3f} nats in the log prior of a text. "
        "Run the model in float32, or with --batch-size 1, and distrust the weights until they agree."
    )
    return _above("score_mismatch", largest, SCORE_MISMATCH, message)


def _total_variation(found: _Found) -> Check | None:
    """Whether exact search has found nearly all mass."""
    if not (bound := found.numbers("total_variation_bound")):
        return None
    tolerance = (found.numbers("tolerance") or [TOTAL_VARIATION.warn])[0]
    message = (
        f"the search stopped at a total variation bound of {bound[0]:.3f}. "
        "Allow more with -o max_evaluations=N, or use another engine."
    )
    return _above("total_variation", bound[0], Levels(tolerance, TOTAL_VARIATION.fail), message)


def _coupling(found: _Found) -> Check | None:
    """Whether coupled pairs of chains, where they were run, met soon enough."""
    coupling = found.diagnostics.get("coupling")
    if not isinstance(coupling, Mapping):
        return None
    bound = coupling.get("total_variation_after_warmup")
    if bound is None:
        apart = sum(time is None for time in coupling["meeting_times"])
        message = (
            f"{apart} of {len(coupling['meeting_times'])} coupled pairs never met. Run longer, or with more restarts."
        )
        return Check("coupling", "fail", None, COUPLING.fail, message)
    message = (
        f"after warmup the chains may be {min(bound, 1):.2f} in total variation from the posterior, by coupled pairs. "
        "Raise --num-warmup."
    )
    return _above("coupling", bound, COUPLING, message)


def _posterior_draws(found: _Found) -> Check | None:
    """Whether the draws are meant to be the posterior's."""
    if found.engine != PROMPTING:
        return None
    message = "prompting gives what the model writes, no draws of the posterior. Use another --engine to infer."
    return Check("posterior_draws", "warn", None, None, message)


_CHECKS = (
    _posterior_draws,
    _r_hat,
    _ess_bulk,
    _ess_tail,
    _acceptance,
    _fresh_starts,
    _distinct_draws,
    _ess,
    _pareto_k,
    _largest_weight,
    _evidence_spread,
    _surviving_ancestors,
    _min_ess_fraction,
    _limit,
    _score_mismatch,
    _total_variation,
    _coupling,
)
