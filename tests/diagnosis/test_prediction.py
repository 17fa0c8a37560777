"""Predictions: probabilities, entropies and their errors, against sums over a law that is known."""

import json
import math
import time

import numpy as np
import pytest

from lmppl.diagnosis.prediction import averaged, counted, prediction_of
from lmppl.diagnosis.sampling import Sampling
from lmppl.diagnosis.shares import MOST_FOLLOWED, share_variances
from lmppl.diagnosis.slope import slopes
from lmppl.posterior.result import Supported

MASS = np.array([0.5, 0.3, 0.15, 0.05])  # of four chains of thought
LAWS = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4], [0.0, 0.0, 1.0]])  # p(answer | chain)
OPTIONS = [" a", " b", "."]


def entropy(law):
    return -sum(p * math.log(p) for p in law if p > 0)


LAW = [sum(m * law[y] for m, law in zip(MASS, LAWS, strict=True)) for y in range(3)]
OPEN = sum(m * entropy(law) for m, law in zip(MASS, LAWS, strict=True))
HANGING = sum(
    m * p * math.log(p / LAW[y]) for m, law in zip(MASS, LAWS, strict=True) for y, p in enumerate(law) if p > 0
)
VALUES, DENSITY = np.array([1.0, 2.0, 4.0, 8.0]), np.log(MASS) - 3  # a statistic; densities are not normalised
SLOPE = float(MASS @ ((VALUES - MASS @ VALUES) * DENSITY))


def sampled(origin, mass=None, chain=None, count=4):
    mass = np.full(count, 1 / count) if mass is None else mass
    return Sampling(mass, np.zeros(len(mass), dtype=int) if chain is None else chain, origin)


def test_of_a_law_all_is_known_without_an_error():
    found = averaged(OPTIONS, LAWS, sampled("law", MASS))
    assert found == pytest.approx(dict(zip(OPTIONS, LAW, strict=True)))
    assert list(found.values()) == sorted(LAW, reverse=True)
    assert found.entropy == pytest.approx((entropy(LAW), 0))
    assert found.conditional_entropy == pytest.approx((OPEN, 0))
    assert found.mutual_information == pytest.approx((HANGING, 0))
    assert set(found.errors.values()) == {0}


def test_texts_of_a_law_are_counted():
    found = counted(["7", "8", "7", "9"], sampled("law", MASS), derived=True)
    assert found == pytest.approx({"7": 0.65, "8": 0.3, "9": 0.05})
    assert found.mutual_information == found.entropy == pytest.approx((entropy([0.65, 0.3, 0.05]), 0))
    assert found.conditional_entropy == (0, 0)
    assert counted(["7"] * 4, sampled("law", MASS)).conditional_entropy is None


@pytest.mark.parametrize("texts", [3, 200])
@pytest.mark.parametrize("origin", ["law", "draws", "replicates", "chains", "short chains"])
def test_variances_of_all_shares_are_those_of_each(origin, texts):
    rng = np.random.default_rng(0)
    short = 8 if origin == "short chains" else 250
    chain = np.repeat(np.arange(4), short)
    which = np.unique(rng.integers(texts, size=len(chain)), return_inverse=True)[1]
    mass = rng.exponential(size=len(chain)) if origin in ("law", "draws", "replicates") else np.ones(len(chain))
    sampling = Sampling(mass / mass.sum(), chain, origin.removeprefix("short "))
    found = share_variances(sampling, which)
    likeliest = {*np.argsort(-np.bincount(which, mass), kind="stable")[:MOST_FOLLOWED].tolist()}
    for place, variance in enumerate(found):
        expected = sampling.variance((which == place).astype(float))
        if origin == "chains" and place not in likeliest:  # of batches: of the same size
            assert expected / 6 < variance < 6 * expected
        else:
            assert variance == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_of_one_draw_and_of_one_text_no_variance_is_known():
    one = Sampling(np.ones(1), np.zeros(1, dtype=int), "draws")
    assert share_variances(one, np.zeros(1, dtype=int)) == [None]
    alone = Sampling(np.array([1 - 1e-12, 1e-12]), np.zeros(2, dtype=int), "draws")
    assert share_variances(alone, np.arange(2)) == [None, None]


def test_many_texts_are_counted_at_once():
    started = time.process_time()
    for origin, count in (("draws", 40_000), ("replicates", 40_000), ("chains", 8_000)):
        chain = np.arange(count) // 1000  # chains are followed one by one, in the square of their length
        counted([f"{number}" for number in range(count)], sampled(origin, chain=chain, count=count))
    assert time.process_time() - started < 3


def drawn(rng, way, count):
    """Draws of the four chains of thought in the way that an engine makes them: which, and how they came about."""
    chain = np.repeat(np.arange(4), count // 4)
    if way == "weighted":  # from a proposal that is not the law
        which = rng.integers(4, size=count)
        return which, sampled("draws", MASS[which] / MASS[which].sum())
    which = rng.choice(4, size=count, p=MASS)
    if way == "alike":
        return which, sampled("draws", count=count)
    if way == "chains":  # each stays where it is every other time
        stays = (rng.random(count) < 0.5) & (np.arange(count) % (count // 4) > 0)
        for i in np.flatnonzero(stays):
            which[i] = which[i - 1]
        return which, sampled("chains", np.full(count, 1 / count), chain)
    which = which[chain * (count // 4) + rng.integers(2, size=count)]  # particles of two ancestors a replicate
    weight = np.exp(rng.normal(0, 0.3, 4))[chain]
    return which, sampled("replicates", weight / weight.sum(), chain)


WAYS = [("alike", 8, 300), ("weighted", 8, 300), ("chains", 64, 20), ("replicates", 32, 100)]


@pytest.mark.parametrize(("way", "count", "runs"), WAYS)
def test_errors_cover(way, count, runs):
    rng, found, steep = np.random.default_rng(1), [], []
    for _ in range(runs):
        which, own = drawn(rng, way, count)
        found.append(averaged(OPTIONS, LAWS[which], own))
        steep.append(own.covariance(VALUES[which], DENSITY[which]))
    for truth, estimates, least in [
        (LAW[0], [(one[" a"], one.errors[" a"]) for one in found], 0.8),
        (entropy(LAW), [one.entropy for one in found], 0.8),
        (OPEN, [one.conditional_entropy for one in found], 0.8),
        (HANGING, [one.mutual_information for one in found], 0.8),
        (SLOPE, steep, 0.5),  # what makes most of it is rare
    ]:
        assert np.mean([abs(value - truth) <= 2 * error for value, error in estimates]) > (
            least if runs > 20 else least - 0.1
        )
        root = math.sqrt(np.mean([error**2 for _, error in estimates]))
        assert 0.6 < root / np.std([value for value, _ in estimates]) < 1.7


@pytest.mark.parametrize("way", ["alike", "weighted"])
def test_biases_are_put_right(way):
    """The entropy of eight draws is too small by six of its errors, and then by half of that at most."""
    rng, come, found = np.random.default_rng(2), [], []
    for _ in range(600):
        which, own = drawn(rng, way, 8)
        one = averaged(OPTIONS, LAWS[which], own)
        come.append(entropy(one.values()))
        found.append(one.entropy.value)
    bias = np.mean(come) - entropy(LAW)
    assert bias < -6 * np.std(come) / math.sqrt(len(come))
    assert abs(np.mean(found) - entropy(LAW)) < -bias / 2


def test_parts_add_up_and_stay_within_their_bounds():
    rng = np.random.default_rng(1)
    for _ in range(100):
        which, own = drawn(rng, "weighted", 5)
        one = averaged(OPTIONS, LAWS[which], own)
        assert one.mutual_information.value >= 0
        assert one.entropy.value == one.conditional_entropy.value + one.mutual_information.value
        assert one.entropy.value <= math.log(3) + 1e-12


def test_what_hangs_on_nothing_has_no_error():
    same = averaged(OPTIONS, np.tile(LAWS[0], (8, 1)), sampled("draws", count=8))
    assert same.mutual_information == pytest.approx((0, 0))
    assert same.entropy == pytest.approx((entropy(LAWS[0]), 0))


def test_draws_that_are_too_few_to_tell_have_no_error():
    one = averaged(OPTIONS, LAWS[:1], sampled("draws", count=1))
    assert set(one.errors.values()) == {None}
    assert one.entropy.error is None
    alone = sampled("replicates", np.full(4, 0.25), np.zeros(4, dtype=int))
    assert set(averaged(OPTIONS, LAWS, alone).errors.values()) == {None}
    short = sampled("chains", np.full(4, 0.25), np.arange(4))  # a draw a chain: they are independent
    assert averaged(OPTIONS, LAWS, short).errors[" a"] == pytest.approx(LAWS[:, 0].std(ddof=1) / 2)


def test_texts_that_all_agree_are_not_certain():
    ten = counted(["7"] * 10, sampled("draws", count=10))
    assert ten["7"] == pytest.approx(1)
    assert ten.errors["7"] == pytest.approx(math.sqrt(10.5 * 0.5 / (11**2 * 12)))
    assert counted(["7"] * 10, sampled("law", count=10)).errors["7"] == 0


def test_a_prediction_is_what_its_document_says():
    one = averaged(OPTIONS, LAWS, sampled("draws", MASS))
    again = prediction_of(dict(one), json.loads(json.dumps(one.document())))
    assert (dict(again), again.document()) == (dict(one), {**one.document(), "doubts": ()})
    old = prediction_of({" a": 1.0}, {})  # of a run that kept no errors
    assert (old.entropy, old.errors) == (None, {})


def mean_at(power):
    mass = np.exp(power * DENSITY)
    return float(VALUES @ mass / mass.sum())


def test_slopes_are_derivatives_of_the_mean_in_the_power():
    states = [Supported({}, {}, 0.0, d, {}, {"n": n}) for n, d in zip(VALUES, DENSITY, strict=True)]
    found = slopes(states, sampled("law", MASS))["n"]
    assert found == pytest.approx(((mean_at(1 + 1e-5) - mean_at(1 - 1e-5)) / 2e-5, 0), rel=1e-6)


def test_slopes_leave_out_what_is_no_number():
    states = [Supported({}, {}, 0.0, d, {}, {"n": n, "m": -math.inf}) for n, d in zip(VALUES, DENSITY, strict=True)]
    states.append(Supported({}, {}, 0.0, -1.0, {}, {"n": math.nan, "m": 1.0}))
    found = slopes(states, sampled("law", np.append(MASS / 2, 0.5)))
    assert list(found) == ["n"]
    assert found["n"].value == pytest.approx(SLOPE)


@pytest.mark.parametrize("way", ["alike", "weighted"])
def test_slopes_of_draws_are_right_on_average(way):
    rng, found = np.random.default_rng(2), []
    for _ in range(600):
        which, own = drawn(rng, way, 8)
        found.append(own.covariance(VALUES[which], DENSITY[which]).value)
    assert abs(np.mean(found) - SLOPE) < 3 * np.std(found) / math.sqrt(len(found))
