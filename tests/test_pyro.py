"""A program as a Pyro model, and the Metropolis-Hastings kernel under Pyro's own driver."""

import grid
import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC

from lmppl.engines.amortised.policy import Policy
from lmppl.lm.transformers import adapter
from lmppl.pyro import SuffixKernel, pad, pyro_guide, pyro_model, unpad


@pytest.fixture(scope="module")
def models():
    return grid.models()


@pytest.mark.parametrize(
    "cell", [("tempered", "free", "choice"), ("plain", "until", "observe"), ("product", "cut", "nothing")]
)
def test_log_joint_is_the_log_density(cell, models):
    target = grid.target(cell, models)
    states = list(grid.Reference(cell, models).states())[:12]
    density = target.log_density(states).total
    lengths = {latent.name: getattr(latent, "maximum", 0) for latent in target.latents}
    for state, expected in zip(states, density, strict=True):
        values = {
            name: pad(value, lengths[name]) if isinstance(value, tuple) else torch.tensor(value)
            for name, value in state.items()
        }
        trace = poutine.trace(poutine.condition(pyro_model(target), data=values)).get_trace()
        assert abs(float(trace.log_prob_sum()) - expected) < 1e-4


@pytest.mark.slow
def test_forward_draws_follow_a_plain_prior(models):
    cell = ("plain", "free", "nothing")
    target = grid.target(cell, models)
    pyro.set_rng_seed(0)
    lengths = [len(unpad(poutine.trace(pyro_model(target)).get_trace().nodes["Z"]["value"])) for _ in range(100)]
    states = list(grid.Reference(cell, models).states())
    law = np.exp(target.log_density(states).total)
    expected = sum(p * len(state["Z"]) for p, state in zip(law, states, strict=True))
    assert abs(np.mean(lengths) - expected) < 4 * np.std(lengths) / np.sqrt(100)


@pytest.mark.slow
def test_the_kernel_runs_under_pyro(models):
    cell = ("tempered", "free", "nothing")
    target = grid.target(cell, models)
    mcmc = MCMC(SuffixKernel(target, seed=1), num_samples=300, warmup_steps=20, disable_progbar=True)
    mcmc.run()
    drawn = mcmc.get_samples()["Z"]
    assert drawn.shape == (300, 3)
    states = list(grid.Reference(cell, models).states())
    density = target.log_density(states).total
    law = np.exp(density - np.logaddexp.reduce(density))
    expected = sum(p * len(state["Z"]) for p, state in zip(law, states, strict=True))
    lengths = [len(unpad(row)) for row in drawn]
    assert abs(np.mean(lengths) - expected) < 0.25


def test_a_policy_is_a_guide_of_the_model(models):
    """The mean of model / guide over draws of the guide is the evidence, as in any Pyro importance sampling."""
    target = grid.target(("plain", "free", "choice"), {"LM": grid.models()["LM"]})
    added = adapter.add(target.models["LM"], rank=4, alpha=8, targets="all-linear", seed=0)
    for name, value in added.parameters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(1))
    policy = Policy(added, frozenset({"Z", "Y"}))
    pyro.set_rng_seed(0)
    ratios, differs = [], False
    for _ in range(12):
        guide = poutine.trace(pyro_guide(target, policy)).get_trace()
        model = poutine.trace(poutine.replay(pyro_model(target), trace=guide)).get_trace()
        ratios.append(float(model.log_prob_sum() - guide.log_prob_sum()))
        state = {"Z": unpad(guide.nodes["Z"]["value"]), "Y": int(guide.nodes["Y"]["value"])}
        assert abs(float(guide.log_prob_sum()) - policy.trace(target, [state]).total[0]) < 1e-4
        differs = differs or abs(ratios[-1]) > 0.05
    weights = np.exp(ratios)
    assert differs
    assert abs(weights.mean() - 1) < 4 * weights.std() / np.sqrt(len(weights))  # a plain prior has evidence 1
