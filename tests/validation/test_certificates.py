"""Bounds and divergences against their exact values, by enumeration of the tiny model."""

import json

import numpy as np
import pytest
import simulated
from test_cli import lmppl, write

from lmppl.decoding.randomness import Randomness
from lmppl.density.binding import bind
from lmppl.engines.contract import Settings, quiet
from lmppl.engines.exact import enumerate_states
from lmppl.engines.importance import ENGINE, Options
from lmppl.run import Request
from lmppl.validation.bounds import (
    Replicate,
    bounds_of,
    certify,
    drawn_log_weights,
    estimate,
    posterior_divergence,
    proposal_divergence,
    replicate,
    state_log_weights,
)

TEMPERATURES = (1.0, 0.5)


@pytest.fixture(scope="module")
def models():
    return simulated.models()


@pytest.fixture(scope="module")
def target(models):
    return bind(simulated.program(), models, simulated.ROW)[0]


@pytest.fixture(scope="module")
def exact(target):
    """States, their posterior probabilities, log evidence, and log weights under the proposal."""
    states = list(enumerate_states(target, target.latents, {}))
    log_density = target.log_density(states).total
    evidence = float(np.logaddexp.reduce(log_density))
    return states, np.exp(log_density - evidence), evidence, state_log_weights(target, states, TEMPERATURES)


def pairs(target, exact, num_samples, count=60):
    """Replicates, each with an exact posterior draw of its own."""
    states, law, _, _ = exact
    pinned = np.random.default_rng(1).choice(len(states), count, p=law / law.sum())
    return [
        replicate(target, states[i], num_samples, Randomness(2), chain=chain, temperatures=TEMPERATURES)
        for chain, i in enumerate(pinned)
    ]


def test_traced_density_is_the_drawn_one(target, exact):
    """It adds up to 1, and the states that are drawn have the weights that drawing gave them."""
    states, _, _, log_weights = exact
    log_proposal = target.log_density(states).total - log_weights
    assert abs(np.exp(log_proposal).sum() - 1) < 1e-4
    drawn = ENGINE.run(target, Settings(1, 20), Options(TEMPERATURES), Randomness(0), quiet).samples
    again = state_log_weights(target, [sample.state for sample in drawn], TEMPERATURES)
    np.testing.assert_allclose(again, [sample.log_weight for sample in drawn], atol=1e-4)


@pytest.mark.parametrize("num_samples", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_bounds_hold(target, exact, num_samples):
    found = bounds_of([[one] for one in pairs(target, exact, num_samples)], num_samples)
    evidence = exact[2]
    assert found.lower.mean - 3 * found.lower.error <= evidence <= found.upper.mean + 3 * found.upper.error
    assert found.gap.mean > 3 * found.gap.error > 0


def test_the_pinned_state_takes_the_place_of_a_draw(target, exact):
    """Both bounds are of the mean of as many weights: of one, the upper is that of the pinned state."""
    states, _, _, log_weights = exact
    found = replicate(target, states[3], 1, Randomness(2), temperatures=TEMPERATURES)
    assert found.upper == pytest.approx(log_weights[3], abs=1e-4)


@pytest.mark.slow
def test_bounds_meet_as_draws_grow(target, exact):
    gaps = []
    for num_samples in (2, 16, 128):
        found = bounds_of([[one] for one in pairs(target, exact, num_samples, 20)], num_samples)
        gaps.append(found.gap.mean)
        assert found.lower.mean - 4 * found.lower.error <= exact[2] <= found.upper.mean + 4 * found.upper.error
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[-1] < 0.2


@pytest.mark.slow
def test_divergences_are_the_exact_ones(target, exact):
    states, law, evidence, log_weights = exact
    q = np.exp(target.log_density(states).total - log_weights)
    wasted, missed = q @ (np.log(q) - np.log(law)), law @ (np.log(law) - np.log(q))
    drawn = drawn_log_weights(target, 400, Randomness(3), temperatures=TEMPERATURES)
    found = estimate(proposal_divergence(drawn, evidence))
    assert abs(found.mean - wasted) < 4 * found.error
    pinned = np.random.default_rng(0).choice(len(states), 400, p=law / law.sum())
    found = estimate(posterior_divergence(log_weights[pinned], evidence))
    assert abs(found.mean - missed) < 4 * found.error
    low, high = bounds_of([[one] for one in pairs(target, exact, 16)], 16).posterior_from_proposal
    assert low.mean - 3 * low.error <= missed <= high.mean + 3 * high.error
    low, high = bounds_of([[one] for one in pairs(target, exact, 16)], 16).proposal_from_posterior
    assert low.mean - 3 * low.error <= wasted <= high.mean + 3 * high.error


@pytest.mark.slow
def test_impossible_draws_leave_a_bound_on_one_side(models):
    text = f"{simulated.TEXT}constrain chars(Z) == 2 or chars(Z) == 4\n"  # no mask can tell
    request = Request("importance", {"chains": 1, "num_samples": 4})
    found = certify(simulated.program(text), [simulated.ROW], models, request, 12)
    assert np.isfinite(found.upper.mean)
    assert found.proposal_from_posterior[1].mean == np.inf
    json.dumps(found.document(), allow_nan=False)


def test_infinite_differences_have_a_sign():
    dead = Replicate(-np.inf, -3.0, -np.inf, -1.0)
    found = bounds_of([[dead], [Replicate(-4.0, -3.0, -np.inf, -1.0)]], 1)
    assert (found.lower.mean, found.lower.error) == (-np.inf, None)
    assert found.gap.mean == found.posterior_from_proposal[1].mean == np.inf
    assert found.upper.mean == -3


def test_command(tmp_path, tiny_folder):
    (tmp_path / "model").symlink_to(tiny_folder)
    write(tmp_path, 'given X, Y\nZ ~ LM(X) max 3 tokens\nobserve Y ~ LM(" a{Z}")\n')
    arguments = ["bounds", "p.lm", "--set", "X= a b", "--set", "Y= b.", "--simulations", "5", "--num-samples", "20"]
    out = lmppl(tmp_path, *arguments).stdout
    for part in ("log evidence", "gap", "KL(q‖π)", "KL(π‖q)"):
        assert part in out
    document = json.loads(lmppl(tmp_path, *arguments, "--json").stdout, parse_constant=pytest.fail)
    assert document["lower"]["mean"] <= document["upper"]["mean"]
