"""Calibration passes right engines and catches wrong ones, on the tiny model."""

import json

import numpy as np
import pytest
import simulated
from test_cli import failure, lmppl, write

from lmppl.engines.mcmc_kernel.text_moves import TextMoves
from lmppl.errors import LmpplError
from lmppl.run import Request
from lmppl.validation.ranks import histogram, rank, uniformity
from lmppl.validation.sbc import calibrate

FEW_STEPS = {"chains": 8, "num_samples": 7, "num_warmup": 7, "thin": 1}
COLD = {"temperatures": "0.4"}  # of proposals: a wrong ratio shows, a right one makes up for it
RIGHT = {
    "exact": {"chains": 1, "num_samples": 15},
    "importance": {"chains": 16, "num_samples": 7},
    "mcmc": FEW_STEPS,
    "annealed": {"chains": 1, "num_samples": 7},
}

NAMES = ["log density", "log p, Z", "log p, observe Y", "tokens(Z)"]


@pytest.fixture(scope="module")
def models():
    return simulated.models()


def calibrated(models, engine, settings, simulations=40, options=None, text=simulated.TEXT):
    request = Request(engine, settings, options or {}, seed=2)
    return calibrate(simulated.program(text), [simulated.ROW], models, request, simulations)


@pytest.mark.slow
@pytest.mark.parametrize("engine", RIGHT)
def test_right_engines_pass(engine, models):
    options = {"annealed": {"particles": 32, "waste_free": 4, "search": 0}, "mcmc": COLD}.get(engine, {})
    found = calibrated(models, engine, RIGHT[engine], 20 if engine == "annealed" else 40, options)
    assert [statistic.name for statistic in found.statistics] == NAMES
    assert found.verdict == "pass", [(s.name, s.p_value, s.histogram) for s in found.statistics]


@pytest.mark.slow
def test_an_engine_that_ignores_the_observation_is_caught_by_the_density(models):
    """Prompting without a guide draws from the prior: statistics of the latents alone cannot tell."""
    found = calibrated(models, "prompting", {"num_samples": 15})
    assert {s.name: s.status for s in found.statistics} == dict(
        zip(NAMES, ("fail", "pass", "fail", "pass"), strict=True)
    )


@pytest.mark.slow
def test_a_wrong_ratio_is_caught(models, monkeypatch):
    def without_ratio(self, *arguments, original=TextMoves.suffixes):
        return [(candidate, 0.0) for candidate, _ in original(self, *arguments)]

    monkeypatch.setattr(TextMoves, "suffixes", without_ratio)
    assert calibrated(models, "mcmc", FEW_STEPS, 40, COLD).verdict == "fail"


def test_choices_and_observed_latents_are_ranked(models):
    text = 'lm LM = "tiny"\ngiven X, Y\nZ ~ LM(" a") in [" a", " b", ". a"]\nobserve Y ~ LM("{Z}{X}")\n'
    found = calibrated(models, "exact", {"chains": 1, "num_samples": 15}, text=text)
    assert [statistic.name for statistic in found.statistics] == [
        "log density",
        "log p, Z",
        "log p, observe Y",
        "option of Z",
    ]
    assert found.verdict == "pass"


@pytest.mark.slow
def test_draws_that_repeat_each_other_are_thinned(models):
    settings = {"chains": 1, "num_samples": 20, "num_warmup": 2}
    found = calibrated(models, "mcmc", settings, 1, {"restarts": 0.01, "temperatures": "0.25"})
    assert found.options["thin"] > 1
    asked = calibrated(models, "mcmc", {**settings, "thin": 1}, 1)
    assert asked.options["thin"] == 1


# --- ranks ----------------------------------------------------------------------------------------


def test_ranks_break_ties_at_random():
    draws = np.array([0.0, 1.0, 1.0, 2.0])
    assert [rank(1.0, draws, uniform) for uniform in (0.0, 0.5, 0.99)] == [1, 2, 3]
    assert rank(3.0, draws, 0.9) == 4
    assert histogram([0, 1, 2, 3, 4], 4, 8) == [1] * 5


def test_p_values_are_uniform_and_see_shifts_and_spreads():
    rng = np.random.default_rng(0)
    uniform = [uniformity(rng.integers(0, 32, 50), 31) for _ in range(200)]
    assert abs(np.mean(np.array(uniform) < 0.1) - 0.1) < 0.06
    shifted = rng.binomial(31, 0.65, 50)
    narrow = rng.integers(10, 22, 50)
    wide = np.concatenate([rng.integers(0, 4, 25), rng.integers(28, 32, 25)])
    assert all(uniformity(ranks, 31) < 0.002 for ranks in (shifted, narrow, wide))


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, tiny_folder):
    (tmp_path / "model").symlink_to(tiny_folder)
    write(tmp_path, 'given X, Y\nZ ~ LM(X) max 3 tokens\nobserve Y ~ LM(" a{Z}")\n')
    return tmp_path


ROW = ("--set", "X= a b", "--set", "Y= b. a b")


def test_command_prints_a_table_and_its_verdict(here):
    arguments = ["sbc", "p.lm", *ROW, "--engine", "exact", "--simulations", "8", "--num-samples", "7"]
    out = lmppl(here, *arguments).stdout
    for part in ("log density", "tokens(Z)", "p-value", "verdict", "pass"):
        assert part in out
    document = json.loads(lmppl(here, *arguments, "--json").stdout, parse_constant=pytest.fail)
    assert document["verdict"] == "pass"
    assert [len(s["ranks"]) for s in document["statistics"]] == [8] * 4


@pytest.mark.slow
def test_command_exits_with_1_where_a_statistic_fails(here):
    arguments = ["sbc", "p.lm", *ROW, "--engine", "prompting", "--simulations", "40", "--num-samples", "15"]
    assert "fail" in lmppl(here, *arguments, code=1).stdout


def test_command_exits_with_2_where_it_cannot_simulate(here):
    write(here, 'Z ~ LM(" a")^2 max 3\n')
    for verb in ("sbc", "bounds"):
        message = failure(here, verb, "p.lm")
        assert "cannot-simulate" in message
        assert "p.lm:2" in message


BRANCHES = (
    'lm LM = "tiny"\ngiven X, Y\nK ~ LM(" a") in [" a", " b"]\nZ ~ LM("{K}") max 2 tokens when K == " a"\n'
    'observe Y ~ LM(" a{Z}") when K == " a"\nobserve Y ~ LM(" b{X}") when not K == " a"\n'
)


def test_a_program_with_branches_is_calibrated(models):
    """Arms are normalised one by one; what is observed has its law in each."""
    found = calibrated(models, "exact", {"chains": 1, "num_samples": 15}, text=BRANCHES)
    assert {"log p, Z", "log p, observe Y", "log p, observe Y (2)", "tokens(Z)"} <= {s.name for s in found.statistics}
    assert found.verdict == "pass", [(s.name, s.p_value, s.histogram) for s in found.statistics]


@pytest.mark.slow
def test_moves_between_branches_are_calibrated(models):
    """That a wrong ratio of theirs is seen is the kernel's test: here restarts mend what it does."""
    settings = {"chains": 8, "num_samples": 7, "num_warmup": 10, "thin": 1}
    found = calibrated(models, "mcmc", settings, 20, COLD, BRANCHES)
    assert found.verdict == "pass", [(s.name, s.p_value, s.histogram) for s in found.statistics]


def test_a_given_that_is_observed_in_no_branch_cannot_be_simulated(models):
    text = BRANCHES.rsplit("observe", 1)[0]
    with pytest.raises(LmpplError, match="`Y` is observed 0 times where K = ' b', Z = \\(absent\\), not once"):
        calibrated(models, "exact", {"chains": 1, "num_samples": 15}, text=text)
