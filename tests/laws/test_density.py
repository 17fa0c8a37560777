"""The target's log density is the one that the program denotes."""

import math

import grid
import numpy as np
import pytest
from quick import marked


@pytest.fixture(scope="module")
def models():
    return grid.models()


@pytest.mark.parametrize("cell", marked(grid.CELLS, grid.LENGTHY))
def test_density_equals_an_independent_one(cell, models):
    reference = grid.Reference(cell, models)
    states = list(reference.states())
    expected = np.array([reference.log_density(state) for state in states])
    target = grid.target(cell, models)
    density = target.log_density(states)
    np.testing.assert_allclose(density.total, expected, atol=1e-4)
    for factor in target.program.factors:  # searches and rejection rely on it
        assert density.factors[factor.name].max() <= target.upper_bound_of(factor.name) + 1e-6
    np.testing.assert_allclose(sum(density.factors.values()), density.total)


@pytest.mark.parametrize("ending", ["free", "cut"])
def test_outcomes_of_a_plain_prior_add_up_to_one(ending, models):
    cell = ("plain", ending, "nothing")
    density = grid.target(cell, models).log_density(list(grid.Reference(cell, models).states()))
    assert math.isclose(np.exp(density.total).sum(), 1.0, abs_tol=1e-5)


def test_until_has_the_mass_of_stopping_in_time(models):
    """With `until`, what is missing from 1 is the end token coming first, or the limit."""
    cell = ("plain", "until", "nothing")
    density = grid.target(cell, models).log_density(list(grid.Reference(cell, models).states()))
    reached = np.exp(density.total).sum()
    free = grid.Reference(("plain", "free", "nothing"), models)
    full_stop = free.words["."]
    stopped = sum(  # extend every text without a full stop, shorter than max, by one
        math.exp(free.log_prob("LM", free.ids(" a b"), [*tokens, full_stop]))
        for tokens in free.texts()
        if full_stop not in tokens and len(tokens) < 3
    )
    assert 0.01 < reached < 0.99
    assert math.isclose(reached, stopped, abs_tol=1e-5)


@pytest.mark.parametrize("cell", [c for c in grid.CELLS if c[2] == "nothing"], ids="-".join)
def test_prefixes_telescope(cell, models):
    """complete(z) = Σ [prefix(z≤t) − prefix(z<t)] + end(z), and every prefix that may stop is a state of its own."""
    target = grid.target(cell, models)
    states = list(grid.Reference(cell, models).states())
    density = target.log_density(states).total
    known = {state["Z"]: value for state, value in zip(states, density, strict=True)}
    for state, prefixes in zip(states, target.prefixes("Z", states), strict=True):
        tokens = state["Z"]
        np.testing.assert_allclose(prefixes.running[-1] + prefixes.stop[-1], known[tokens], atol=1e-4)
        assert prefixes.running[0] == 0
        for t in range(len(tokens) + 1):
            shorter = known.get(tokens[:t])
            value = prefixes.running[t] + prefixes.stop[t]
            assert value == -np.inf if shorter is None else abs(value - shorter) < 1e-4


@pytest.mark.parametrize("cell", marked(grid.CELLS, grid.LENGTHY))
def test_drawing_and_scoring_agree(cell, models):
    """The per-token scores of texts as they are, by the code that draws, are their log prior."""
    target = grid.target(cell, models)
    states = list(grid.Reference(cell, models).states())
    rollout = target.trace("Z", states, (1.0, 0.5))
    np.testing.assert_allclose([row.sum() for row in rollout.log_prior], target.log_prior("Z", states), atol=1e-4)
    assert [tuple(row) for row in rollout.tokens] == [state["Z"] for state in states]


@pytest.mark.slow
def test_batch_size_does_not_change_a_density(models):
    cell = ("product", "free", "nothing")
    states = list(grid.Reference(cell, models).states())
    together = grid.target(cell, models).log_density(states).total
    alone = np.concatenate([grid.target(cell, models).log_density([state]).total for state in states])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_illegal_texts_are_impossible(models):
    target = grid.target(("plain", "until", "nothing"), models)
    full_stop, end, a = target.models["LM"].encode(".", markers=False)[0], target.models["LM"].end, 0
    illegal = [(), (a,), (a, a, a), (full_stop, a), (full_stop, full_stop), (end,), (a, a, a, full_stop)]
    assert (target.log_density([{"Z": tokens} for tokens in illegal]).total == -np.inf).all()
