"""`statistic NAME = expression`: numbers that a user asks to see of every draw."""

import json
import re

import numpy as np
import pytest
import tiny

import lmppl
from lmppl.data.rows import Row
from lmppl.diagnosis.draws import columns
from lmppl.diagnosis.summary import summarise
from lmppl.posterior.posterior import load
from lmppl.posterior.store import save
from lmppl.run import Request, run
from lmppl.validation.sbc import statistics

TEXT = (
    'lm LM = "tiny"\nZ ~ LM(" a") max 3\nY ~ LM("{Z}") in [" a", " b"]\n'
    'statistic words_of = words(Z) + 0.5\nstatistic begins = starts_with(Z, " b")\nstatistic value = number(Z)\n'
)


def posterior(engine="importance", text=TEXT, **settings):
    program = lmppl.compile(text).program
    models = {"LM": tiny.model(seed=6)}
    return run(program, [Row({}, {})], models, Request(engine, {"num_samples": 30, **settings}, {}, 3))


def test_every_draw_has_them():
    row = posterior().rows[0]
    for draw in row.draws:
        assert draw.statistics["words_of"] == len(draw.values["Z"].split()) + 0.5
        assert draw.statistics["begins"] == float(draw.values["Z"].startswith(" b"))
        assert np.isnan(draw.statistics["value"])  # the tiny model writes no numbers
    assert columns(row.draws)["words_of"].shape == (4, 30)


def test_they_are_rows_of_the_table_and_watched_by_checks():
    row = posterior("mcmc", num_samples=8, num_warmup=4).rows[0]
    assert {"words_of", "begins", "value"} <= set(row.summary())
    expected = np.mean([draw.statistics["words_of"] for draw in row.draws])
    assert abs(row.summary()["words_of"]["mean"] - expected) < 1e-9
    assert row.verdict in ("pass", "warn", "fail")


def test_nothing_is_added_to_the_density():
    plain = "\n".join(line for line in TEXT.splitlines() if not line.startswith("statistic")) + "\n"
    with_them, without = posterior("exact").rows[0], posterior("exact", plain).rows[0]
    assert with_them.log_evidence == without.log_evidence
    assert [d.values for d in with_them.draws] == [d.values for d in without.draws]


def test_calibration_ranks_them():
    program = lmppl.compile(TEXT)
    from lmppl.density.binding import bind

    target, _ = bind(program.program, {"LM": tiny.model(seed=6)}, Row({}, {}))
    ranked = statistics(target, [{"Z": (0,), "Y": 0}, {"Z": (1, 0), "Y": 1}])
    assert ranked["words_of"].tolist() == [1.5, 2.5]


# --- what is no number ----------------------------------------------------------------------------

WITHOUT = """lm LM = "tiny"
Z ~ LM(" a") max 3
statistic value = number(Z)
statistic root = sqrt(count(Z, "a") - 1)
statistic logarithm = log(count(Z, "a"))
statistic inverse = 1 / count(Z, "a")
statistic large = exp(1000 * count(Z, "a"))
statistic certain = words(Z)
"""


@pytest.mark.parametrize("engine", ["importance", pytest.param("mcmc", marks=pytest.mark.slow)])
def test_what_is_no_number_is_counted_and_said_and_ends_no_run(engine):
    row = posterior(engine, WITHOUT).rows[0]
    counts = [draw.values["Z"].count("a") for draw in row.draws]
    none = sum(count == 0 for count in counts)
    assert 0 < none < len(counts)
    said = {re.search(r"`(\w+)` \(line (\d)\)", line)[1]: line for line in row.warnings if "statistic" in line}
    assert set(said) == {"value", "root", "logarithm", "inverse", "large"}
    assert f"(line 3) is no number in {len(counts)} of {len(counts)} draws" in said["value"]
    assert f"is no number in {none} of {len(counts)} draws" in said["root"]
    assert "`sqrt` failed on -1" in said["root"]
    assert f"is −∞ in {none} of {len(counts)} draws" in said["logarithm"]
    assert f"is no number in {none} of" in said["inverse"]
    assert f"is ∞ in {len(counts) - none} of" in said["large"]


def test_summaries_tell_no_number_from_infinite_and_from_what_does_not_apply():
    row = posterior("importance", WITHOUT + "factor 0.3 * tokens(Z)\n").rows[0]
    summary, weights = row.summary(), row.weights
    assert np.ptp(weights) > 0
    counts = np.array([draw.values["Z"].count("a") for draw in row.draws])
    assert np.isnan(summary["value"]["mean"])
    assert np.isnan(summary["value"]["q50"])
    assert summary["value"]["r_hat"] is None
    assert summary["logarithm"]["mean"] == -np.inf
    assert np.isnan(summary["logarithm"]["sd"])
    assert [summary["logarithm"][entry] for entry in ("q5", "q95")] == [-np.inf, 0.0]
    assert summary["large"]["mean"] == np.inf
    known = counts > 0
    mass = weights[known] / weights[known].sum()
    mean = mass @ (1 / counts[known])
    assert abs(summary["inverse"]["mean"] - mean) < 1e-12
    deviations = np.where(known, 1 / np.maximum(counts, 1) - mean, 0.0)
    error = np.sqrt((weights**2 * deviations**2).sum()) / weights[known].sum()  # of a ratio, by the delta method
    assert abs(summary["inverse"]["mcse"] - error) < 1e-12
    document = json.dumps(lmppl.posterior.result.finite({"summary": summary}), allow_nan=False)
    assert '"mean": null' in document


def test_the_error_of_what_is_a_number_in_some_draws_of_chains():
    """Of equal and independent draws it is the standard deviation over √(how many are numbers), nearly."""
    rng = np.random.default_rng(0)
    values = np.where(rng.uniform(size=(4, 500)) < 0.3, np.nan, rng.normal(5, 1, (4, 500)))
    found = summarise(values, np.ones_like(values))
    number = ~np.isnan(values)
    assert abs(found["mean"] - values[number].mean()) < 1e-12
    assert abs(found["mcse"] / (values[number].std() / np.sqrt(number.sum())) - 1) < 0.1
    assert found["r_hat"] < 1.02
    apart = values.copy()
    apart[0] = np.nan  # a chain of its own: what is no number is compared, too
    assert summarise(apart, np.ones_like(apart))["r_hat"] > 1.1


def test_run_folders_keep_them_apart(tmp_path):
    saved = posterior("importance", WITHOUT)
    save(saved, tmp_path / "run")
    loaded = load(tmp_path / "run")
    for before, after in zip(saved.rows[0].draws, loaded.rows[0].draws, strict=True):
        np.testing.assert_equal(dict(after.statistics), dict(before.statistics))
    np.testing.assert_equal(loaded.rows[0].summary(), saved.rows[0].summary())


def test_a_factor_still_needs_a_number():
    text = 'lm LM = "tiny"\nZ ~ LM(" a") max 3\nfactor log(count(Z, "a"))\n'
    with pytest.raises(lmppl.LmpplError) as caught:
        posterior("importance", text)
    assert caught.value.diagnostics[0].code == "evaluation-failed"


def test_ranks_of_what_is_no_number():
    from lmppl.density.binding import bind

    target, _ = bind(lmppl.compile(WITHOUT).program, {"LM": tiny.model(seed=6)}, Row({}, {}))
    ranked = statistics(target, [{"Z": (0,)}, {"Z": (1, 1)}])
    assert ranked["root"].tolist() == [0.0, -np.inf]
