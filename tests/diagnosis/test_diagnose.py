"""Summaries against cases whose answer is known."""

import json
import math
from dataclasses import replace

import numpy as np

from lmppl.diagnosis.diagnostics import Coupling, Diagnostics, diagnostics_of
from lmppl.diagnosis.summary import effective_size, rank_r_hat, summarise
from lmppl.engines.weights import effective_sample_size, log_mean_weight, pareto_shape
from lmppl.posterior.result import Draw, RowPosterior, finite

RNG = np.random.default_rng(0)


def test_independent_chains_have_r_hat_one_and_full_size():
    values = RNG.normal(size=(4, 500))
    assert abs(rank_r_hat(values) - 1) < 0.01
    assert 1500 < effective_size(values) < 3000


def test_r_hat_sees_other_places_and_other_scales():
    values = RNG.normal(size=(4, 500))
    moved, wider = values.copy(), values.copy()
    moved[0] += 2
    wider[0] *= 5  # a plain R-hat misses this one
    assert rank_r_hat(moved) > 1.1
    assert rank_r_hat(wider) > 1.05


def test_stuck_chains_are_no_sample():
    values = np.repeat([[0.0], [1.0], [2.0], [3.0]], 100, axis=1)
    assert rank_r_hat(values) == math.inf
    assert effective_size(values) == 4
    assert rank_r_hat(np.zeros((4, 100))) == 1


def test_correlated_chains_are_worth_less():
    noise = RNG.normal(size=(4, 2000))
    values = np.zeros_like(noise)
    for t in range(1, 2000):
        values[:, t] = 0.9 * values[:, t - 1] + noise[:, t]
    assert 200 < effective_size(values) < 900  # 8000 (1 - .9) / (1 + .9) = 421


def test_weighted_mean_and_quantiles():
    summary = summarise(np.array([[0.0, 1.0, -np.inf]]), np.array([[1.0, 3.0, 0.0]]))
    assert summary["mean"] == 0.75
    assert summary["q50"] == 1.0
    assert summary["ess_bulk"] == 1.6
    assert summary["r_hat"] is None


def test_weights():
    log_weights = np.log([0.5, 1.5, 1.0, 1.0])
    log_mean, error = log_mean_weight(log_weights)
    assert abs(log_mean) < 1e-12
    assert abs(error - np.std([0.5, 1.5, 1, 1]) / 2) < 1e-12
    assert abs(effective_sample_size(log_weights) - 16 / 4.5) < 1e-12
    heavy = -np.log(RNG.uniform(size=4000)) * 1.5  # weights of Pareto shape 1.5
    assert pareto_shape(heavy) > 1.0
    # nearly equal weights of a few values, as masks give them: the shape of the largest would be above 2
    few = np.log(np.repeat([0.55, 0.70, 0.7404, 0.7405, 0.7427, 0.7734, 0.7905, 0.8481], [10, 15, 78, 6, 4, 4, 9, 2]))
    assert pareto_shape(few) is None
    assert pareto_shape(RNG.normal(scale=0.5, size=4000)) < 0.6
    assert pareto_shape(RNG.normal(scale=0.1, size=4000)) is None


def test_probabilities_add_up_tokenisations():
    draws = [
        Draw({"Z": text}, {"Z": tokens}, -1.0, {}, weight, None, 0, i)
        for i, (text, tokens, weight) in enumerate([("ab", [1, 2], 0.0), ("ab", [3], 0.0), ("c", [4], math.log(2))])
    ]
    assert RowPosterior({}, draws).probabilities("Z") == {"ab": 0.5, "c": 0.5}


def test_documents_hold_no_nan():
    assert finite({"a": [math.nan, math.inf, 1.0, np.float64(2)]}) == {"a": [None, None, 1.0, 2.0]}


def test_diagnostics_are_the_same_after_a_file():
    """What is no number is null there, and NaN again; other versions' figures are kept."""
    weights = Diagnostics(ess=2.5, pareto_k=math.nan, impossible_draws=0, largest_weight=0.5)
    made = replace(
        weights, log_evidence_by_replicate=[-1.0, -math.inf], importance=weights, only_value=False,
        coupling=Coupling(3, [1, None], None), unguided=[("constrain rare(Z)", 4)], others={"later": [1]},
    )  # fmt: skip
    document = finite(made.document())
    assert list(document)[:4] == ["ess", "pareto_k", "impossible_draws", "largest_weight"]  # as fields stand
    assert document["pareto_k"] is None
    assert document["log_evidence_interval"] is None  # replicates that are too few for one
    assert "particles" not in document  # not reported
    read = diagnostics_of(json.loads(json.dumps(document)))
    assert finite(read.document()) == document
    assert math.isnan(read.numbers("pareto_k")[0])
    assert read.numbers("particles") == []
    assert Diagnostics(importance=weights).numbers("ess") == [2.5]
