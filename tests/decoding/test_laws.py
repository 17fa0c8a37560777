"""Tokens by inverting the distribution function, block by block, against one running total."""

import math

import numpy as np
import pytest
import torch

from lmppl.decoding.proposal_law import BLOCK, Hot, Laws, invert

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


@pytest.mark.slow
def test_shares_are_the_law():
    law = laws(2 * BLOCK + 3, 0)
    uniforms = (np.arange(100_000) + 0.5) / 100_000
    tokens = invert(law, np.tile(uniforms, (3, 1)))
    for row in range(3):
        shares = np.bincount(tokens[row], minlength=law.shape[1]) / len(uniforms)
        assert 0.5 * np.abs(shares - law[row].exp().numpy()).sum() < 2e-3


# --- laws that are cut or hurried, token by token as their definitions say -------------------------


def by_hand(base, temperature, *, top_p=1.0, min_p=0.0, closing=None):
    """(V,) the law of one row, in plain Python."""
    shares = [math.exp(x) for x in base]
    shares = [share if share >= min_p * max(shares) else 0.0 for share in shares]
    shares = [share ** (1 / temperature) for share in shares]
    shares = [share / sum(shares) for share in shares]
    if closing is not None and (ends := sum(shares[token] for token in closing)) > 0:
        shares = [0.5 * share + (0.5 * share / ends if t in closing else 0.0) for t, share in enumerate(shares)]
    if top_p < 1:
        kept, mass = set(), 0.0
        for token in sorted(range(len(shares)), key=lambda token: -shares[token]):
            if mass < top_p:  # the token that crosses the threshold is in
                kept.add(token)
                mass += shares[token]
        shares = [share / mass if token in kept else 0.0 for token, share in enumerate(shares)]
    return shares


CUT = {
    "temperature": (1.7, {}),
    "nucleus": (1.0, {"top_p": 0.8}),
    "nucleus of a cold law": (0.5, {"top_p": 0.6}),
    "min_p": (Hot(1.5, min_p=0.2), {"min_p": 0.2}),
    "hurried": (Hot(1.3, hurried=True), {"closing": [1, 4]}),
    "hurried with min_p": (Hot(1.3, min_p=0.1, hurried=True), {"min_p": 0.1, "closing": [1, 4]}),
}


@pytest.mark.parametrize("name", CUT)
def test_laws_are_what_their_definitions_say(name):
    temperature, words = CUT[name]
    base = torch.log_softmax(torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -2.0], [0.3, 0.2, 0.1, 0.0, 2.5, -0.1]]), -1)
    closing = np.isin(np.arange(6), words.get("closing", []))
    each = torch.from_numpy(np.tile(closing, (2, 1)))  # as masks tell it of every row
    for ends in (closing, each):
        check_by_hand(Laws(base, [temperature], ends, normalised=True, top_p=words.get("top_p", 1.0)), base, *CUT[name])


def check_by_hand(made, base, temperature, words):
    for row in range(2):
        expected = by_hand(base[row].tolist(), float(temperature), **words)
        np.testing.assert_allclose(made.whole(0)[row].exp().numpy(), expected, atol=1e-6)
        for token in range(6):
            one = np.exp(made.at(np.full(2, token)))[row, 0]
            assert one == pytest.approx(expected[token], abs=1e-6)


def test_rows_hurry_to_tokens_of_their_own():
    base = torch.log_softmax(torch.tensor([[2.0, 1.0, 0.5, 0.0]] * 3), -1)
    near = torch.tensor([[True, False, False, True], [False, True, False, False], [False] * 4])
    made = Laws(base, [1.0, 1.0, Hot(1.0, hurried=True)], near, normalised=True)
    for row in range(3):
        closing = np.flatnonzero(near[row].numpy()).tolist() or None  # a law that can bring nothing near is as it was
        expected = by_hand(base[row].tolist(), 1.0, closing=closing)
        np.testing.assert_allclose(made.whole(2)[row].exp().numpy(), expected, atol=1e-6)
        np.testing.assert_allclose(made.whole(2, np.array([row]))[0].exp().numpy(), expected, atol=1e-6)
        plain = base[row].exp().numpy()
        for token in range(4):
            columns = np.exp(made.at(np.full(3, token)))[row]
            np.testing.assert_allclose(columns, [plain[token], plain[token], expected[token]], atol=1e-6)
