"""What a trained policy leaves out: its own draws cannot show it, draws of the prior can."""

import numpy as np
import pytest
import tiny

import lmppl
from lmppl.data.rows import Row
from lmppl.diagnosis.diagnostics import Diagnostics
from lmppl.diagnosis.verdict import diagnose
from lmppl.engines.table import traits
from lmppl.run import Request, run

TEXT = 'lm LM = "tiny"\ngiven X\nZ ~ LM(X) max 2 tokens\n'
DRAWS = {"num_samples": 40, "chains": 2}


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory):
    """A folder with a policy that nearly always writes " b b", whatever the posterior is; and the run that made it."""
    folder = tmp_path_factory.mktemp("collapsed")
    rows = [Row({"X": " a"}, {"Z": " b b"}), Row({"X": " a"}, {})]
    request = Request("sft", DRAWS, {"steps": 40, "learning_rate": 2e-2, "draws": 4}, 0, folder=folder)
    return folder, run(lmppl.compile(TEXT).program, rows, {"LM": tiny.model(seed=6)}, request).rows[1]


def again(engine, folder=None, options=None, text=TEXT):
    request = Request(engine, DRAWS, options or {}, 0, adapter=folder)
    return run(lmppl.compile(text).program, [Row({"X": " a"}, {})], {"LM": tiny.model(seed=6)}, request).rows[0]


@pytest.mark.slow
def test_a_collapsed_policy_is_seen_to_leave_mass_out(collapsed):
    folder, row = collapsed
    law = again("exact").joint()
    left_out = 1 - law[(" b b",)]
    assert left_out > 0.3
    assert np.mean([draw.values["Z"] == " b b" for draw in row.draws]) > 0.9
    for found in (row, again("gflownet", folder)):  # read by another engine it is the same policy
        assert abs(found.diagnostics.missed_mass - left_out) < 0.25
        check = next(check for check in found.checks if check.name == "coverage")
        assert check.status == "fail"
        assert "proposal=" in check.message
        assert found.log_evidence < -0.3  # log evidence is 0: what the weights say is not to be believed


def test_a_policy_that_is_right_leaves_nothing_out():
    """The policy before training is the prior, which is the posterior here."""
    row = again("gflownet", None, {"steps": 1, "learning_rate": 1e-6, "draws": 2})
    assert row.diagnostics.missed_mass == 0
    assert row.verdict in ("pass", "warn")
    assert {check.name: check.status for check in row.checks}["coverage"] == "pass"


def test_where_draws_of_the_prior_tell_nothing_nothing_is_said():
    text = TEXT + 'factor 60 * count(Z, ". b")\n'
    row = again("gflownet", None, {"steps": 1, "learning_rate": 1e-6, "draws": 2}, text)
    assert row.diagnostics.missed_mass is None


def test_coverage_of_ppo_does_not_advise_to_train_on():
    found = {check.name: check for check in diagnose([], Diagnostics(missed_mass=0.1), traits("ppo")).checks}
    assert found["coverage"].status == "warn"
    assert "steps=" not in found["coverage"].message


def test_a_constraint_that_nothing_guides_draws_to_is_warned_of_where_few_meet_it(tmp_path):
    """A Python function sees whole texts only; the line is named in the diagnostics and in the verdict."""
    (tmp_path / "own.py").write_text("def rare(text):\n    return text == '. b'\n")
    source = 'lm LM = "tiny"\nuse rare from "own.py"\nZ ~ LM(" a") max 2 tokens\nconstrain rare(Z)\n'
    (tmp_path / "p.lm").write_text(source)
    program = lmppl.compile(tmp_path / "p.lm").program
    row = run(
        program, [Row({}, {})], {"LM": tiny.model(seed=6)}, Request("importance", {"num_samples": 60}, {}, 0)
    ).rows[0]
    assert row.diagnostics.unguided == [("constrain rare(Z)", 4)]
    check = next(check for check in row.checks if check.name == "guidance")
    assert check.status == "warn"
    assert "line 4" in check.message
    assert check.value == 1 - row.diagnostics.impossible_draws / 240
