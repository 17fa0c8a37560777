"""Policies and their training, part by part: densities with and without gradients, cut passes, rewards, replay."""

import itertools
from dataclasses import replace

import grid
import numpy as np
import pytest
import tiny
import torch
from quick import covered
from transformers import Gemma2Config, Gemma2ForCausalLM, Lfm2Config, Lfm2ForCausalLM, MistralConfig, MistralForCausalLM

import lmppl
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.randomness import Randomness
from lmppl.density.binding import bind
from lmppl.engines import gflownet, ppo
from lmppl.engines.amortised import checkpoint, trainer
from lmppl.engines.amortised.buffer import Buffer
from lmppl.engines.amortised.gradients import Gradients
from lmppl.engines.amortised.policy import DrawRequest, Policy, Wanted
from lmppl.engines.amortised.processes import Processes
from lmppl.engines.amortised.reward import Rewarded, joined, reward_of
from lmppl.engines.amortised.trainer import Task, learner_of
from lmppl.errors import LmpplError, raise_errors
from lmppl.lm import Rows, load_models, summed
from lmppl.lm.transformers import adapter
from lmppl.lm.transformers.uncached import UncachedModel
from lmppl.run import Request, run
from lmppl.screen.progress import quiet
from lmppl.source import Source


def program(body):
    analysis = analyse(Source("program", f'lm LM = "tiny"\n{body}'), grid.FOLDER)
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


def bound(body, model, row=None):
    return bind(program(body), {"LM": model}, row or Row({}, {}), batch_size=64)[0]


MODELS = {
    "llama": lambda: tiny.model(seed=6),
    "several ends": lambda: tiny.model(seed=6, ends=(tiny.END, "<stop>")),
    "beginning": lambda: tiny.model(seed=6, bos=True),
    "sliding window": lambda: tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=3),
    "window with room": lambda: tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=64),
    "soft cap": lambda: tiny.of_another_kind(Gemma2Config, Gemma2ForCausalLM, sliding_window=4),
}
WHOLE = {  # whose prompts leave more behind than keys and values, or nothing
    "states": lambda: tiny.of_another_kind(Lfm2Config, Lfm2ForCausalLM, layer_types=["conv", "full_attention"]),
    "no cache": lambda: UncachedModel(*tiny.build(seed=6)),
}
BODIES = {
    "plain": 'Z ~ LM(" a b")^1.5 max 4 tokens\nobserve " b" ~ LM(" a{Z}")\n',
    "until": 'Z ~ LM(" a b") until "." max 3 tokens\n',
    "mask": 'Z ~ LM(" a b") max 4 tokens\nconstrain matches(Z, /( a| b)*\\.?( a)?/) and tokens(Z) >= 1\n',
    "tool": (
        'use echo from "helpers.py"\nZ ~ LM(" a b")^1.5 with echo(trigger = " a") max 4 tokens\n'
        'constrain matches(Z, /( a| b)*\\.?( a)?/)\nobserve " b" ~ LM(" a{Z}")\n'
    ),
    "two latents": (
        'Z ~ LM(" a b") max 2 tokens\nW ~ LM(" b") max 3 tokens\nY ~ LM(" b{Z}") in [" a", " b a", "."]\n'
        'guide W | "{Z} b a{Z}"\n'
    ),
}


def fresh(target, seed=0, scale=0.3):
    """A policy whose adapter changes what the model says."""
    added = adapter.add(target.models["LM"], rank=4, alpha=8, targets="all-linear", seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, value in added.parameters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=scale, generator=generator)
    return Policy(added, frozenset(latent.name for latent in target.latents))


def drawn(policy, target, count=12):
    return policy.draw(target, [(0, i) for i in range(count)], Randomness(3, 0))


def task_of(target, options, engine=gflownet, numbers=(0,)):
    return Task([(number, target) for number in numbers], options, engine.recipe(options), 0, Processes())


def gradients(policy):
    return {name: value.grad.clone() for name, value in policy.adapter.parameters.items() if value.grad is not None}


def assert_alike(ours, theirs, tolerance=2e-4):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=tolerance)


# --- densities ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("body", "model"), covered(itertools.product(BODIES, MODELS)))
def test_log_q_is_the_same_when_drawn_traced_and_learned_from(body, model):
    target = bound(BODIES[body], MODELS[model]())
    policy = fresh(target)
    found = drawn(policy, target)
    opened = policy.open([target])
    (decisions,) = policy.decisions([Wanted(target, found.states)], opened)
    decisions.log_q.sum().backward()
    opened.backward()
    assert all(bool(value.isfinite().all()) for value in gradients(policy).values())
    policy.adapter.model.forget_prompts()
    traced = policy.trace(target, found.states).total
    np.testing.assert_allclose(traced, found.total, atol=1e-4)
    np.testing.assert_allclose(decisions.log_q.sum(1).detach().double().numpy(), found.total, atol=1e-3)
    by_prior = Policy(policy.adapter, frozenset()).trace(target, found.states).total
    assert np.abs(by_prior - found.total).max() > 0.05  # the adapter changes something


@pytest.mark.parametrize("body", [pytest.param(b, marks=() if b == "until" else pytest.mark.slow) for b in BODIES])
def test_rows_of_different_prompts_are_drawn_together_as_they_are_alone(body):
    """Equal texts and log q; fewer passes. The batch holds two of the four targets at a time."""
    model, text = tiny.model(seed=6), "given X\n" + BODIES[body].replace('LM(" a b"', 'LM("{X}"')
    rows = [Row({"X": x}, {}) for x in (" a b", " b", " a b a b b a", " b")]
    targets = [bind(program(text), {"LM": model}, row, batch_size=16)[0] for row in rows]
    policy, keys = fresh(targets[0]), [(0, i) for i in range(8)]
    component = np.arange(8) % 2
    asked = [DrawRequest(target, keys, Randomness(3, n), (1.0, 1.7), component) for n, target in enumerate(targets)]
    alone = [policy.draw_all([one])[0] for one in asked]
    passes = model.cost.forward_passes
    for one in asked:
        policy.draw_all([one])
    once = model.cost.forward_passes - passes
    together = policy.draw_all(asked)
    assert model.cost.forward_passes - passes - once < 0.75 * once
    for ours, theirs in zip(together, alone, strict=True):
        assert ours.states == theirs.states
        np.testing.assert_allclose(ours.total, theirs.total, atol=1e-4)
    assert len({tuple(state.items()) for drawn in together for state in drawn.states}) > 8  # they differ


RECIPES = {"plain": {}, "subtb": {"objective": "subtb"}, "micro batches": {"micro_batch": 2}}


@pytest.mark.parametrize(
    ("recipe", "short"),
    covered(itertools.product(RECIPES, ["", "decisions", "open"]), {"micro batches", "subtb", "decisions", "open"}),
)
def test_a_step_is_the_same_whether_its_rows_are_drawn_together_or_not(recipe, short, monkeypatch):
    """Also where the second row of a prompt is cut into passes: what the first has left at the prompt is kept.
    And where there is no room for the prompts of several rows.
    """
    learned, passes, small, opening = [], [], Policy.decisions, Policy.open

    def few_at_once(self, wanted, opened):
        if sum(len(one.states) for one in wanted) > 2:
            raise torch.OutOfMemoryError("no room")
        return small(self, wanted, opened)

    def one_at_once(self, targets):
        if len(targets) > 1:
            raise torch.OutOfMemoryError("no room")
        opened.append(targets)
        return opening(self, targets)

    opened: list = []
    if short:
        monkeypatch.setattr(Policy, short, {"decisions": few_at_once, "open": one_at_once}[short])
    for batch_size, tokens in ((64, 1024), (64, 1), (1, 1024)):  # draws of four rows at a time, or of one
        monkeypatch.setattr(trainer, "OPEN_TOKENS", tokens)
        model = tiny.model(seed=6)
        body = "given X\n" + BODIES["plain"].replace('LM(" a b")', 'LM("{X}")')
        rows = [Row({"X": x}, {}) for x in (" a b", " b", " a b a b b a", " b")]  # two have one prompt
        targets = [bind(program(body), {"LM": model}, row, batch_size=batch_size)[0] for row in rows]
        options = gflownet.Options(steps=3, draws=4, rows=4, **RECIPES[recipe])
        task = Task(list(enumerate(targets)), options, gflownet.recipe(options), 0, Processes())
        learner = learner_of(fresh(targets[0]), task)
        task.train(learner, report=lambda _: None, keep=lambda _: None)
        learned.append(learner.policy.adapter.weights())
        passes.append(model.cost.forward_passes)
        learner.policy.adapter.remove()
    assert_alike(*learned[:2], tolerance=2e-3)
    assert_alike(*learned[1:], tolerance=2e-3)
    assert len(opened) == (3 * 3 * 4 if short == "open" else 0)
    assert short or passes[0] < min(passes[1:])


def naive_law(policy, prompt, row):
    """log softmax at every position of a row after a prompt, from one pass without a cache."""
    policy.adapter.switch.turn(True)
    ids = torch.tensor([[*prompt, *row]])
    return policy.adapter.network(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].log_softmax(-1)


STEM = (0, 1, 1, 2, 0) * 4
PROMPTS = {
    "one prompt": [STEM[:5]],
    "no stem": [STEM[:5], STEM[1:]],
    "a stem of one": [(*STEM, 1)],
    "a stem": [(*STEM, 1, 2), STEM, (*STEM, 1, 2, 0)],
    "a stem and another prompt": [(*STEM, 1, 2), (*STEM, 0), (1, 2)],
}


STARTS = {"all": [0] * 5, "later ones": [1, 1, 2, 1, 1], "some": [0, 1, 1, 0, 2]}


SHARING = itertools.product(["llama", "sliding window", "soft cap", *WHOLE], PROMPTS, STARTS, [True, False])


@pytest.mark.parametrize(("model", "prompts", "starts", "together"), covered(SHARING))
def test_gradients_through_shared_prompts_are_those_of_whole_passes(model, prompts, starts, together):
    """Of rows of several prompts in one pass or each in their own, some of which others begin with."""
    target = bound(BODIES["plain"], {**MODELS, **WHOLE}[model]())
    policy = fresh(target)
    rows, weights = [(0, 1, 2), (0, 1), (2, 2, 0, 1), (0, 1, 2), (2, 2, 1)], torch.tensor([1.0, -2.0, 0.5, 0.7, 1.5])
    policy.adapter.switch.turn(True)
    policy.adapter.model.expect(STEM)
    opened = policy.adapter.model.open_prompts(PROMPTS[prompts])
    asked = [Rows(prompt, rows[i % 2 :], STARTS[starts][i % 2 :]) for i, prompt in enumerate(PROMPTS[prompts])]
    ours = []
    for some in [asked] if together else [[one] for one in asked]:
        laws = opened.laws(some)
        found = [summed(law, one) for law, one in zip(laws, some, strict=True)]
        sum((weights[-len(one) :] * one).sum() for one in found).backward()
        ours += found
    opened.backward()
    shared = gradients(policy)
    policy.adapter.network.zero_grad()
    for scores, prompt, one in zip(ours, PROMPTS[prompts], asked, strict=True):
        laws = [naive_law(policy, prompt, row) for row in one.tokens]
        naive = torch.stack([
            law[range(start, len(row)), list(row[start:])].sum()
            for law, row, start in zip(laws, one.tokens, one.starts, strict=True)
        ])  # fmt: skip
        torch.testing.assert_close(scores, naive, atol=1e-4, rtol=1e-4)
        (weights[-len(naive) :] * naive).sum().backward()
    assert_alike(shared, gradients(policy))


def test_an_adapter_of_queries_alone_is_learned():
    """Keys and values of a first layer without an adapter have no gradients."""
    model = tiny.model(seed=6)
    added = adapter.add(model, rank=4, alpha=8, targets="q_proj", seed=0)
    opened = added.model.open_prompts([(0, 1, 2), (1, 1)])
    added.switch.turn(True)
    laws = opened.laws([Rows((1, 1), [(0, 1), (2, 2)], [0, 0])])
    laws[0].logsumexp(-1).sum().backward()
    opened.backward()
    assert any(value.grad is not None for value in added.parameters.values())


def test_rows_and_prompts_are_run_together_and_what_is_alike_once():
    policy = fresh(bound(BODIES["plain"], tiny.model(seed=6)))
    model = policy.adapter.model
    passes, tokens = model.cost.forward_passes, model.cost.tokens_scored
    opened = model.open_prompts([(0, 1), (1, 1, 2), (2,), (2, 0, 1, 0), (0, 1)])
    assert model.cost.forward_passes - passes == 2  # of the first, which shows what the model is, and of the others
    assert model.cost.tokens_scored - tokens == 2 + 3 + 1 + 4
    passes, tokens = model.cost.forward_passes, model.cost.tokens_scored
    rows = [(0, 1, 2), (0, 1, 0), (0, 1), (1,)]  # the last of a row is not run
    opened.laws([Rows(prompt, rows, [0] * 4) for prompt in ((0, 1), (2,))])
    assert model.cost.forward_passes - passes == 1
    assert model.cost.tokens_scored - tokens == 2 * 2


def test_a_stem_is_run_once_with_gradients():
    model = fresh(bound(BODIES["plain"], MODELS["llama"]())).adapter.model
    model.expect(STEM)
    before = model.cost.tokens_scored
    opened = model.open_prompts([(*STEM, 1, 2), (*STEM, 0)])
    assert model.cost.tokens_scored - before == 20 + 2 + 1
    assert list(opened.prompts) == [(*STEM, 1, 2), (*STEM, 0)]
    assert list(opened.stems) == [STEM]


# --- one step -------------------------------------------------------------------------------------


def step_gradients(objective, monkeypatch=None, **options):
    """The adapter's gradients before the update of a step, and the step's loss."""
    target = bound(BODIES["plain"], tiny.model(seed=6))
    asked = gflownet.Options(steps=5, draws=12, rows=2, objective=objective, clip_gradient=1e9, **options)
    task = task_of(target, asked, numbers=(0, 1))
    learner = learner_of(fresh(target), task)
    report = task.step(learner, task.rows)
    return gradients(learner.policy), report.loss


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["vargrad", "tb", "subtb"])
def test_micro_batches_give_the_same_gradients(objective):
    whole, loss = step_gradients(objective)
    for size in (5, 1):
        cut, same = step_gradients(objective, micro_batch=size)
        assert abs(loss - same) < 1e-3 * abs(loss)
        assert_alike(whole, cut, 1e-3 * max(float(value.abs().max()) for value in whole.values()))


@pytest.mark.parametrize("at", [2, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 4, 6))])
def test_memory_that_runs_out_changes_nothing(at, monkeypatch):
    """Wherever in a step it does: before, in and behind the first row's passes."""
    whole, loss = step_gradients("vargrad", micro_batch=4)
    calls = []
    original = torch.autograd.backward

    def limited(tensors, *arguments, **options):
        original(tensors, *arguments, **options)
        calls.append(1)
        if len(calls) == at:
            raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch.autograd, "backward", limited)
    if at == 2:  # the first pass of a row, which has left gradients already
        cut, same = step_gradients("vargrad", micro_batch=4)
        assert abs(loss - same) < 1e-3 * abs(loss)
        assert_alike(whole, cut, 1e-3 * max(float(value.abs().max()) for value in whole.values()))
    monkeypatch.undo()
    small = Policy.decisions

    def few_at_once(self, wanted, opened):
        if sum(len(one.states) for one in wanted) > at:
            raise torch.OutOfMemoryError("no room")
        return small(self, wanted, opened)

    monkeypatch.setattr(Policy, "decisions", few_at_once)
    cut, same = step_gradients("vargrad")
    assert abs(loss - same) < 1e-3 * abs(loss)
    assert_alike(whole, cut, 1e-3 * max(float(value.abs().max()) for value in whole.values()))


def test_memory_that_is_never_enough_is_an_error(monkeypatch):
    def nothing(self, *arguments):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Policy, "decisions", nothing)
    with pytest.raises(torch.OutOfMemoryError):
        step_gradients("vargrad")


def untrained(target):
    added = adapter.add(target.models["LM"], rank=4, alpha=8, targets="all-linear", seed=0)
    return Policy(added, frozenset(latent.name for latent in target.latents))


def trained(target, options, engine=gflownet, numbers=(0,)):
    task = task_of(target, options, engine, numbers)
    learner = learner_of(untrained(target), task)
    reports = []
    task.train(learner, report=reports.append, keep=lambda learner: None)
    return learner, reports


def test_the_model_is_as_it_was_after_training_and_after_removal():
    target = bound(BODIES["plain"], tiny.model(seed=6))
    states = [{"Z": ()}, {"Z": (0, 1)}, {"Z": (2, 2, 1, 0)}]
    before = target.log_density(states).total
    learner, _ = trained(target, gflownet.Options(steps=5, draws=4))
    assert np.abs(learner.policy.trace(target, states).total - before).max() > 1e-3
    np.testing.assert_array_equal(target.log_density(states).total, before)
    learner.policy.adapter.remove()
    np.testing.assert_array_equal(target.log_density(states).total, before)
    assert not any("lora" in name for name, _ in target.models["LM"].model.named_parameters())
    again, _ = trained(target, gflownet.Options(steps=1, draws=4))  # a second adapter on the same network
    again.policy.adapter.remove()
    np.testing.assert_array_equal(target.log_density(states).total, before)


@pytest.mark.parametrize(("hurry", "expected"), [(True, [0, 0, 0, 0, 2, 1, 2, 1]), (False, [0, 0, 0, 0, 1, 1, 1, 1])])
def test_tempered_draws_are_in_a_hurry_where_that_is_asked_for(hurry, expected, monkeypatch):
    components, plain = [], Policy.draw_all

    def draw_all(self, asked):
        components.extend(one.component.tolist() for one in asked)
        return plain(self, asked)

    monkeypatch.setattr(Policy, "draw_all", draw_all)
    target = bound(BODIES["plain"], tiny.model(seed=6))
    trained(target, gflownet.Options(steps=1, draws=8, tempered=0.5, replay=0.0, hurry=hurry))
    assert components == [expected]


# --- replay ---------------------------------------------------------------------------------------


def rewarded(*entries):
    """States of one text from (tokens, log density)."""
    numbers = np.array([density for _, density in entries], dtype=float)
    broken = np.isneginf(numbers).astype(float)
    finite = np.where(broken > 0, -1.0, numbers)
    return Rewarded([{"Z": tokens} for tokens, _ in entries], numbers, finite, finite, np.zeros(len(entries)), broken)


def kept(buffer, row=0):
    return {state["Z"]: total for state, total in zip(buffer.rows[row].states, buffer.rows[row].total, strict=True)}


def test_a_buffer_leaves_repeats_out_and_keeps_the_best():
    buffer = Buffer(3).add(0, rewarded(((0,), -1), ((0,), -1), ((1,), -2)))
    assert kept(buffer) == {(0,): -1, (1,): -2}
    buffer = buffer.add(0, rewarded(((2,), -np.inf), ((2, 2), -3)))
    assert kept(buffer) == {(0,): -1, (1,): -2, (2, 2): -3}  # nothing that is forbidden
    assert buffer.add(2, rewarded(((2,), -np.inf))).sample(2, np.array([0.5]), "reward") == []
    assert kept(buffer.add(0, rewarded(((1, 1), -0.5)))) == {(0,): -1, (1,): -2, (1, 1): -0.5}
    assert buffer.sample(1, np.array([0.5]), "uniform") == []


def test_of_near_repeats_the_better_stays():
    long, near, far = (0,) * 20, (0,) * 19 + (1,), (0,) * 16 + (1,) * 4
    assert kept(Buffer(9).add(0, rewarded((long, -5), (near, -4), (far, -3)))) == {near: -4, far: -3}
    assert kept(Buffer(9).add(0, rewarded((near, -4), (long, -5)))) == {near: -4}
    assert kept(Buffer(9).add(0, rewarded((long, -5))).add(0, rewarded((near, -4), (far, -3)))) == {near: -4, far: -3}
    assert kept(Buffer(9).add(0, rewarded((near, -4))).add(0, rewarded((long, -5)))) == {near: -4}


@pytest.mark.parametrize(("by", "expected"), [("uniform", [1, 1, 1]), ("recency", [1, 2, 3]), ("reward", [1, 4, 2])])
def test_states_are_taken_as_asked(by, expected):
    buffer = Buffer(9).add(0, rewarded(((0,), 0.0), ((1,), np.log(4)), ((2,), np.log(2))))
    uniforms = (np.arange(700) + 0.5) / 700
    counts = np.bincount(buffer.sample(0, uniforms, by))
    np.testing.assert_allclose(counts / 700, np.array(expected) / sum(expected), atol=0.01)


def test_states_that_are_joined_stay_themselves():
    both = joined([rewarded(((0,), -1)), rewarded(((1,), -np.inf))])
    assert [state["Z"] for state in both.states] == [(0,), (1,)]
    assert both.rows([1]).broken.tolist() == [1]


# --- rewards --------------------------------------------------------------------------------------


def test_rewards_are_softened_where_the_program_forbids():
    body = 'Z ~ LM(" a b")^2.5 max 3 tokens\nobserve " b" ~ LM(" a{Z}")\nconstrain not contains(Z, "a b")\n'
    target = bound(body, tiny.model(seed=6))
    states = [{"Z": (1, 2)}, {"Z": (0, 1)}]
    found = reward_of(target, states)
    prior = target.log_prior("Z", states)
    observed = target.log_density(states).total[0] - prior[0]
    assert found.broken.tolist() == [0, 1]
    np.testing.assert_allclose(found.log_reward(1.0, -7.0)[0], target.log_density(states).total[0])
    others = found.others[1]
    np.testing.assert_allclose(found.log_reward(1.0, -7.0)[1], prior[1] + others - 7.0)
    for beta in (0.0, 0.4):  # from the prior's own power to the program
        expected = (beta + (1 - beta) / 2.5) * prior[0] + beta * observed
        np.testing.assert_allclose(found.log_reward(beta, -7.0)[0], expected)


def test_texts_that_miss_their_end_keep_their_tokens_density():
    model = tiny.model(seed=6)
    target = bound(BODIES["until"], model)
    missed = {"Z": (0, 1, 0)}
    found = reward_of(target, [missed, {"Z": (0, 2)}])
    assert found.total[0] == -np.inf
    expected = tiny.reference_log_prob(model, (0, 1), missed["Z"])
    np.testing.assert_allclose(found.log_reward(1.0, -6.0)[0], expected - 6.0, atol=1e-4)
    np.testing.assert_allclose(found.log_reward(1.0, -6.0)[1], found.total[1])


# --- whole runs -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_rows_share_one_policy():
    body = 'given X\nZ ~ LM(X)^1.5 max 2 tokens\nobserve " b" ~ LM(" a{Z}")\n'
    rows = [Row({"X": text}, {}) for text in (" a", " b", ".")] + [Row({"X": " a"}, {"Z": " b"})]
    request = Request("gflownet", {"num_samples": 50}, {"steps": 60, "draws": 16, "learning_rate": 1e-2}, 0)
    model = tiny.model(seed=6)
    posterior = run(program(body), rows, {"LM": model}, request)
    exact = run(program(body), rows, {"LM": model}, Request("exact"))
    for ours, theirs in zip(posterior.rows, exact.rows, strict=True):
        assert abs(ours.log_evidence - theirs.log_evidence) < 0.15
    assert min(row.diagnostics.ess for row in posterior.rows[:3]) > 100


def test_held_out_rows_are_not_trained_on_and_stop_training():
    target = bound(BODIES["plain"], tiny.model(seed=6))
    options = gflownet.Options(steps=500, draws=4, rows=1, held_out=0.34, look_every=1, patience=2, learning_rate=3e-2)
    task = task_of(target, options, numbers=(0, 1, 2))
    training, held_out = task.split()
    assert len(training) == 2
    assert len(held_out) == 1
    assert {number for number, _ in training + held_out} == {0, 1, 2}
    learner, reports = trained(target, options, numbers=(0, 1, 2))
    assert learner.finished
    assert learner.idle == 2
    assert len(reports) == learner.step < 500


WANDERING = {"steps": 40, "draws": 4, "rows": 1, "held_out": 0.34, "look_every": 3, "patience": 100, "buffer": 9,
             "replay": 0.25, "learning_rate": 0.1}  # fmt: skip


def looked_at(monkeypatch):
    """What every look from now on finds, and the weights that it looks at."""
    found, plain = [], Task.look

    def look(self, learner, rows):
        before = learner.policy.adapter.weights()
        found.append((plain(self, learner, rows), before))
        return found[-1][0]

    monkeypatch.setattr(Task, "look", look)
    return found


def assert_weights(ours, theirs, *, same=True):
    assert ours.keys() == theirs.keys() != set()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours) == same


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, {"patience": 2, "steps": 500}], ids=["last step", "stopped early"])
def test_training_ends_with_what_was_best_on_held_out_rows(change, monkeypatch):
    looks = looked_at(monkeypatch)
    target = bound(BODIES["plain"], tiny.model(seed=6))
    learner, _ = trained(target, gflownet.Options(**WANDERING | change), numbers=(0, 1, 2))
    assert learner.finished == bool(change)
    best = int(np.argmin([variance for variance, _ in looks]))
    assert best < len(looks) - 1
    assert learner.best == looks[best][0]
    assert_weights(learner.policy.adapter.weights(), looks[best][1])
    assert_weights(learner.policy.adapter.weights(), looks[-1][1], same=False)


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 23], ids=["before a look", "between looks"])
def test_a_checkpoint_keeps_the_best_and_the_last(at, tmp_path, monkeypatch):
    """Training goes on from the last, as if it had not been stopped; what can be used meanwhile is the best."""
    looks = looked_at(monkeypatch)
    options, numbers = gflownet.Options(**WANDERING), (0, 1, 2)

    def go(folder, until):
        target = bound(BODIES["plain"], tiny.model(seed=6))
        task = task_of(target, options, numbers=numbers)
        learner = learner_of(untrained(target), task)
        checkpoint.load(folder, learner, {})
        last = {}

        def keep(learner):
            last.update(learner.policy.adapter.weights())
            checkpoint.save(folder, learner, {}, [checkpoint.lines(learner.buffer.rows)])

        task.train(learner, report=lambda found: None, keep=keep, stopped=lambda: learner.step == until)
        return learner, last

    whole, _ = go(tmp_path / "whole", 40)
    del looks[:]
    stopped, last = go(tmp_path / "cut", at)
    assert stopped.step == at
    published = adapter.load(tiny.model(seed=6), tmp_path / "cut").weights()
    best = min(looks, key=lambda look: look[0])[1] if looks else last
    assert_weights(published, best)
    assert_weights(published, last, same=not looks)
    assert_weights(stopped.policy.adapter.weights(), best)
    resumed, _ = go(tmp_path / "cut", 40)
    assert resumed.best == whole.best
    for name in ("adapter_model.safetensors", "training/step-000040/adapter.safetensors",
                 "training/step-000040/best.safetensors", "training/step-000040/optimiser.safetensors"):  # fmt: skip
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_ppo_raises_the_mean_reward():
    target = bound(BODIES["plain"], tiny.model(seed=6))
    learner, _ = trained(target, ppo.Options(steps=40, draws=24, learning_rate=1e-2), ppo)

    def reward(policy):
        return reward_of(target, drawn(policy, target, 200).states).log_reward(1.0, -10.0).mean()

    prior = Policy(learner.policy.adapter, frozenset())
    assert reward(learner.policy) > reward(prior) + 0.5


SFT = 'given X\nZ ~ LM(X) max 2 tokens\nY ~ LM(" b{Z}") in [" a", " b a", "."]\npredict Y\nguide Z | "{X} b"\n'


@pytest.mark.slow
def test_sft_fits_rows_that_have_the_text_and_predicts_the_others_with_it():
    model = tiny.model(seed=6)
    rows = [Row({"X": " a"}, {"Z": " b b", "Y": "."}), Row({"X": " a"}, {"Z": " b b", "Y": "."}), Row({"X": " a"}, {})]
    options = {"steps": 60, "learning_rate": 1e-2}
    posterior = run(program(SFT), rows, {"LM": model}, Request("sft", {"num_samples": 20}, options, 0))
    last = posterior.rows[2]
    assert np.mean([draw.values["Z"] == " b b" for draw in last.draws]) > 0.9
    scores = [tiny.reference_log_prob(model, (1, 1, 1), tokens) for tokens in ((0,), (1, 0), (2,))]
    expected = np.exp(scores) / np.exp(scores).sum()
    found = [last.predictions["Y"][option] for option in (" a", " b a", ".")]
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_progress_is_one_bar_whose_text_changes(monkeypatch):
    import io
    import sys

    from rich.progress import Progress

    from lmppl.engines.amortised.progress import Display
    from lmppl.engines.amortised.trainer import Report
    from lmppl.screen.progress import shown

    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", screen)
    texts = []
    original = Progress.update

    def update(self, task, **fields):
        texts.append(fields.get("description"))
        original(self, task, **fields)
        assert len(self.tasks) == 1

    monkeypatch.setattr(Progress, "update", update)
    with shown() as progress:
        display = Display(progress, 3)
        for step in (1, 2, 3):
            display.show(Report(step, float(step), np.nan if step == 1 else 2.0, 0.5, 0.0, 1.0, 10.0))
    assert len(set(texts)) == 3
    assert "nan" not in texts[0]


# --- what cannot be learned -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "options", "message"),
    [
        ('Z ~ LM(" a") max 2\nW ~ LM("{Z}") max 2\n', {"objective": "subtb"}, "a second text"),
        ('Y ~ LM(" a") in [" a", " b"]\nZ ~ LM("{Y}") max 2\n', {"objective": "subtb"}, "no text that could stop"),
        (BODIES["plain"], {"draws": 0}, "`draws`"),
        (BODIES["plain"], {"held_out": 1.0}, "`held_out`"),
        (BODIES["plain"], {"replay": 0.8, "tempered": 0.5}, "at most 0.5 beside `tempered` = 0.5"),
        (BODIES["plain"], {"objective": "mle"}, "`objective`"),
        (BODIES["plain"], {"tracker": "tensorboard"}, "tracker"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_said(body, options, message):
    with pytest.raises(LmpplError, match=message):
        run(program(body), [Row({}, {})], {"LM": tiny.model(seed=6)}, Request("gflownet", {}, options))


def test_draws_that_are_learned_first_need_no_row_that_has_them_all():
    """A row with nothing to infer has no draws to learn from."""
    body = 'given X\nZ ~ LM(X) max 2 tokens\nobserve " b" ~ LM(" a{Z}")\n'
    rows = [Row({"X": " a"}, {"Z": " b"}), Row({"X": " b"}, {})]
    options = {"steps": 6, "imitation": 3, "draws": 4, "seed_from": "importance"}
    posterior = run(program(body), rows, {"LM": tiny.model(seed=6)}, Request("gflownet", {"num_samples": 4}, options))
    assert len(posterior.rows[1].draws) == 16


WORKED = 'given X\nZ ~ LM(X)^1.5 max 3 tokens\nY ~ LM(" a{Z}") max 2 tokens\n'
WORKED_ROWS = [Row({"X": " b"}, {"Y": " b"}), Row({"X": " a"}, {"Z": " b b", "Y": " b"}), Row({"X": "."}, {"Y": " a"})]


@pytest.mark.parametrize("engine", ["gflownet", pytest.param("ppo", marks=pytest.mark.slow)])
def test_rows_that_have_the_texts_are_imitated_first_and_then_learned_from_without(engine, monkeypatch):
    """Z is what some rows lack; Y, which all have, stays observed."""
    steps, looked = [], Gradients.leave

    def learn(self, learner, rows, opened, *rest):
        for number, target in rows:
            states = [state["Z"] for state in opened.seen[number].rewarded.states]
            replayed = [tuple(state["Z"]) for state in learner.buffer.rows[1].states]
            steps.append((learner.step, number, target, states, replayed))
        return looked(self, learner, rows, opened, *rest)

    monkeypatch.setattr(Gradients, "leave", learn)
    options = {"steps": 9, "imitation": 3, "draws": 4, "rows": 2, "seed_from": "rows"}
    request = Request(engine, {"num_samples": 4}, options)
    posterior = run(program(WORKED), WORKED_ROWS, {"LM": tiny.model(seed=6)}, request)
    worked = (1, 1)
    assert [(number, states) for step, number, _, states, _ in steps if step < 3] == [(1, [worked])] * 3
    assert {number for step, number, *_ in steps if step >= 3} == {0, 1, 2}
    for step, _, target, states, replayed in steps:
        assert [latent.name for latent in target.latents] == ["Z"]
        assert worked in replayed
        assert step < 3 or len(states) >= 2
    assert len(posterior.rows[1].draws) == 1  # of the run itself it is observed
    assert len(posterior.rows[0].draws) == 16


@pytest.mark.slow
def test_rows_that_have_no_texts_are_seeded_by_an_engine(monkeypatch):
    """The example keeps its own value; the others have draws of the posterior, as many as were asked for."""
    sown, plain = {}, Task.train

    def train(self, learner, **rest):
        sown.update({number: [state["Z"] for state in rewarded.states] for number, rewarded in learner.seeds.items()})
        return plain(self, learner, **rest)

    monkeypatch.setattr(Task, "train", train)
    options = {"steps": 2, "imitation": 2, "draws": 4, "seed_from": "rows,importance", "seed_draws": 300}
    request = Request("gflownet", {"num_samples": 2, "chains": 2}, options, only_learn=True)
    model = tiny.model(seed=6)
    run(program(WORKED), WORKED_ROWS, {"LM": model}, request)
    assert sown[1] == [(1, 1)]
    assert {number: len(states) for number, states in sown.items()} == {0: 600, 1: 1, 2: 600}
    exact = run(program(WORKED), WORKED_ROWS, {"LM": model}, Request("exact", {"chains": 1, "num_samples": 2000}))
    for row in (0, 2):
        ends = [draw.values["Z"].endswith(".") for draw in exact.rows[row].draws]
        assert abs(np.mean([z[-1:] == (2,) for z in sown[row]]) - np.mean(ends)) < 0.1
    for source, message in (("importance,smc", "cannot be importance,smc"), ("rows,sft", "no engine `sft`")):
        with pytest.raises(LmpplError, match=message):
            run(program(WORKED), WORKED_ROWS, {"LM": model}, replace(request, options={**options, "seed_from": source}))


def test_where_no_row_has_the_texts_there_is_nothing_to_imitate():
    request = Request("gflownet", {}, {"steps": 3, "seed_from": "rows"})
    with pytest.raises(LmpplError, match="no row has the text"):
        run(program(WORKED), [WORKED_ROWS[0], WORKED_ROWS[2]], {"LM": tiny.model(seed=6)}, request)


def test_rows_are_not_drawn_for_where_nobody_asks(tmp_path):
    request = Request("gflownet", {"num_samples": 4}, {"steps": 2, "draws": 4}, folder=tmp_path, only_learn=True)
    posterior = run(program(WORKED), WORKED_ROWS, {"LM": tiny.model(seed=6)}, request)
    assert [row.givens for row in posterior.rows] == [{**row.givens, **row.observed} for row in WORKED_ROWS]
    assert [row.draws for row in posterior.rows] == [[], [], []]
    assert (tmp_path / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_rows_are_drawn_together_in_the_end_as_well(tmp_path):
    """In fewer passes; the batch may hold four rows, one, or a part of one."""
    model, body = tiny.model(seed=6), 'given X\nZ ~ LM("{X}")^1.5 max 8 tokens\nobserve " b" ~ LM(" a{Z}")\n'
    rows = [Row({"X": text}, {}) for text in (" a", " b a", ".", " b")] + [Row({"X": " a"}, {"Z": " b"})]
    run(program(body), rows, {"LM": model}, Request("gflownet", {}, {"steps": 2}, folder=tmp_path, only_learn=True))
    found, told = {}, []

    def progress(what, done, total):
        told.append(what)

    for size in (32, 8, 3):
        request = Request("gflownet", {"chains": 2, "num_samples": 4}, batch_size=size, adapter=tmp_path)
        found[size] = run(program(body), rows, {"LM": model}, request, progress)
    for size in (8, 3):
        for ours, theirs in zip(found[32].rows, found[size].rows, strict=True):
            assert [(draw.chain, draw.values) for draw in ours.draws] == [(d.chain, d.values) for d in theirs.draws]
            weights = [[draw.log_weight for draw in row.draws] for row in (ours, theirs)]
            np.testing.assert_allclose(weights[0], weights[1], atol=1e-4)
    assert found[32].cost["forward_passes"] < 0.75 * found[8].cost["forward_passes"]
    assert [len(row.draws) for row in found[32].rows] == [8, 8, 8, 8, 1]
    drawn = [what for what in told if what.endswith(": drawing")]
    assert drawn[:4] == [f"row {number} of 5: drawing" for number in (1, 2, 3, 4)]


def test_tools_take_no_gradient_and_stops_within_what_they_write_are_impossible():
    """log q at every position, and of the closing token at every prefix, against the law that draws."""
    body = 'use echo from "helpers.py"\nZ ~ LM(" a b")^1.5 with echo(trigger = " a") max 4 tokens\n'
    target = bound(body, MODELS["llama"]())
    policy = fresh(target)
    states = [{"Z": (0, 0, 1, 2)}, {"Z": (1, 0, 2, 1)}, {"Z": (2, 2)}]
    opened = policy.open([target])
    (found,) = policy.decisions([Wanted(target, states, target.text_latent("Z").stopping.end)], opened)
    written = [(0, 1), (1, 2), (1, 3)]
    for i, t in written:
        assert found.log_q[i, t] == 0
        assert found.log_stop[i, t] == -np.inf
    assert torch.isfinite(found.log_stop).sum() == found.log_stop.numel() - len(written)
    sum(found.log_q[i, t] for i, t in written).backward()
    opened.backward()
    assert all(bool((value == 0).all()) for value in gradients(policy).values())


def test_an_adapter_that_is_gone_leaves_no_trace_in_the_last_bit(tiny_folder):
    """Frozen weights take other paths through torch than those that may be trained: a model's are always frozen."""
    text = 'given X\nZ ~ LM("{X} b a b a b a b{X}") max 3 tokens\n'
    program = lmppl.compile(f'lm LM = "{tiny_folder}"\n{text}').program
    models = load_models(program, {}, "cpu", quiet)
    tokens = [tuple(models["LM"].encode(words, markers=False)) for words in ("...", ". a a", " b b")]

    def prefixes(start):
        models["LM"].forget_prompts()
        found = bind(program, models, Row({"X": start}, {}))[0].prefixes("Z", [{"Z": one} for one in tokens])
        return [one.running.tolist() for one in found]

    starts = (" a", " a b a b a", " b b")
    before = [prefixes(start) for start in starts]
    adapter.add(models["LM"], rank=2, alpha=4, targets="all-linear", seed=0).remove()
    assert [prefixes(start) for start in starts] == before
