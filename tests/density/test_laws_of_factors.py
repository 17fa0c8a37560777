"""The laws of factors that ship with lmppl, on every kind; and that they bite."""

from dataclasses import replace

import numpy as np
import pytest

from lmppl.density import ARRAYS
from lmppl.density.kinds.expression import BoundExpression
from lmppl.density.kinds.mixture import BoundMixture
from lmppl.density.kinds.observation import BoundObservation
from lmppl.testing import factor_laws


def mixed(score, texts):
    return np.logaddexp(
        np.log(0.3) + score("LM", f" b{texts['Z']}", ". a"), np.log(0.7) + score("OTHER", texts["Y"], ". a")
    )


def holds(score, texts):
    return 0.0 if "b" in texts["Z"] or "." in texts["Y"] else -np.inf


FACTORS = {
    "a number": ('factor -0.7 * count(Z, "a")', lambda score, texts: -0.7 * texts["Z"].count("a")),
    "a constraint": ('constrain contains(Z, "b") or contains(Y, ".")', holds),
    "an observation": (
        'observe ". b" ~ LM(" b{Z}{Y}")', lambda score, texts: score("LM", f" b{texts['Z']}{texts['Y']}", ". b")
    ),
    "a power and a product": (
        'observe "." ~ LM("{Z}")^0.5 * OTHER("{Y}")^2',
        lambda score, texts: 0.5 * score("LM", texts["Z"], ".") + 2 * score("OTHER", texts["Y"], "."),
    ),
    "a mixture": ('observe ". a" ~ mix(0.3 * LM(" b{Z}"), 0.7 * OTHER("{Y}"))', mixed),
    "two lines": (
        'factor count(Z, "a") / 2\nobserve "." ~ OTHER("{Y}{Z}")',
        lambda score, texts: texts["Z"].count("a") / 2 + score("OTHER", texts["Y"] + texts["Z"], "."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("law", factor_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", FACTORS)
def test_factors_keep_the_laws(law, name):
    law(*FACTORS[name])


def halved(entry):
    return replace(entry, fold=lambda scores, fold: entry.fold([0.5 * score for score in scores], fold))


def cut_off(entry):
    """Its tensors have no gradients."""

    def fold(scores, fold):
        whole = entry.fold([score if fold is ARRAYS else score.detach() for score in scores], fold)
        return whole if fold is ARRAYS else whole + 0 * sum(score.sum() for score in scores)

    return replace(entry, fold=fold)


def of_the_first(entry):
    """Every state has the value of the first one that is asked about."""

    def fold(scores, fold):
        values = entry.fold(scores, fold)
        values[:] = values[0]
        return values

    return replace(entry, fold=fold)


BUGS = {
    "half of the score": (BoundMixture, "entry", halved, "a mixture", 0),
    "a neighbour's value": (BoundObservation, "entry", of_the_first, "an observation", 1),
    "no gradients": (BoundObservation, "entry", cut_off, "a power and a product", 3),
    "a bound that is too low": (BoundExpression, "upper_bound", lambda bound: bound - 5, "a number", 4),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_laws_of_factors_bite(bug, monkeypatch):
    kind, method, spoiled, name, law = BUGS[bug]
    right = getattr(kind, method)
    monkeypatch.setattr(kind, method, lambda self, *arguments: spoiled(right(self, *arguments)))
    with pytest.raises(AssertionError):
        factor_laws[law](*FACTORS[name])
