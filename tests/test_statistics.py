"""`statistic NAME = expression`: numbers that a user asks to see of every draw."""

import numpy as np
import tiny

import lmppl
from lmppl.calibrate import statistics
from lmppl.data import Row
from lmppl.draws import columns
from lmppl.driver import Request, run

TEXT = (
    'lm LM = "tiny"\nZ ~ LM(" a") max 3\nY ~ LM("{Z}") in [" a", " b"]\n'
    'statistic words_of = words(Z) + 0.5\nstatistic begins = starts_with(Z, " b")\nstatistic value = number(Z)\n'
)


def posterior(engine="importance", text=TEXT):
    program = lmppl.compile(text).program
    models = {"LM": tiny.model(seed=6)}
    return run(program, [Row({}, {})], models, Request(engine, {"num_samples": 30}, {}, 3))


def test_every_draw_has_them():
    row = posterior().rows[0]
    for draw in row.draws:
        assert draw.statistics["words_of"] == len(draw.values["Z"].split()) + 0.5
        assert draw.statistics["begins"] == float(draw.values["Z"].startswith(" b"))
        assert np.isnan(draw.statistics["value"])  # the tiny model writes no numbers
    assert columns(row.draws)["words_of"].shape == (4, 30)


def test_they_are_rows_of_the_table_and_watched_by_checks():
    row = posterior("mcmc").rows[0]
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
    from lmppl.bind import bind

    target, _ = bind(program.program, {"LM": tiny.model(seed=6)}, Row({}, {}))
    ranked = statistics(target, [{"Z": (0,), "Y": 0}, {"Z": (1, 0), "Y": 1}])
    assert ranked["words_of"].tolist() == [1.5, 2.5]
