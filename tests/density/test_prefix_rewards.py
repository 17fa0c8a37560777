"""Rewards of all prefixes in one pass are what the density gives for each prefix as a state of its own."""

import functools
import itertools

import grid
import numpy as np
import pytest
import tiny
import torch
from quick import marked
from toy import ToyModel
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.density.prefixes import closing_token, prefix_log_density
from lmppl.errors import raise_errors
from lmppl.lm import tree
from lmppl.lm.transformers import attention, huggingface, scored_trees
from lmppl.source import Source

FULL_STOP = 2  # of tiny.WORDS
PROMPT = (0, 1, 1)
BRANCHED = [((0, 1, 2), 0), ((0, 1, 1, 0), 2), ((0, 2, 1, 1), 1), ((1, 0, 0), 0), ((0,), 0)]
GROUPS = [BRANCHED, [((2,), 0), ((2, 2), 2)], [((1, 0), 1)]]


@pytest.fixture(scope="module")
def models():
    return grid.models()


def build(text, language_models, row=None, **options):
    analysis = analyse(Source("test", text), grid.FOLDER)
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return bind(analysis.program, language_models, row or Row({}, {}), **options)[0]


def loop(target, name, states, closing, one_call=False):
    """The naive way: every prefix that stops is a state of its own. (T + 1,) a state."""
    stopping = target.text_latent(name).stopping
    totals, places, prefixes = [], [], []
    for state in states:
        tokens = state[name]
        totals.append(np.full(len(tokens) + 1, -np.inf))
        for t in range(len(tokens) + 1):
            stopped = tokens[:t] if closing is None or t == len(tokens) else (*tokens[:t], closing)
            if stopping.legal(stopped):
                places.append((totals[-1], t))
                prefixes.append({**state, name: stopped})
    calls = [prefixes] if one_call else [[prefix] for prefix in prefixes]
    values = np.concatenate([target.log_density(call).total for call in calls]) if prefixes else []
    for (total, t), value in zip(places, values, strict=True):
        total[t] = value
    return totals


def assert_equals_loop(target, name, states, closing, **tolerance):
    rewards = prefix_log_density(target, name, states)
    expected = loop(target, name, states, closing, one_call=True)
    for reward, total, state in zip(rewards, expected, states, strict=True):
        assert reward.closing == closing
        assert reward.total.dtype == np.float64
        np.testing.assert_allclose(reward.total, total, **(tolerance or {"atol": 1e-4}), err_msg=str(state))
    return rewards


# --- the law --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", marked(grid.CELLS, grid.LENGTHY))
def test_every_prefix_is_a_state_of_its_own(cell, models):
    target = grid.target(cell, models)
    states = list(grid.Reference(cell, models).states())
    closing = FULL_STOP if cell[1] == "until" else None
    rewards = assert_equals_loop(target, "Z", states, closing)
    for reward, prefixes in zip(rewards, target.prefixes("Z", states), strict=True):
        np.testing.assert_allclose(reward.prior, prefixes.running, atol=1e-4)


@pytest.mark.parametrize("cell", marked(cell for cell in grid.CELLS if cell[1] != "until"))
def test_they_are_what_the_program_denotes(cell, models):
    """The same against the density that other code computes token by token."""
    reference = grid.Reference(cell, models)
    states = list(reference.states())[:: 9 if "W" in grid.text(*cell) else 1]
    for state, reward in zip(states, prefix_log_density(grid.target(cell, models), "Z", states), strict=True):
        expected = [reference.log_density({**state, "Z": state["Z"][:t]}) for t in range(len(state["Z"]) + 1)]
        np.testing.assert_allclose(reward.total, expected, atol=1e-4)


@pytest.mark.parametrize("extra", ["two texts", "between"])
def test_a_later_text(extra, models):
    cell = ("tempered", "free", extra)
    target = grid.target(cell, models)
    states = list(grid.Reference(cell, models).states())
    assert_equals_loop(target, "W", states[:: len(states) // 60], 1 if extra == "between" else None)


PROGRAMS = {
    "joins": 'Z ~ LM(" a") max 4 tokens\nobserve " b." | " a", Z, " b", Z, " ."',  # read twice, spaces that vary
    "observed": 'Z ~ LM(" a") max 4\nW ~ LM("{Z} b")^0.5 max 3 tokens\nY ~ LM("{W}{Z}") in [" a", "."]',
    "contrast": 'Z ~ LM(" a")^1.4 * LM("")^-0.4 until "." max 4\nobserve " a b" ~ LM(" b{Z}")^1.3 * LM("{Z}")^-0.2',
    "guarded": 'V ~ LM("") max 2\nZ ~ LM("{V}") max 4\nW ~ LM("{Z}{V}") max 2\nconstrain tokens(W) > 0\n'
    "constrain tokens(Z) >= tokens(W)\nfactor 1 / tokens(W)\nfactor -0.5 * tokens(Z) * tokens(V)",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_contexts_and_factors_of_all_kinds(program, models):
    observed = {"W": " a b", "Y": "."} if program == "observed" else {}
    text = 'lm LM = "tiny"\n' + PROGRAMS[program] + "\n"
    target = build(text, {"LM": models["LM"]}, Row({}, observed))
    rng = np.random.default_rng(0)
    limits = {latent.name: latent.maximum for latent in target.latents}
    draw = lambda most: tuple(int(token) for token in rng.integers(0, 3, size=rng.integers(0, most + 1)))  # noqa: E731
    states = [{name: draw(most) for name, most in limits.items()} for _ in range(60)]
    assert_equals_loop(target, "Z", states, FULL_STOP if program == "contrast" else None)


def test_expressions_of_other_latents_are_evaluated_once_a_state(models):
    calls = []
    target = build(
        'lm LM = "tiny"\nuse odd from "helpers.py"\nZ ~ LM("") max 3 tokens\nW ~ LM("{Z}") max 2 tokens\n'
        "constrain odd(W)\n",
        {"LM": models["LM"]},
        helpers={"odd": lambda text: calls.append(text) or True},
    )
    prefix_log_density(target, "Z", [{"Z": (0, 1, 0), "W": (0,)}, {"Z": (1,), "W": (1,)}])
    assert calls == [" a", " b"]


def test_a_choice_summed_out(models):
    cell = ("plain", "free", "choice")
    target = grid.target(cell, models)
    texts = [(0, 1, 2), (), (1, 1)]
    summed = prefix_log_density(target, "Z", [{"Z": z, "Y": 0} for z in texts], marginal=("Y",))
    each = [prefix_log_density(target, "Z", [{"Z": z, "Y": y} for z in texts]) for y in range(3)]
    for i, one in enumerate(summed):
        np.testing.assert_allclose(one.total, np.logaddexp.reduce([rewards[i].total for rewards in each]), atol=1e-5)
        np.testing.assert_allclose(one.prior, each[0][i].prior, atol=1e-5)


@pytest.mark.parametrize("marginal", [(), ("Y",)])
def test_chosen_prefixes_are_scored_as_among_all_and_the_others_are_not(marginal, models):
    target = grid.target(("plain", "free", "choice"), models)
    states = [{"Z": z, "Y": 1} for z in ((0, 1, 2), (), (1, 1))]
    lengths = [{0, 3}, {0}, {2}]
    every = prefix_log_density(target, "Z", states, marginal)
    some = prefix_log_density(target, "Z", states, marginal, lengths)
    for one, own, chosen in zip(every, some, lengths, strict=True):
        for length, (whole, part) in enumerate(zip(one.total, own.total, strict=True)):
            assert part == (pytest.approx(whole, abs=1e-5) if length in chosen else -np.inf)
        np.testing.assert_allclose(one.prior, own.prior, atol=1e-5)


def test_few_prefixes_cost_few_tokens(models):
    target = build(
        'lm LM = "tiny"\nZ ~ LM(" a") max 20 tokens\nobserve " a b a" | Z\n', {"LM": models["LM"]}
    )  # fmt: skip
    states = [{"Z": tuple(itertools.islice(itertools.cycle((0, 1, 1)), 20))}]
    _, every = passes(target, lambda: prefix_log_density(target, "Z", states))
    _, some = passes(target, lambda: prefix_log_density(target, "Z", states, lengths=[{3, 9}]))
    assert some < every / 2


def test_no_states(models):
    assert prefix_log_density(grid.target(("plain", "free", "observe"), models), "Z", []) == []


@pytest.mark.parametrize("cell", [("plain", "until", "observe"), ("tempered", "free", "choice")], ids="-".join)
def test_a_model_that_sees_rows_only(cell):
    target = grid.target(cell, {"LM": ToyModel()})
    states = list(grid.Reference(cell, grid.models()).states())
    assert_equals_loop(target, "Z", states, FULL_STOP if cell[1] == "until" else None, atol=1e-12)


# --- where a text ends ----------------------------------------------------------------------------


def test_the_canonical_end_is_the_shortest_token_that_holds_it():
    words = (" a", "b", "ab.", ".", ".\n")
    model = tiny.model(words, seed=3)

    def closing(until):
        target = build(f'lm LM = "tiny"\nZ ~ LM(" a") until "{until}" max 3 tokens\n', {"LM": model})
        return closing_token(target.text_latent("Z").stopping, model)

    assert closing(".") == words.index(".")
    assert closing("b.") == words.index("ab.")
    assert closing(" ab") is None


def test_texts_that_no_one_token_ends_stop_only_where_they_do(models):
    target = build('lm LM = "tiny"\nZ ~ LM(" a") until " a b" max 3 tokens\n', {"LM": models["LM"]})
    (reward,) = assert_equals_loop(target, "Z", [{"Z": (1, 0, 1)}], None)
    assert np.isfinite(reward.total).tolist() == [False, False, False, True]
    assert np.isfinite(reward.prior).all()


def test_the_text_itself_is_taken_as_it_is():
    """A text that ended with another token than the canonical one."""
    words = (" a", ".", ".\n")
    target = build('lm LM = "tiny"\nZ ~ LM(" a") until "." max 3 tokens\n', {"LM": tiny.model(words, seed=3)})
    (reward,) = assert_equals_loop(target, "Z", [{"Z": (0, 2)}], 1)
    assert reward.total[2] == pytest.approx(target.log_density([{"Z": (0, 2)}]).total[0], abs=1e-5)
    assert np.isfinite(reward.total).all()


# --- trees ----------------------------------------------------------------------------------------


def one_by_one(model, groups=GROUPS, prompt=PROMPT):
    return tree.score_one_by_one(model, prompt, groups)


def assert_same(left, right, atol=1e-4):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, atol=atol)


@pytest.mark.parametrize("most_nodes", [1, 3, 1000])
def test_trees_score_as_rows_do(tiny_model, monkeypatch, most_nodes):
    monkeypatch.setattr(tree, "MOST_NODES", most_nodes)
    assert_same(tiny_model.score_trees(PROMPT, GROUPS), one_by_one(tiny_model))


def test_one_softmax_over_both_parts_is_the_same(tiny_model, monkeypatch):
    """The way of devices other than the processor."""
    monkeypatch.setattr(attention, "_has_fused", lambda query: False)
    assert_same(tiny_model.score_trees(PROMPT, GROUPS), one_by_one(tiny_model))


def test_small_batches_and_several_end_tokens(monkeypatch):
    model = tiny.model(ends=("<end>", "<stop>"), seed=2)
    groups = [*GROUPS, [((0, model.ends[0]), 0), ((model.ends[1],), 0)]]
    together = model.score_trees(PROMPT, groups)
    assert_same(together, one_by_one(model, groups))
    assert together[-1][1] == -np.inf
    monkeypatch.setattr(huggingface, "MOST_LOGITS", 1)
    assert_same(model.score_trees(PROMPT, groups), together)


def test_less_at_a_time_where_memory_runs_out(tiny_model, monkeypatch):
    run, sizes = scored_trees.run_trees, []

    def small(network, ready, trees, kept):
        sizes.append(len(trees))
        if len(trees) > 1:
            raise torch.cuda.OutOfMemoryError
        return run(network, ready, trees, kept)

    monkeypatch.setattr(scored_trees, "run_trees", small)
    assert_same(tiny_model.score_trees(PROMPT, GROUPS[:1] * 3), one_by_one(tiny_model, GROUPS[:1] * 3))
    assert sizes == [3, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        (tiny.of_another_kind(GPT2Config, GPT2LMHeadModel), True),
        (tiny.of_another_kind(Qwen3Config, Qwen3ForCausalLM), True),
        (tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=3), False),
    ],
    ids=["learned positions", "normalised queries", "sliding window"],
)
def test_models_of_other_kinds(model, shares):
    """A model that cannot share its prompt runs row by row."""
    expected = one_by_one(model)
    before = model.cost.tokens_scored
    assert_same(model.score_trees(PROMPT, GROUPS), expected)
    assert (model.prompt(PROMPT).shared is not None) == shares
    assert (model.cost.tokens_scored - before == 7 + 1) == shares  # beginnings that rows of GROUPS share or end behind


# --- what would go unnoticed, and the work --------------------------------------------------------


def seen_one_off(original, planted, width):
    """Every branch also sees the token next to its own beginning."""
    seen = original(planted, width)
    for node, parent in enumerate(planted.parents):
        if node and parent < node - 1:
            seen[node, node - 1] = True
    return seen


def too_little(original, planted, width):
    """The parent is left out."""
    seen = original(planted, width)
    for node, parent in enumerate(planted.parents):
        if parent >= 0:
            seen[node, parent] = False
    return seen


@pytest.mark.parametrize("planted", [seen_one_off, too_little])
def test_a_mask_one_off_is_seen(models, monkeypatch, planted):
    monkeypatch.setattr(scored_trees, "ancestry", functools.partial(planted, tree.ancestry))
    assert_wrong(models)


def test_positions_that_go_on_are_seen(models, monkeypatch):
    """Positions by place in the row in place of by depth."""
    path = tree.Tree.path

    def straight(self, tokens):
        nodes = path(self, tokens)
        self.depths = list(range(len(self)))
        return nodes

    monkeypatch.setattr(tree.Tree, "path", straight)
    assert_wrong(models)


def assert_wrong(models):
    cell = ("plain", "free", "observe")
    target = grid.target(cell, models)
    with pytest.raises(AssertionError):
        assert_equals_loop(target, "Z", list(grid.Reference(cell, models).states()), None, atol=1e-2)


def passes(target, action):
    """Forward passes and tokens, prompts being known."""
    action()
    before = [(model.cost.forward_passes, model.cost.tokens_scored) for model in target.models.values()]
    action()
    after = [(model.cost.forward_passes, model.cost.tokens_scored) for model in target.models.values()]
    return np.sum(after, axis=0) - np.sum(before, axis=0)


def test_one_pass_a_factor_whatever_the_length(models):
    target = build(
        'lm LM = "tiny"\nZ ~ LM(" a") max 20 tokens\nobserve " a b a" | Z\n', {"LM": models["LM"]}
    )  # fmt: skip
    z = tuple(itertools.islice(itertools.cycle((0, 1, 1)), 20))
    num_tree, tokens_tree = passes(target, lambda: prefix_log_density(target, "Z", [{"Z": z}]))
    num_loop, tokens_loop = passes(target, lambda: loop(target, "Z", [{"Z": z}], None))
    assert (num_tree, num_loop) == (2, 21)  # the loop asks for the prior and the observation in one
    assert tokens_tree < tokens_loop / 3


# --- the default model ----------------------------------------------------------------------------

INFILL = """lm LM = "smollm2-135m"
given X, Y
Z ~ LM(X){} max 25 tokens
observe Y | X, Z
"""
STORY = {
    "X": "Marta had never seen the sea before that summer.",
    "Y": "When she came home she told everyone about the waves and the salt on her lips.",
}


@pytest.mark.model
@pytest.mark.parametrize("ending", ["", ' until "."'], ids=["free", "until"])
def test_infilling_on_the_default_model(smollm2, ending):
    target = build(INFILL.format(ending), {"LM": smollm2}, Row(STORY, {}))
    rng = np.random.default_rng(0)
    component = np.zeros(2, dtype=np.int64)
    draws = target.roll_out("Z", [{}] * 2, temperatures=(0.8,), component=component, uniforms=rng.random((2, 25)))
    states = [{"Z": tuple(int(t) for t in row)} for row in draws.tokens]
    closing = smollm2.encode(".", markers=False)[0] if ending else None
    rewards = assert_equals_loop(target, "Z", states, closing, rtol=0, atol=1e-3)  # of about 100 nats
    assert max(len(reward.total) for reward in rewards) > 10
