"""Tokens by inverting the distribution function, block by block, against one running total."""

import numpy as np
import pytest
import torch

from lmppl.laws import BLOCK, invert

UNIFORMS = (0.0, 1e-9, 0.3, 0.7, 1 - 1e-9, 1 - 2**-53)


def laws(size, seed):
    """Two laws, of which one leaves out whole blocks, at its ends too; one point mass."""
    random = torch.Generator().manual_seed(seed)
    base = torch.randn(3, size, generator=random) * 5
    base[1, torch.rand(size, generator=random) < 0.7] = -torch.inf
    base[1, : size // 3] = base[1, -(size // 3) :] = -torch.inf
    base[1, size // 2] = 0
    base[2] = torch.where(torch.arange(size) == size - 1, 0.0, -torch.inf)
    return torch.log_softmax(base, -1)


@pytest.mark.parametrize("size", [4, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 7])
def test_tokens_are_those_of_one_running_total(size):
    for seed in range(5):
        law = laws(size, seed)
        uniforms = np.concatenate([UNIFORMS, np.random.default_rng(seed).random(60)])
        tokens = invert(law, np.tile(uniforms, (3, 1)))
        total = np.cumsum(law.double().exp().numpy(), axis=1)
        for row in range(3):
            assert np.isfinite(law[row, tokens[row]]).all()
            before = np.where(tokens[row] > 0, total[row, tokens[row] - 1], 0.0)
            level = uniforms * total[row, -1]
            assert (before <= level + 1e-6).all()
            assert (level <= total[row, tokens[row]] + 1e-6).all()


def test_shares_are_the_law():
    law = laws(2 * BLOCK + 3, 0)
    uniforms = (np.arange(100_000) + 0.5) / 100_000
    tokens = invert(law, np.tile(uniforms, (3, 1)))
    for row in range(3):
        shares = np.bincount(tokens[row], minlength=law.shape[1]) / len(uniforms)
        assert 0.5 * np.abs(shares - law[row].exp().numpy()).sum() < 2e-3
