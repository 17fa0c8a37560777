"""Predictions: probabilities, entropies and their errors, against sums over a law that is known."""

import math

import numpy as np
import pytest

from lmppl.diagnosis.prediction import averaged, counted
from lmppl.diagnosis.sampling import Sampling

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
