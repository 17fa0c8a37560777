"""Predictions, their entropy and its parts, and slopes of every engine: brute force, within three errors."""

import math

import grid
import numpy as np
import pytest

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.run import Request, run
from lmppl.source import Source

CELLS = [("plain", "until", "choice"), ("tempered", "free", "choice")]
OPTIONS = (" a", " b a", ".")
ENGINES = {  # settings, options
    "importance": ({"num_samples": 100}, {}),
    "rejection": ({"num_samples": 40}, {"temperature": 0.4}),
    "mcmc": ({"chains": 6, "num_samples": 40, "num_warmup": 10}, {}),
    "smc": ({"chains": 8, "num_samples": 32}, {"particles": 64}),
    "annealed": ({"chains": 6, "num_samples": 24}, {"particles": 24, "search": 0}),
}


@pytest.fixture(scope="module")
def models():
    return grid.models()


def truth(cell, models):
    """By sums over all states: the probabilities, the entropy, its parts, and the slope of the length."""
    reference = grid.Reference(cell, models)
    states = list(reference.states())
    log_density = np.array([reference.log_density(state) for state in states])
    mass = np.exp(log_density - np.logaddexp.reduce(log_density))
    joint = {}
    for state, share in zip(states, mass, strict=True):
        joint.setdefault(tuple(state["Z"]), np.zeros(len(OPTIONS)))[state["Y"]] += share
    law = sum(joint.values())
    still_open = sum(-float(row @ np.log(row / row.sum())) for row in joint.values())
    entropy = -float(law @ np.log(law))
    length = np.array([len(state["Z"]) for state in states], dtype=float)
    slope = float(mass @ ((length - mass @ length) * log_density))
    power = lambda b: float(length @ np.exp(b * log_density) / np.exp(b * log_density).sum())  # noqa: E731
    assert slope == pytest.approx((power(1 + 1e-4) - power(1 - 1e-4)) / 2e-4, rel=1e-3)
    figures = dict(zip(OPTIONS, law.tolist(), strict=True))
    return {**figures, "entropy": entropy, "open": still_open, "hangs": entropy - still_open, "slope": slope}


def found(cell, models, engine, seed=0):
    """The same of a run: {figure: (value, error)}."""
    source = Source("p.lm", grid.text(*cell) + "statistic length = tokens(Z)\n")
    program = analyse(source, grid.FOLDER).program
    settings, options = ENGINES.get(engine, ({}, {}))
    request = Request(engine, settings, options, seed, batch_size=512)
    row = run(program, [Row({}, {})], grid.used_models(cell, models), request).rows[0]
    one = row.predictions["Y"]
    parts = {"entropy": one.entropy, "open": one.conditional_entropy, "hangs": one.mutual_information}
    return {**{y: (one[y], one.errors[y]) for y in OPTIONS}, **parts, "slope": row.slopes["length"]}


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_of_a_law_all_is_brute_force(cell, models):
    expected = truth(cell, models)
    for name, (value, error) in found(cell, models, "exact").items():
        assert value == pytest.approx(expected[name], abs=1e-5), name
        assert error == 0


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize("engine", ENGINES)
def test_draws_are_within_three_errors_of_brute_force(engine, cell, models):
    """On average over seeds: an error that is wrong, or a bias, shows in that more than in one run."""
    expected = truth(cell, models)
    runs = [found(cell, models, engine, seed) for seed in range(2)]
    for name in expected:
        values, errors = zip(*(one[name] for one in runs), strict=True)
        error = math.sqrt(sum(error**2 for error in errors)) / len(runs)
        assert abs(np.mean(values) - expected[name]) < 3 * error + 1e-5, name
