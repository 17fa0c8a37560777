"""`predict`: the average of p(Y | the other latents) over draws, scored no further than Y reaches."""

import json
import math

import numpy as np
import pytest
import tiny
import torch

import lmppl
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.folding import ARRAYS, TENSORS
from lmppl.density.target import Target
from lmppl.engines import predict
from lmppl.errors import raise_errors
from lmppl.posterior.posterior import load
from lmppl.run import Request, run
from lmppl.source import Source

BODY = """given X, V
Z ~ LM("{X}") max 2
Y ~ LM("{X}{Z}.") in [" a", " b .", "."]
W ~ LM("{Z}{Y}") max 1
observe V | Z, Y
constrain not contains(Z, ".") or contains(Y, "b")
factor 0.3 * words(Z)
predict Y
"""


def posterior(engine, seed=0, **settings):
    analysis = analyse(Source("p.lm", f'lm LM = "tiny"\n{BODY}'), ".")
    raise_errors(analysis.findings)
    assert analysis.program is not None
    rows = [Row({"X": " a", "V": " b ."}, {})]
    return run(analysis.program, rows, {"LM": tiny.model(seed=6)}, Request(engine, settings, {}, seed)).rows[0]


def test_over_the_whole_posterior_it_is_the_marginal():
    row = posterior("exact")
    marginal = row.probabilities("Y")
    assert len(marginal) == 3
    assert row.predictions["Y"] == pytest.approx(marginal, abs=1e-5)


def test_over_draws_it_is_nearer_to_the_marginal_than_their_shares():
    truth = posterior("exact").predictions["Y"]
    draws = [posterior("importance", seed, chains=1, num_samples=60) for seed in range(5)]
    predicted = [sum(abs(row.predictions["Y"][y] - p) for y, p in truth.items()) for row in draws]
    counted = [sum(abs(row.probabilities("Y").get(y, 0.0) - p) for y, p in truth.items()) for row in draws]
    assert sum(predicted) < sum(counted)


def test_what_all_options_have_in_common_is_not_scored_again(monkeypatch):
    seen = []
    plain = Target.log_density

    def recorded(target, states, known=None):
        density = plain(target, states, known)
        seen.append(set(density.factors) - set(known or {}))
        return density

    monkeypatch.setattr(Target, "log_density", recorded)
    scored = predict._log_densities
    monkeypatch.setattr(predict, "_log_densities", lambda *every: seen.clear() or scored(*every))
    posterior("importance", num_samples=4)
    assert seen[0] == {"Y", "W", "observe V", 'constrain not contains(Z, ".") or conta…'}


@pytest.mark.parametrize("engine", ["exact", "importance", "rejection", "smc"])
def test_where_no_option_is_possible_the_state_is_impossible(tmp_path, engine):
    """Behind " b" the model writes neither answer: such states have mass 0, and are no number that is none."""
    laws = {"": {" a": 0.5, " b": 0.5}, "?": {" a": 1}, " a?": {" yes": 0.25, " no": 0.75}}
    table = {"vocabulary": [" a", " b", "?", " yes", " no"], "laws": laws}
    (tmp_path / "t.json").write_text(json.dumps(table))
    (tmp_path / "p.lm").write_text(
        'lm LM = "table:t.json"\nZ ~ LM("") max 1\nY ~ LM("{Z}?") in [" yes", " no"]\npredict Y\n'
    )
    row = lmppl.compile(tmp_path / "p.lm").infer(engine, num_samples=50).rows[0]
    assert row.predictions["Y"] == pytest.approx({" no": 0.75, " yes": 0.25})
    assert row.log_evidence == pytest.approx(math.log(0.5), abs=0.3)


def test_laws_of_options_are_put_together_alike_by_numpy_and_torch():
    scores = np.array([-1.0, -np.inf, -2.0, -np.inf, -np.inf, -np.inf])
    laws = [ARRAYS.normalised(scores, 3), TENSORS.normalised(torch.tensor(scores), 3).numpy()]
    assert laws[0] == pytest.approx(laws[1])
    assert np.exp(laws[0]).sum(1) == pytest.approx([1, 0])


def test_errors_that_are_not_to_be_believed_say_why_and_are_read_back(tmp_path):
    """One draw in four has nearly all the weight."""
    laws = {"": {" a": 0.001, " b": 0.999}, "!": {" no": 1}, " a!": {" yes": 1}, "?": {" yes": 0.5, " no": 0.5}}
    table = {"vocabulary": [" a", " b", "?", "!", " yes", " no"], "laws": laws}
    (tmp_path / "t.json").write_text(json.dumps(table))
    (tmp_path / "p.lm").write_text(
        'lm LM = "table:t.json"\nZ ~ LM("") max 2\nY ~ LM("{Z}?") in [" yes", " no"]\nfactor 9 * contains(Z, "a")\n'
        'statistic n = count(Z, "a")\npredict Y\n'
    )
    doubtful = lmppl.compile(tmp_path / "p.lm").infer("importance", num_samples=150, seed=3)
    (row,) = doubtful.rows
    failed = {check.name for check in row.checks if check.status == "fail"}
    assert failed
    assert failed <= {*row.predictions["Y"].doubts} <= {*failed, "pareto_k"}
    doubtful.save(tmp_path / "run")
    (again,) = load(tmp_path / "run").rows
    assert again.predictions["Y"].document() == row.predictions["Y"].document()
    assert again.slopes == row.slopes
    assert again.slopes["n"].error > 0
