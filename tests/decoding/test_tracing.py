"""Texts that are there already: scored in one pass a model as if they had been drawn; what they share is run once."""

import grid
import numpy as np
import pytest
import tiny
import torch
from quick import marked

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding import tracing
from lmppl.decoding.proposal_law import Hot, Laws
from lmppl.decoding.randomness import Randomness
from lmppl.decoding.rollout import FREE
from lmppl.density.binding import bind
from lmppl.engines.amortised.policy import Policy
from lmppl.engines.amortised.proposing import Trained
from lmppl.engines.defensive import Defended
from lmppl.engines.proposals import draw_prior, ladder_of, log_prior, trace_prior
from lmppl.lm.transformers import adapter
from lmppl.source import Source

HURRIED, TRIMMED = (Hot(1.0, hurried=True), Hot(0.5, hurried=True)), (Hot(2.0, 0.1), Hot(2.0, 0.1, hurried=True))
TEMPERATURES = (1.0, 0.4, *HURRIED, *TRIMMED)
CELLS = [cell for cell in grid.CELLS if cell[2] in (*grid.NOT_CROSSED, "nothing", "constraint")]
# the shape of programs/infill.lm
INFILL = 'lm LM = "tiny"\ngiven X, Y\nZ ~ LM(X) until "." max 20 tokens\nobserve Y | X, Z\nguide Z | "{Y}{X}"\n'
WORDS = (*(f" {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"), ".")
GIVEN = {"X": " a b c d", "Y": " e f g h i."}
OBSERVED = "observe Y"


def test_hot_laws_may_leave_out_what_is_improbable():
    base = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * 3
    law = torch.softmax(base, -1)
    kept = law >= 0.05 * law.amax(-1, keepdim=True)
    expected = torch.where(kept, law.sqrt(), 0)
    expected /= expected.sum(-1, keepdim=True)
    laws = Laws(base, (1.0, Hot(2.0, 0.05)))
    torch.testing.assert_close(laws.whole(1).exp(), expected)
    torch.testing.assert_close(laws.whole(0).exp(), law)
    for token in range(40):
        columns = np.exp(laws.at(np.full(6, token)))
        np.testing.assert_allclose(columns, torch.stack([law, expected], -1)[:, token], atol=1e-6)
    drawn = [laws.draw(np.ones(6, dtype=np.int64), np.full(6, level)) for level in np.linspace(0, 0.999, 200)]
    for row in range(6):
        assert {int(tokens[row]) for tokens in drawn} <= set(kept[row].nonzero()[:, 0].tolist())


@pytest.fixture(scope="module")
def models():
    return grid.models()


def decoded(target, name, states, temperatures):
    """Scores of texts by a rollout that is made to draw them, token by token."""
    bound = target.text_latent(name)
    forced = np.full((len(states), bound.latent.maximum), FREE, dtype=np.int64)
    for row, state in zip(forced, states, strict=True):
        scored = bound.stopping.scored(state[name])
        row[: len(scored)] = scored
    plan = {"component": np.zeros(len(states), dtype=np.int64), "uniforms": np.zeros(forced.shape), "forced": forced}
    return target.roll_out(name, states, temperatures=temperatures, **plan)


@pytest.mark.parametrize("cell", marked(CELLS, grid.LENGTHY))
def test_tracing_is_drawing_in_one_pass(cell, models, monkeypatch):
    """The same numbers at every position and temperature, however many rows are held at once."""
    target = grid.target(cell, models)
    every = list(grid.Reference(cell, models).states())
    states = [state for i, state in enumerate(every) if i % 7 < 2 or cell[2] == "tool"]
    for latent in target.latents:
        if not isinstance(states[0][latent.name], tuple):
            continue
        expected = decoded(target, latent.name, states, TEMPERATURES)
        for room in (tracing.MOST_LAWS, 1, 40):
            monkeypatch.setattr(tracing, "MOST_LAWS", room)
            traced = target.trace(latent.name, states, TEMPERATURES)
            assert traced.tokens == expected.tokens == [state[latent.name] for state in states]
            for field in ("log_prior", "log_proposal"):
                pairs = zip(vars(traced)[field], vars(expected)[field], strict=True)
                for mine, theirs in pairs:
                    assert mine.shape == theirs.shape
                    np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_nothing_is_decoded(models):
    target = grid.target(("product", "free", "nothing"), models)
    states = list(grid.Reference(("product", "free", "nothing"), models).states())
    for model in models.values():
        model.forget_prompts()
    before = [(model.cost.tokens_decoded, model.cost.forward_passes) for model in target.models.values()]
    target.trace("Z", states, TEMPERATURES)
    after = [(model.cost.tokens_decoded, model.cost.forward_passes) for model in target.models.values()]
    # a pass for the prompt and one for the rows, of each term
    assert [(now[0] - then[0], now[1] - then[1]) for now, then in zip(after, before, strict=True)] == [(0, 4), (0, 2)]


def test_texts_that_nothing_draws_stay_as_they_are(models):
    """One that does not reach its `until` text is not made longer, and is impossible."""
    target = grid.target(("plain", "until", "nothing"), models)
    traced = target.latent("Z").traced(target, [{"Z": (0,)}, {"Z": (0, 2)}])
    assert traced.values == [(0,), (0, 2)]
    np.testing.assert_array_equal(np.isfinite(log_prior(target, "Z", traced)), [False, True])


# --- work -----------------------------------------------------------------------------------------


@pytest.fixture
def infill():
    """A target of that shape, under a model of its own with words enough for texts to differ, its prompts run."""
    model = tiny.model(WORDS, seed=3, scale=0.3)
    program = analyse(Source("infill", INFILL), ".").program
    assert program is not None
    target = bind(program, {"LM": model}, Row(GIVEN, {}), batch_size=64)[0]
    draw(target)
    return target


def draw(target, count=40):
    return draw_prior(target, [(0, i) for i in range(count)], Randomness(1))


def work(target, run):
    """What `run` gives, and the tokens that it decodes and scores."""
    (model,) = target.models.values()
    decoded, scored = model.cost.tokens_decoded, model.cost.tokens_scored
    result = run()
    return result, model.cost.tokens_decoded - decoded, model.cost.tokens_scored - scored


def length(rows):
    """Tokens of rows, those that others begin with left out."""
    distinct = set(rows)
    return sum(len(row) for row in distinct if not any(o != row and o[: len(row)] == row for o in distinct))


def behind_texts(target, states):
    """What is run to score the observation: it follows the text, mostly with nothing between them."""
    bound = target.scored_text(OBSERVED)
    return [suffix + bound.tokens[0][:-1] for suffix in target.suffixes(bound.terms[0], states)]


def test_an_observation_behind_a_text_shares_its_pass(infill):
    """The text's own prior is read from the pass that scores what comes after it."""
    states = draw(infill).states
    density, decoded, scored = work(infill, lambda: infill.log_density(states))
    assert decoded == 0
    behind = behind_texts(infill, states)
    assert scored == length([*behind, *(state["Z"][:-1] for state in states)])
    assert scored <= 1.02 * length(behind)
    alone = infill.log_density(states, {OBSERVED: np.zeros(len(states))}).factors["Z"]
    np.testing.assert_allclose(density.factors["Z"], alone, atol=1e-5)
    alone = infill.log_density(states, {"Z": np.zeros(len(states))}).factors[OBSERVED]
    np.testing.assert_allclose(density.factors[OBSERVED], alone, atol=1e-5)


def test_a_draw_of_a_policy_is_traced_in_one_pass(infill):
    """It costs its decoding, one pass for all temperatures and the prior, and the observation's."""
    added = adapter.add(infill.models["LM"], rank=2, alpha=4, targets="q_proj", seed=0)
    try:
        sampler = Trained(Policy(added, frozenset(["Z"])), infill)
        sampler.draw([(0, 0)], Randomness(0))  # runs the prompt
        keys = [(0, i) for i in range(40)]
        (states, _), decoded, scored = work(infill, lambda: sampler.draw(keys, Randomness(0)))
        assert scored == 0
        latent = infill.latent("Z")
        traced, again, ran = work(infill, lambda: trace_prior(infill, states, (1.0, 0.5)))
        assert ladder_of(infill, latent, (1.0, 0.5)) == (1.0, 0.5)
        assert (again, ran) == (0, length([state["Z"][:-1] for state in states]))
        density, again, ran = work(infill, lambda: infill.log_density(states, traced.known))
        assert (again, ran) == (0, length(behind_texts(infill, states)))
        np.testing.assert_allclose(density.total, infill.log_density(states).total, atol=1e-4)
        _, mixed, _ = work(infill, lambda: Defended(sampler, 0.5).draw(infill, keys, Randomness(0)))
        assert mixed < 1.3 * decoded  # each is decoded once, by one or the other
    finally:
        added.remove()
