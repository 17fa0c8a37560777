"""What each move says of itself, log q(old) − log q(new), and what decides an exchange: held against what models say.

Whole transition matrices are in laws/test_kernel.py; here a ratio that is wrong shows in a second.
"""

import numpy as np
import pytest
from test_by_hand import bound

from lmppl.decoding import Purpose, Randomness
from lmppl.engines.defensive import Defended
from lmppl.engines.mcmc_kernel.coupling import Meetings
from lmppl.engines.mcmc_kernel.kernel import Kernel
from lmppl.engines.mcmc_kernel.moves import Move
from lmppl.engines.mcmc_kernel.tempering import _exchange

COUNT = 60
KEYS = [(number, 0) for number in range(COUNT)]
LATER = [(number, 1) for number in range(COUNT)]


def setting(text):
    """A kernel, and chains at draws of the prior."""
    kernel = Kernel(bound(text), Randomness(0), early=False)
    return kernel, kernel.start(KEYS)


def tokenwise(kernel, states):
    """Per state, (positions, temperatures) log q of its text's tokens, from one pass over texts that are there."""
    target = kernel.target
    return target.trace("Z", states, kernel.ladder(target.latents[0])).log_proposal


def start(scores):
    """log q₀ of a text: each temperature draws it as often."""
    return np.logaddexp.reduce(scores.sum(0)) - np.log(scores.shape[1])


def proposed(kernel, chain_states, propose, move):
    """The moves that led to another state: old and new scores, and the ratio that the kernel gives them."""
    changing = [i for i, chain_state in enumerate(chain_states) if move.changes(chain_state)]
    old = [chain_states[i] for i in changing]
    found = propose(old, [move] * len(old), [LATER[i] for i in changing], [1.0] * len(old))
    pairs = [(w, c, ratio) for w, (c, ratio) in zip(old, found, strict=True) if c is not None and c.state != w.state]
    assert len(pairs) > 1
    before, after = (tokenwise(kernel, [pair[side].state for pair in pairs]) for side in (0, 1))
    return before, after, [ratio for _, _, ratio in pairs]


@pytest.mark.parametrize(("cut", "component"), [(0, 1), (1, 0), (2, 1)])
def test_a_suffix_is_told_by_the_tokens_that_were_drawn_again(cut, component):
    kernel, chain_states = setting('Z ~ LM(" a")^2 max 3 tokens\n')
    before, after, found = proposed(
        kernel, chain_states, kernel.text_moves.suffixes, Move("suffix", 0, kernel.target.latents[0], component, cut)
    )
    expected = [old[cut:, component].sum() - new[cut:, component].sum() for old, new in zip(before, after, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(("cut", "length"), [(0, 1), (0, 2), (1, 1)])
def test_a_span_is_told_by_its_own_tokens(cut, length):
    """What comes behind it has another probability too, but is not drawn."""
    kernel, chain_states = setting('Z ~ LM(" b")^2 max 3 tokens\nobserve " b." ~ LM(" a{Z}")\n')
    before, after, found = proposed(
        kernel, chain_states, kernel.text_moves.spans, Move("span", 0, kernel.target.latents[0], 1, cut, length)
    )
    span = slice(cut, cut + length)
    expected = [old[span, 1].sum() - new[span, 1].sum() for old, new in zip(before, after, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["whole suffix", "restart"])
def test_what_keeps_nothing_is_told_by_the_law_of_starts(name):
    kernel, chain_states = setting('Z ~ LM(" a")^2 max 3 tokens\n')
    latent = kernel.target.latents[0]
    move = Move("restart", 0) if name == "restart" else Move("suffix", 0, latent, whole=True)
    propose = kernel._starts if name == "restart" else kernel.text_moves.suffixes
    before, after, found = proposed(kernel, chain_states, propose, move)
    np.testing.assert_allclose(
        found, [start(old) - start(new) for old, new in zip(before, after, strict=True)], atol=1e-9
    )


def test_a_choice_is_told_by_the_prior_of_its_options():
    kernel, chain_states = setting('Y ~ LM(" a") in [" a", " b"]\nobserve " b" ~ LM(" b{Y}")\n')
    law = kernel.target.models["LM"].law((0,))[:2]
    move = Move("choice", 0.0, kernel.target.latents[0])
    found = kernel._choices(chain_states, [move] * COUNT, LATER, [1.0] * COUNT)
    expected = [law[old.state["Y"]] - law[new.state["Y"]] for old, (new, _) in zip(chain_states, found, strict=True)]
    np.testing.assert_allclose([ratio for _, ratio in found], expected, atol=1e-9)
    assert np.ptp(expected) > 0.1


def test_every_scored_position_can_be_drawn_again():
    """The end token is scored where nothing cut the text; a span has text behind it or ends with it."""
    kernel, chain_states = setting('Z ~ LM(" a")^2 max 3 tokens\n')
    latent = kernel.target.latents[0]
    lengths = {len(chain_state.state["Z"]) for chain_state in chain_states}
    assert {0, 3} <= lengths
    for chain_state in chain_states:
        length = len(chain_state.state["Z"])
        cuts = [cut for cut in range(3) if Move("suffix", 0.0, latent, 0, cut).changes(chain_state)]
        assert cuts == list(range(min(length + 1, 3)))
        spans = [cut for cut in range(3) if Move("span", 0.0, latent, 0, cut, 1).changes(chain_state)]
        assert spans == list(range(length))


def test_an_exchange_is_decided_by_what_each_state_is_worth_over_its_start():
    kernel, chain_states = setting('Z ~ LM(" a")^2 max 3 tokens\n')
    warm, cold = chain_states[: COUNT // 2], chain_states[COUNT // 2 :]
    keys, low, high = KEYS[: COUNT // 2], 0.25, 1.0
    states = [chain_state.state for chain_state in chain_states]
    worth = kernel.target.log_density(states).total - [start(scores) for scores in tokenwise(kernel, states)]
    gain = (high - low) * (worth[: COUNT // 2] - worth[COUNT // 2 :])
    uniforms = [kernel.randomness.uniforms(*key, Purpose.EXCHANGES, 1)[0] for key in keys]
    found = _exchange(kernel, [list(warm), list(cold)], (low, high), 0, keys)
    assert found.tolist() == (np.log1p(-np.array(uniforms)) < gain).tolist()
    assert 0 < found.sum() < len(found)


def test_the_bound_of_coupled_pairs_counts_whole_lags():
    """Biswas, Jacob and Vanetti (2019), eq. 6: ⌈(τ − L − t) / L⌉, where it is above 0."""
    meetings = Meetings(10, (10, 15, 31))
    assert meetings.bound(0) == pytest.approx((0 + 1 + 3) / 3)
    assert meetings.bound(5) == pytest.approx((0 + 0 + 2) / 3)


def test_a_defended_sampler_draws_from_both_as_often_as_their_shares():
    mixed = Defended(None, 0.25).mixed(np.log(0.5), np.log(0.1))
    assert mixed == pytest.approx(np.log(0.75 * 0.5 + 0.25 * 0.1))
