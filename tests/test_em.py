"""Expectation-maximisation: the M-step's density and gradient against brute force, rounds, and what is kept of them."""

import itertools

import numpy as np
import pytest
import tiny
import torch

from lmppl.bind import bind
from lmppl.compile import analyse
from lmppl.data import Row
from lmppl.em.maximise import Case, Fit, log_joint, maximise
from lmppl.errors import raise_errors
from lmppl.lm import adapter
from lmppl.source import Source

BODY = """given X, W
learn LM
Z ~ LM("{X}") max 2
V ~ LM("{X}{Z}.") max 2
Y ~ LM("{X}{Z}{V}.") in [" a", " b ."]
observe W | X, Z, Y
constrain not contains(Z, ".")
"""
ROWS = (
    Row({"X": " a", "W": " b ."}, {}),
    Row({"X": " b", "W": " a"}, {"Y": " a"}),
    Row({"X": ".", "W": "."}, {"Z": " b"}),
)


def program(body=BODY):
    analysis = analyse(Source("p.lm", f'lm LM = "tiny"\n{body}'), ".")
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


def every_state(target):
    """All values of the latents to infer."""
    texts = [z for size in range(3) for z in itertools.product(range(3), repeat=size)]
    names = [latent.name for latent in target.latents]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(
        *(texts if name in "ZV" else range(2) for name in names))]  # fmt: skip


@pytest.fixture
def adapted():
    """An adapter that does something, on a tiny model with two end tokens."""
    base = tiny.model(seed=4, ends=("<end>", "<stop>"))
    found = adapter.add(base, rank=4, alpha=8, targets="all-linear", seed=1)
    torch.manual_seed(0)
    for value in found.parameters.values():
        value.data.normal_(0, 0.2)
    yield found
    found.remove()


@pytest.mark.parametrize("row", ROWS, ids=["free", "label observed", "text observed"])
def test_what_is_fitted_is_the_programs_density(adapted, row):
    target = bind(program(), {"LM": adapted.model}, row, batch_size=512)[0]
    states = every_state(target)
    density = target.log_density(states)
    possible = np.isfinite(density.total)
    assert 5 < possible.sum() <= len(states)
    found = log_joint(target, [s for s, ok in zip(states, possible, strict=True) if ok], "LM", adapted.model, {})
    np.testing.assert_allclose(found.detach().numpy(), density.total[possible], atol=1e-4)


def test_what_a_tool_writes_is_not_fitted():
    model = tiny.model(words=("1", "+", "=", "2"), seed=2)
    found = adapter.add(model, rank=4, alpha=8, targets="all-linear", seed=1)
    body = 'given X\nlearn LM\nZ ~ LM("{X}") with calculator(trigger = "=") max 5\nconstrain contains(Z, "=2")\n'
    target = bind(program(body), {"LM": found.model}, Row({"X": "1+1"}, {}), batch_size=2000)[0]
    texts = [{"Z": z} for size in range(6) for z in itertools.product(range(4), repeat=size)]
    density = target.log_density(texts).total
    states = [state for state, value in zip(texts, density, strict=True) if np.isfinite(value)]
    assert {"Z": (0, 1, 0, 2, 3)} in states
    scores = log_joint(target, states, "LM", found.model, {}).detach().numpy()
    np.testing.assert_allclose(scores, density[np.isfinite(density)], atol=1e-4)


def test_the_gradient_is_that_of_the_log_evidence(adapted):
    """Fisher's identity, with the posterior enumerated: E[∇ log p(z, y)] = ∇ log Σ p(z, y)."""
    target = bind(program(), {"LM": adapted.model}, ROWS[0], batch_size=512)[0]
    states = [s for s in every_state(target) if np.isfinite(target.log_density([s]).total[0])]

    def gradient(of):
        adapted.model.forget_prompts()
        for value in adapted.parameters.values():
            value.grad = None
        opened = {}
        of(log_joint(target, states, "LM", adapted.model, opened)).backward()
        for prompt in opened.values():
            prompt.backward()
        return torch.cat([value.grad.flatten() for value in adapted.parameters.values()])

    weights = torch.softmax(torch.as_tensor(target.log_density(states).total), 0)
    expected = gradient(lambda scores: torch.logsumexp(scores, 0))
    torch.testing.assert_close(gradient(lambda scores: weights @ scores), expected, atol=1e-4, rtol=1e-3)
    assert expected.norm() > 0.1
    uniform = torch.full_like(weights, 1 / len(weights))
    assert (gradient(lambda scores: uniform @ scores) - expected).norm() > 0.1 * expected.norm()


def test_maximising_makes_the_expectation_larger_and_leaves_the_base_alone():
    base = tiny.model(seed=4)
    found = adapter.add(base, rank=4, alpha=8, targets="all-linear", seed=1)
    target = bind(program(), {"LM": base}, ROWS[0], batch_size=512)[0]
    states = [s for s in every_state(target) if np.isfinite(target.log_density([s]).total[0])]
    before = target.log_density(states).total
    weights = np.exp(before - np.logaddexp.reduce(before))
    losses = []
    case = Case(target, states, weights)
    maximise(
        [case], "LM", found, Fit(steps=30, draws=64, learning_rate=3e-3), 0, lambda step, loss: losses.append(loss)
    )
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_array_equal(target.log_density(states).total, before)
    learned = bind(program(), {"LM": found.model}, ROWS[0], batch_size=512)[0].log_density(states).total
    assert weights @ learned == pytest.approx(-losses[-1], abs=0.3)
    assert np.logaddexp.reduce(learned) > np.logaddexp.reduce(before) + 0.5  # the log evidence has gone up as well
