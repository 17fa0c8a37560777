"""The verdict: every check passes where it should and fails where it should, and survives a run folder."""

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
from test_cli import here, lmppl  # noqa: F401  a fixture

from lmppl import ir
from lmppl.compare.comparison import _revised
from lmppl.compile import compile as compile_program
from lmppl.data.rows import Row
from lmppl.diagnosis import levels
from lmppl.diagnosis.advice import revised
from lmppl.diagnosis.diagnostics import diagnostics_of
from lmppl.diagnosis.draws import Draw, chain_shape, columns, indicators, levelled
from lmppl.diagnosis.summary import r_hat_by_chance, rank_r_hat
from lmppl.diagnosis.verdict import CHECKS, diagnose, worst
from lmppl.engines import table as engines
from lmppl.engines.contract import Sample
from lmppl.engines.mismatch import score_mismatch
from lmppl.engines.table import ENGINE_NAMES, USUAL, traits
from lmppl.engines.weights import pareto_shape
from lmppl.posterior import store as results
from lmppl.posterior.posterior import Posterior
from lmppl.posterior.result import RowPosterior
from lmppl.run import Request, run
from lmppl.source import Span

ROOT = Path(__file__).parent.parent.parent


def draw(chain, number, text="a", tokens=(1,), log_density=-1.0, log_weight=0.0, **rest):
    factors = {"Z": log_density}
    return Draw({"Z": text}, {"Z": list(tokens)}, log_density, factors, log_weight, None, chain, number, **rest)


def chains(make, num_chains=4, num_draws=200):
    """Draws of some chains. make(chain, number): text, tokens and log density."""
    return [draw(c, i, *make(c, i)) for c in range(num_chains) for i in range(num_draws)]


def mixing(num_chains=4, num_draws=200, seed=0):
    """Independent draws of three texts."""
    rng = np.random.default_rng(seed)
    texts = [("a b", (1, 2), -1.0), ("b", (2,), -2.0), ("c a b", (3, 1, 2), -1.5)]
    return chains(lambda c, i: texts[rng.choice(3, p=[0.5, 0.3, 0.2])], num_chains, num_draws)


def judge(draws, figures, *rest, **more):
    """The verdict on figures, as files have them."""
    return diagnose(draws, diagnostics_of(figures), *rest, **more)


def status(name, draws=(), diagnostics=None, engine="", **rest):
    """Status of one check, None where it does not apply; its message says something exactly where it did not pass."""
    found = {check.name: check for check in judge(draws, diagnostics or {}, traits(engine), **rest).checks}
    for check in found.values():
        assert (check.message == "") == (check.status == "pass"), check
        assert "\n" not in check.message
    return found[name].status if name in found else None


# --- chains ---------------------------------------------------------------------------------------


def test_independent_draws_pass():
    found = judge(mixing(), {"acceptance": [0.5, 0.4, 0.6, 0.5]}, traits("mcmc"))
    assert found.verdict == "pass", found
    assert [c.name for c in found.checks] == ["r_hat", "ess_bulk", "ess_tail", "acceptance", "distinct_draws"]


@pytest.mark.parametrize("shape", [(4, 10), *(pytest.param(s, marks=pytest.mark.slow) for s in ((4, 100), (2, 50)))])
def test_independent_draws_rarely_seem_to_disagree(shape):
    found = [status("r_hat", mixing(*shape, seed=seed)) for seed in range(20)]
    assert found.count("pass") >= 19


def test_chance_level_of_r_hat():
    rng = np.random.default_rng(1)
    values = [rank_r_hat(rng.normal(size=(4, 20))) for _ in range(1000)]
    assert 0.001 <= np.mean(np.array(values) > r_hat_by_chance((4, 20), 2)) < 0.025
    assert r_hat_by_chance((4, 5000), 20) < levels.R_HAT.warn  # long chains are held to the threshold itself
    assert r_hat_by_chance((1, 4), 20) == math.inf  # too few draws to tell


def test_few_draws_that_are_equal_by_chance_are_not_stuck_chains():
    """Of four draws a chain, one of many beginnings comes up in a whole chain only, sooner or later."""

    def rare(chain, number):
        return f"{chain} {number}", (7 if chain == 0 else 1, number), float(number)

    def four(kind):
        return [draw for draw in chains(rare) if draw.draw < kind]

    assert status("r_hat", four(4)) != "fail"
    assert status("r_hat", four(8)) == "fail"
    found = {check.name: check for check in judge(four(8), {}, traits("importance")).checks}
    assert "r_hat" not in found  # draws that know nothing of each other have no chains


def test_two_modes_fail():
    """Four chains, each in one of two modes, moving within it: the mode is told by the first token alone."""
    rng = np.random.default_rng(0)

    def within(chain, number):
        word, first = ("a", 1) if chain < 2 else ("b", 2)
        return f"{word} {rng.integers(5)}", (first, 9), float(rng.normal())

    found = {check.name: check for check in judge(chains(within), {}, traits("mcmc")).checks}
    assert found["r_hat"].status == "fail"
    assert found["r_hat"].value is None  # infinite
    assert "first token" in found["r_hat"].message
    assert found["ess_bulk"].status == "fail"


def test_modes_that_are_left_once_fail():
    def visit(chain, number):
        return ("a", (1,), -1.0) if (number < 100) == (chain < 2) else ("b", (2,), -1.1)

    assert status("r_hat", chains(visit)) == "fail"


def test_a_drift_warns_or_fails():
    rng = np.random.default_rng(0)
    draws = [replace(one, log_density=rng.normal() + 0.35 * one.chain) for one in mixing()]
    assert status("r_hat", draws) == "warn"


def test_one_mode_for_all_chains_is_not_seen():
    """What no draw shows, no check sees: a mode that is never visited. docs/diagnosis.md says so."""
    rng = np.random.default_rng(0)
    kept = chains(lambda c, i: (f"a {rng.integers(9)}", (1, 9), float(rng.normal())))
    assert judge(kept, {"acceptance": [0.3] * 4}, traits("mcmc")).verdict == "pass"
    assert "no check sees" in (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")


def test_choices_are_followed_by_option():
    def option(chain, number):
        return ("yes it is", (5, 6), -1.0) if chain < 2 else ("yes it was", (5, 7), -1.0)

    assert status("r_hat", chains(option), choices=["Z"]) == "fail"
    assert status("r_hat", chains(option)) == "pass"  # first tokens alone do not tell these apart


def test_one_text_is_one_value_whatever_rounding_makes_of_it():
    """Chains that hold the only possible text, scored in batches of their own."""
    same = chains(lambda c, i: ("a", (1,), -1.0 + 1e-6 * c))
    found = judge(same, {"acceptance": [0.9] * 4, "fresh_starts": 40}, traits("mcmc"))
    assert found.verdict == "pass", found
    coarse = chains(lambda c, i: ("a", (1,), -1.0 + 0.1 * c))  # as bfloat16 does
    assert judge(coarse, {"acceptance": [0.9] * 4, "fresh_starts": 40}, traits("mcmc")).verdict == "pass"
    assert status("r_hat", chains(lambda c, i: ("a", (1,), -1.0 - c))) == "fail"  # that is no rounding
    row = RowPosterior({}, same)
    assert row.summary()["log density"]["r_hat"] == 1
    assert row.summary()["log density"]["ess_bulk"] is None


def test_a_factor_that_is_constant_but_for_rounding_tells_nothing():
    rng = np.random.default_rng(0)

    def scored(size):
        return [
            replace(one, factors={**one.factors, "observe Y": -40.0 + size * one.chain * rng.uniform(0.9, 1)})
            for one in chains(lambda c, i: (f"{c} {i}", (1,), -1.0))  # as many texts as draws
        ]

    assert status("r_hat", scored(1e-5)) == "pass"
    assert status("ess_bulk", scored(1e-5)) is None  # nothing varies
    assert status("r_hat", scored(0.02)) == "fail"  # unless scores are known to be that coarse
    assert status("r_hat", scored(0.02), {"score_mismatch": 0.08}) == "pass"


def test_rounding_of_weights_has_no_tail():
    noise = np.random.default_rng(0).standard_cauchy(2000)
    assert pareto_shape(1e-7 * np.clip(noise, -50, 50)) is None
    assert pareto_shape(np.clip(noise, None, 50)) > 1


def weights_of_texts(number, spread, draws=1000):
    """Log weights of draws from a law over so many texts: equal where the text is."""
    rng = np.random.default_rng(1)
    return rng.normal(0, spread, number)[rng.choice(number, draws, p=rng.dirichlet(np.full(number, 0.5)))]


def test_a_tail_is_above_what_several_draws_of_one_text_weigh():
    """A tied threshold is no reason to see no tail (nor is it in ArviZ), but few texts, drawn often, have none."""
    tied = np.sort(weights_of_texts(3000, 3.0))
    tail = int(3 * np.sqrt(len(tied)))
    tied[-tail - 1] = tied[-tail]
    assert pareto_shape(tied) > 0.7
    assert pareto_shape(weights_of_texts(3000, 0.3)) < 0.5
    assert pareto_shape(weights_of_texts(20, 2.0)) is None


def test_levels_keep_what_differs():
    values = np.array([[-1.0, -1.0 + 5e-6, -2.0, -np.inf], [-1.0 + 8e-6, 3.0, np.nan, -1.1]])
    assert levelled(values)[0, 0] == levelled(values)[0, 1] == levelled(values)[1, 0]
    assert len(np.unique(levelled(values))) == 6  # −∞, -2, -1.1, -1, 3, NaN
    many = np.linspace(0, 1, 10**6)
    assert np.abs(levelled(many) - many).max() <= 1.01e-5  # neighbours do not pull each other along


def test_declared_statistics_are_compared():
    draws = [replace(one, statistics={"warmth": float(one.chain + one.draw % 2)}) for one in mixing()]
    (found,) = [check for check in judge(draws, {}).checks if check.name == "r_hat"]
    assert found.status == "fail"
    assert "warmth" in found.message
    assert "warmth" in RowPosterior({}, draws).summary()
    undefined = [replace(one, statistics={"warmth": math.nan}) for one in mixing()]
    assert status("r_hat", undefined) == "pass"


def test_effective_sizes():
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(4, 200)), axis=1)
    slow = chains(lambda c, i: (f"t{i}", (1,), float(walk[c, i])))
    for name in ("ess_bulk", "ess_tail"):
        assert status(name, mixing()) == "pass"
        assert status(name, slow) == "fail"
        assert status(name, mixing(num_draws=60)) == "warn"
        assert status(name, mixing(400, 1)) == "pass"  # one draw a chain, many chains
        assert status(name, mixing(4, 2)) == "fail"
        for engine in ("exact", "rejection"):  # independent by construction
            assert status(name, mixing(num_draws=60), engine=engine) is None


def test_effective_size_says_how_many_to_take():
    found = {check.name: check for check in judge(mixing(num_draws=60), {}).checks}
    needed = int(re.search(r"--num-samples (\d+)", found["ess_bulk"].message)[1])
    assert found["ess_bulk"].threshold == 400
    assert 60 * 400 / found["ess_bulk"].value <= needed < 200


def test_acceptance():
    assert status("acceptance", (), {"acceptance": [0.3, 0.2]}) == "pass"
    assert status("acceptance", (), {"acceptance": [0.3, 0.01]}) == "warn"
    assert status("acceptance", (), {"acceptance": [0.3, 0.0]}) == "fail"
    assert status("acceptance", (), {"acceptance": 0.001}) is None  # of rejection's proposals


def test_every_chain_is_to_have_gone_somewhere_else():
    """Four of them at most: more chains need no more fresh starts."""
    for chains, starts in ((1, 1), (3, 3), (4, 4), (6, 4)):
        assert status("fresh_starts", mixing(chains), {"fresh_starts": starts}) == "pass"
        assert status("fresh_starts", mixing(chains), {"fresh_starts": starts - 1}) == "warn"


def test_all_chains_stuck_at_one_text_fail():
    same = chains(lambda c, i: ("a", (1,), -1.0))
    assert judge(same, {"acceptance": [0.0] * 4}, traits("mcmc")).verdict == "fail"


def test_distinct_draws():
    same = chains(lambda c, i: ("a", (1,), -1.0))
    own = chains(lambda c, i: (f"text {c}", (1,), -1.0))
    few = chains(lambda c, i: ("ab"[i % 2], (1,), -1.0))
    assert status("distinct_draws", same, {"acceptance": [0.9] * 4}) == "pass"  # a peaked posterior
    assert status("distinct_draws", same, {"ess": 900.0}) == "pass"
    assert status("distinct_draws", same, {"ess": 2.0}) == "fail"
    assert status("distinct_draws", own) == "fail"
    assert status("distinct_draws", few, {"acceptance": [0.9] * 4}) == "pass"
    assert status("distinct_draws", few, {"acceptance": [0.03] * 4}) == "warn"
    assert status("distinct_draws", mixing(4, 1)) == "pass"  # one draw a chain says nothing about chains


# --- numbers that engines report ------------------------------------------------------------------

NUMBERS = {
    "ess": ("ess", 200.0, 50.0, 5.0),
    "ess_by_replicate": ("ess", [90, 90], [30, 40], [2, 3]),
    "ess of particles": (
        "ess",
        {"ess_by_replicate": [60, 60], "particles": 1000},
        {"ess_by_replicate": [30, 40], "particles": 1000},
        {"ess_by_replicate": [8, 8], "particles": 1000},
    ),
    "ess of a dominant replicate": (
        "ess",
        {"ess_by_replicate": [90, 90], "log_evidence_by_replicate": [-1, -1]},
        {"ess_by_replicate": [90, 90], "log_evidence_by_replicate": [-1, -50]},
        {"ess_by_replicate": [2, 90], "log_evidence_by_replicate": [-1, -50]},
    ),
    "importance": ("ess", {"ess": 200.0}, {"ess": 50.0}, {"ess": 5.0}),  # nested, by prompting
    "pareto_k": ("pareto_k", 0.3, 0.8, 1.2),
    "largest_weight": ("largest_weight", 0.1, None, 0.7),
    "log_evidence_by_replicate": ("evidence_spread", [-5.0, -5.1], [-5.0, -6.0], [-5.0, -9.0]),
    "a replicate that died": (
        "evidence_spread",
        {"log_evidence_by_replicate": [-5.0, -5.0]},
        None,
        {"log_evidence_by_replicate": [-5.0, None, -math.inf]},
    ),
    "surviving_ancestors": ("surviving_ancestors", [40, 30], [40, 8], [40, 2]),
    "survivors of few particles": (
        "surviving_ancestors",
        {"surviving_ancestors": 4, "particles": 8},
        {"surviving_ancestors": 3, "particles": 8},
        {"surviving_ancestors": 1, "particles": 8},
    ),
    "min_ess_fraction": ("min_ess_fraction", 0.4, 0.05, 0.01),
    "score_mismatch": ("score_mismatch", 1e-5, 0.1, 0.8),
    "scores of which one is impossible": ("score_mismatch", {"score_mismatch": 0}, None, {"score_mismatch": math.inf}),
    "missed_mass": ("coverage", 0.01, 0.1, 0.4),
    "unguided": (
        "guidance",
        {"unguided": [["constrain f(Z)", 4]], "acceptance": 0.5},
        {"unguided": [["constrain f(Z)", 4]], "acceptance": [0.04, 0.06]},
        None,
    ),
    "total_variation_bound": ("total_variation", 0.005, 0.1, 0.3),
    "bound under a wide tolerance": (
        "total_variation",
        {"total_variation_bound": 0.04, "tolerance": 0.05},
        {"total_variation_bound": 0.06, "tolerance": 0.05},
        {"total_variation_bound": 0.3, "tolerance": 0.05},
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
def test_reported_numbers(key):
    name, *values = NUMBERS[key]
    for value, expected in zip(values, ("pass", "warn", "fail"), strict=True):
        if value is not None:
            reported = value if isinstance(value, dict) and key != "importance" else {key: value}
            assert status(name, (), reported) == expected
    assert status(name, (), {}) is None  # not reported: does not apply


def test_pareto_shape_without_a_tail_does_not_apply():
    assert status("pareto_k", (), {"pareto_k": None}) is None


FAILING = {
    "mcmc": {"acceptance": [0.0, 0.0], "fresh_starts": 0},
    "annealed": {"acceptance": [0.0, 0.0], "min_ess_fraction": 0.001, "surviving_ancestors": [1, 1]},
    "importance": {"ess": 1.2, "pareto_k": 3.0, "largest_weight": 0.9},
    "smc": {"ess_by_replicate": [1.0, 1.0], "particles": 64, "pareto_k": 2.0},
    "ppo": {"ess": 1.2, "pareto_k": 3.0, "largest_weight": 0.9},
    "prompting": {"importance": {"ess": 1.2, "pareto_k": 3.0}},
    "gflownet": {"ess": 1.2, "pareto_k": 3.0, "largest_weight": 0.9},
}


@pytest.mark.parametrize("name", FAILING)
def test_advice_never_names_the_engine_that_failed(name):
    stuck = chains(lambda c, i: (f"text {c}", (c,), -float(c)))
    found = [one for one in judge(stuck, FAILING[name], traits(name)).checks if one.status == "fail"]
    assert found
    for one in found:
        assert f"--engine {name}" not in one.message
        named = re.findall(r"--engine ([\w-]+)", one.message)
        assert set(named) <= set(ENGINE_NAMES)
        assert name != "mcmc" or "importance" not in named  # whose draws are the restarts that all failed


def test_advice_of_a_comparison_names_no_engine_that_fails_in_it():
    message = "one draw carries 90% of the weight. Ask for more --num-samples, or try --engine mcmc."
    assert revised(message, USUAL.general, {"importance"}) == message
    assert "annealed" in revised(message, USUAL.general, {"importance", "mcmc"})
    assert (
        revised(message, USUAL.general, set(USUAL.general))
        == "one draw carries 90% of the weight. Ask for more --num-samples."
    )
    entries = [
        {"engine": "importance", "reason": None, "verdict": "fail", "findings": [message]},
        {"engine": "mcmc", "reason": None, "verdict": "fail", "findings": []},
        {"engine": "annealed", "reason": "it cannot", "verdict": None, "findings": []},
    ]
    assert _revised(entries)[0]["findings"] == [message.replace("mcmc", "smc")]


@pytest.mark.parametrize("name", ["importance", "gflownet", "ppo", "sft", "smc", "annealed"])
def test_a_heavy_tail_is_answered_by_what_the_engine_has(name):
    (found,) = (one for one in judge((), {"pareto_k": 1.2}, traits(name)).checks if one.name == "pareto_k")
    (asked,) = re.findall(r"-o (\w+)=|--engine (\w+)", found.message)
    option, other = asked
    assert option in {field.name for field in fields(engines.engine(name).options)} if option else other in ENGINE_NAMES


def test_weighted_draws_are_not_compared_as_chains():
    draws = [replace(one, log_weight=-float(one.draw)) for one in mixing()]
    assert status("r_hat", draws) is None
    assert status("ess_bulk", mixing(), {"ess": 300.0}) is None  # their size is known from weights


def test_few_of_many_draws_fail():
    assert status("ess", mixing(4, 1000), {"ess": 39.0}) == "fail"  # below 1 % of 4000
    assert status("ess", mixing(4, 500), {"ess": 39.0}) == "warn"


# --- texts and engines ----------------------------------------------------------------------------


def test_limit():
    """0.2 of the texts of `mixing` have three tokens."""
    longer = chains(lambda c, i: ("a" * (1 + i % 2), (1,) * (1 + i % 2), -1.0))
    assert status("limit", mixing(), maxima={"Z": 4}) == "pass"
    assert status("limit", longer, maxima={"Z": 2}) == "warn"
    assert status("limit", longer) is None  # an `until` ends it
    (found,) = [c for c in judge(longer, {}, maxima={"Z": 2}).checks if c.name == "limit"]
    assert found.message == "the limit of 2 tokens cuts 50% of the draws of `Z`. Raise max."
    light = [replace(one, log_weight=-50.0) if len(one.tokens["Z"]) == 2 else one for one in longer]
    assert status("limit", light, maxima={"Z": 2}) == "pass"  # by weight, not by number


def test_guidance_names_the_lines_that_nothing_guides_draws_to():
    few = {"unguided": [["constrain f(Z)", 4], ["constrain g(Z)", 5]], "impossible_draws": 780}
    (found,) = [one for one in judge(mixing(), few, traits("importance")).checks if one.name == "guidance"]
    assert found.status == "warn"
    assert found.value == 1 - 780 / 800
    assert "lines 4, 5" in found.message
    assert "2.5%" in found.message
    assert status("guidance", mixing(), {**few, "impossible_draws": 10}) == "pass"
    assert status("guidance", mixing(), {"unguided": [["constrain f(Z)", 4]]}, "exact") is None  # proposes nothing
    assert status("guidance", mixing(), {"impossible_draws": 780}) is None  # all is guided


def test_prompting_is_no_inference():
    found = judge(mixing(), {}, traits("prompting"))
    assert [(check.name, check.status) for check in found.checks] == [("posterior_draws", "warn")]
    assert status("posterior_draws", mixing(), engine="mcmc") is None


@pytest.mark.parametrize("name", ["ppo", "sft"])
def test_a_policy_that_may_have_collapsed_never_passes(name):
    """Even weights on the few texts that it draws say nothing of the others."""
    even = {"ess": 799.0, "pareto_k": None, "largest_weight": 0.002, "impossible_draws": 0, "score_mismatch": 0}
    assert judge(mixing(), even, traits(name)).verdict == "warn"


def test_score_mismatch_is_measured_on_distinct_possible_draws():
    latent = ir.TextLatent("Z", (), None, 9, Span(0, 1))
    scored = []

    def log_prior(name, states):
        scored.extend(states)
        return np.array([-float(len(state[name])) for state in states])

    def sample(length, carried, log_density=-1.0):
        return Sample(0, 0, {"Z": (1,) * length}, log_density, {"Z": carried})

    target: Any = SimpleNamespace(latents=(latent,), texts=(latent,), batch_size=2, log_prior=log_prior)
    draws = [sample(1, -1.0), sample(1, -1.0), sample(2, -2.25), sample(3, -3.0), sample(4, 9.0, -math.inf)]
    assert score_mismatch(target, draws) == 0.25
    assert len(scored) == 3
    assert score_mismatch(target, []) is None


def test_no_draws_and_impossible_draws():
    assert judge([], {}).verdict == "pass"
    impossible = [replace(one, log_weight=-math.inf) for one in mixing()]
    assert judge(impossible, {}, maxima={"Z": 3}).checks == ()


def test_worst():
    assert worst([]) == "pass"
    assert worst(["pass", "warn"]) == "warn"
    assert worst(["fail", "pass", "warn"]) == "fail"


def test_columns():
    draws = mixing(2, 5)
    assert chain_shape(draws) == (2, 5)
    assert chain_shape(draws[:-1]) == (1, 9)
    assert set(columns(draws)) == {"log density", "Z", "tokens(Z)"}
    many = [draw(0, i, str(i % 8), (i % 8,)) for i in range(800)]
    assert len(indicators(many, (), most=5, least=0.05)) == 5
    assert len(indicators(many, ("Z",), most=5, least=0.05)) == 8
    assert len(indicators(many, ("Z",), most=5, least=0.2)) == 0


def test_interleaved_chains_are_put_in_order():
    stuck = sorted(chains(lambda c, i: (f"text {c}", (c,), -float(c))), key=lambda one: one.draw)
    assert status("r_hat", stuck) == "fail"


# --- run folders and the command ------------------------------------------------------------------


def posterior(*rows):
    models = {"LM": {"identifier": "tiny", "revision": None}}
    cost = {"tokens_decoded": 0, "tokens_scored": 0, "forward_passes": 0, "seconds": 0.0}
    options = {"chains": 4, "num_samples": 200, "engine_reason": "asked for"}
    return Posterior({"path": "p.lm", "text": "", "sha256": ""}, "mcmc", 0, models, options, rows, cost)


def row(draws, **figures):
    diagnostics = diagnostics_of(figures)
    found = diagnose(draws, diagnostics, traits("mcmc"), {"Z": 9})
    return RowPosterior({}, draws, diagnostics=diagnostics, checks=found.checks)


def good():
    return row(mixing(), acceptance=[0.5] * 4)


def bad():
    return row(chains(lambda c, i: (f"text {c}", (c,), -1.0)), acceptance=[0.0] * 4)


def test_run_folder_round_trip(tmp_path):
    saved = posterior(good(), bad())
    assert [one.verdict for one in saved.rows] == ["pass", "fail"]
    assert saved.verdict == "fail"
    results.save(saved, tmp_path / "run")
    loaded = results.read(tmp_path / "run")
    assert loaded.document() == saved.document()
    assert [tuple(one.checks) for one in loaded.rows] == [one.checks for one in saved.rows]
    assert "checks" not in loaded.rows[0].diagnostics.document()
    document = saved.document()
    assert document["verdict"] == document["rows"][1]["verdict"] == "fail"
    first = document["rows"][0]["diagnostics"]["checks"][0]
    assert set(first) == {"name", "status", "value", "threshold", "message"}


def test_old_run_folders_are_checked_anew(tmp_path):
    results.save(posterior(good(), bad()), tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    old = json.loads(path.read_text())
    del old["verdict"], old["checksum"], old["files"]
    for entry in old["rows"]:
        del entry["verdict"], entry["diagnostics"]["checks"]
    path.write_text(json.dumps(old))
    lines = [json.loads(line) for line in (tmp_path / "run" / "draws.jsonl").read_text().splitlines()]
    for line in lines:
        del line["statistics"]
    (tmp_path / "run" / "draws.jsonl").write_text("\n".join(map(json.dumps, lines)))
    loaded = results.read(tmp_path / "run")
    assert [one.verdict for one in loaded.rows] == ["pass", "fail"]
    assert "limit" not in {check.name for check in loaded.rows[0].checks}


def test_diagnose_command(tmp_path):
    results.save(posterior(good(), good()), tmp_path / "good")
    results.save(posterior(good(), bad()), tmp_path / "bad")
    out = lmppl(tmp_path, "diagnose", "good").stdout
    assert "row 2 of 2: pass" in out
    assert "verdict pass" in out
    assert "ess_tail" in out
    out = lmppl(tmp_path, "diagnose", "bad", code=1).stdout
    assert "verdict fail" in out
    assert "accepted no move" in out
    document = json.loads(lmppl(tmp_path, "diagnose", "bad", "--json", code=1).stdout, parse_constant=pytest.fail)
    assert document["verdict"] == "fail"
    assert [entry["verdict"] for entry in document["rows"]] == ["pass", "fail"]
    assert "no-run" in lmppl(tmp_path, "diagnose", "nothing", code=2).stderr
    out = lmppl(tmp_path, "summary", "bad").stdout
    for part in ("verdict pass: 6 checks", "verdict fail:", "fail acceptance:", "verdict on 2 rows fail: row 2"):
        assert part in out


def test_run_reports_a_verdict_and_leaves_with_zero(here):  # noqa: F811  a fixture
    common = ["run", "p.lm", "--set", "X= a b", "--num-samples", "3", "--num-warmup", "0"]
    arguments = [*common, "--engine", "mcmc", "--out", "run"]
    assert "verdict fail" in lmppl(here, *arguments).stdout  # 12 draws
    lmppl(here, "diagnose", "run", code=1)
    row = json.loads(lmppl(here, *common, "--engine", "importance", "--json").stdout)["rows"][0]
    checks = {check["name"]: check for check in row["diagnostics"]["checks"]}
    assert {"ess", "limit", "score_mismatch", "distinct_draws"} <= set(checks)
    assert 0 <= checks["score_mismatch"]["value"] < 1e-3
    assert row["verdict"] in ("warn", "fail")
    assert not any("effective sample size" in warning for warning in row["warnings"])  # said once, by the check


def test_strict_leaves_with_one_where_the_verdict_is_fail(here):  # noqa: F811  a fixture
    common = ["run", "p.lm", "--set", "X= a b", "--num-warmup", "0", "--engine", "mcmc", "--strict"]
    assert "verdict fail" in lmppl(here, *common, "--num-samples", "3", "--out", "run", code=1).stdout
    lmppl(here, "diagnose", "run", code=1)  # it was written all the same
    lmppl(here, "run", "p.lm", "--set", "X= a b", "--engine", "importance", "--num-samples", "60", "--strict")


# --- documentation --------------------------------------------------------------------------------


def test_documented_thresholds_are_the_modules():
    page = (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(\w+)` \| ([^|]*\|[^|]*) \|", page, re.M))
    names = {make.__name__ for make in CHECKS}
    assert set(documented) == names
    for name in names - {"posterior_draws"}:
        asked = getattr(levels, name.upper())
        shown = tuple(None if cell.strip() == "–" else float(cell) for cell in documented[name].split("|"))
        assert shown == asked, name
    constants = ("COUNTED_CHAINS", "LEAST_SHARE", "LOW_ACCEPTANCE", "LEAST_DRAWS", "MOST_BEGINNINGS", "RARE")
    for name in constants:
        assert f"`{name}` = {getattr(levels, name):g}" in page, name


ONE = 'lm LM = "tiny"\nY ~ LM(" a") in [" a", " b"]\nconstrain Y == " a"\n'


@pytest.mark.parametrize(
    "levels", [pytest.param(1, id="chains"), pytest.param(3, id="tempered", marks=pytest.mark.slow)]
)
def test_chains_that_hold_the_one_possible_value_pass(levels):
    """Few moves are accepted, as most propose what is impossible; the same draws are doubted where more is possible."""
    found = []
    for text in (ONE, ONE.replace('constrain Y == " a"', 'factor -40 * count(Y, "b")')):
        request = Request("mcmc", {"chains": 2, "num_samples": 60}, {"levels": levels})
        found += run(compile_program(text).program, [Row({}, {})], {"LM": tiny.model()}, request).rows
    assert [{draw.values["Y"] for draw in row.draws} for row in found] == [{" a"}] * 2
    assert [row.verdict for row in found] == ["pass", "warn"]
