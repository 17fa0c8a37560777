"""`predict`: the average of p(Y | the other latents) over draws, scored no further than Y reaches."""

import pytest
import tiny

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.target import Target
from lmppl.engines import predict
from lmppl.errors import raise_errors
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
