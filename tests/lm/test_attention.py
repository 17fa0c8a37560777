"""Rows that share their prompt's keys and values, against rows that each hold a copy."""

import numpy as np
import pytest
import tiny
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from lmppl.lm.transformers import attention

ROWS = [(0, 1, 2), (), (1,), (2, 2, 0, 1, 1, 0), (0, 2), (1, 1)]
STARTS = [0, 0, 1, 3, 1, 0]
PROMPT = (0, 1, 1, 2, 0)


@pytest.fixture
def plainly():
    """Runs an action on a model whose attention is transformers' own."""

    def run(model, action):
        model.forget_prompts()
        model.model.set_attn_implementation("sdpa")
        try:
            return action(model)
        finally:
            model.model.set_attn_implementation(attention.NAME)
            model.forget_prompts()

    return run


def is_shared(model, prompt=PROMPT):
    return model.prompt(prompt).shared is not None


def laws(model, prompt, suffixes, num_steps=6, num_tokens=3):
    """Laws along a stream that is pushed, narrowed with a repeat, and pushed on."""
    rng = np.random.default_rng(1)
    stream = model.stream(prompt, suffixes)
    collected = [stream.log_probs()]
    for step in range(num_steps):
        if step == num_steps // 2:
            stream.keep(np.array([len(suffixes) - 1, 0, 0]))
        stream.push(rng.integers(0, num_tokens, size=len(collected[-1]) if step < num_steps // 2 else 3))
        collected.append(stream.log_probs())
    return collected


def assert_close(ours, theirs):
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-4)


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:1], PROMPT * 12])
@pytest.mark.parametrize("suffixes", [ROWS, [(), ()], [(1, 2), (0, 0)], [(2,)]])
def test_streams_equal_plain_ones(tiny_model, plainly, prompt, suffixes):
    expected = plainly(tiny_model, lambda model: laws(model, prompt, suffixes))
    assert is_shared(tiny_model, prompt)
    assert_close(laws(tiny_model, prompt, suffixes), expected)


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT[:1]])
def test_scores_equal_plain_ones(tiny_model, plainly, prompt):
    def scores(model):
        pairs = model.score_prefixes(prompt, ROWS, STARTS)
        return [*model.score(prompt, ROWS, STARTS), *(part for pair in pairs for part in pair)]

    expected = plainly(tiny_model, scores)
    assert_close(scores(tiny_model), expected)


def test_one_softmax_over_both_parts_is_the_same(tiny_model, monkeypatch):
    """The way of devices other than the processor."""
    expected = laws(tiny_model, PROMPT, ROWS)
    monkeypatch.setattr(attention, "_has_fused", lambda query: False)
    assert_close(laws(tiny_model, PROMPT, ROWS), expected)


def test_tokens_fed_together_or_one_by_one(tiny_model):
    row = (0, 1, 2, 2, 1, 0)
    stream = tiny_model.stream(PROMPT, [row[:2], row[:2]])
    for token in row[2:]:
        stream.push(np.array([token, token]))
    together = tiny_model.stream(PROMPT, [row, (1,)]).log_probs()[0]
    assert_close(stream.log_probs(), [together, together])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (ROWS, [(1,), ()]),
        ([()], [()]),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in (([(), (1, 0)], ROWS), ([(0,)], [(1,)]))),
    ],
)
def test_streams_that_join_go_on_as_they_were(tiny_model, first, second):
    """Rows long and short, with columns that only dropped rows needed, against streams that stay apart."""
    rng = np.random.default_rng(0)
    streams = [tiny_model.stream(PROMPT, rows) for rows in (first, second)]
    for _ in range(2):
        streams[0].push(rng.integers(0, 3, size=len(first)))
    streams[0].keep(np.array([0, 0, len(first) - 1]))
    joined = tiny_model.stream(PROMPT, first)
    rng = np.random.default_rng(0)
    for _ in range(2):
        joined.push(rng.integers(0, 3, size=len(first)))
    joined.keep(np.array([0, 0, len(first) - 1]))
    joined.join(tiny_model.stream(PROMPT, second))
    for _ in range(40):
        tokens = rng.integers(0, 3, size=3 + len(second))
        joined.push(tokens)
        streams[0].push(tokens[:3])
        streams[1].push(tokens[3:])
        assert_close(joined.log_probs(), torch.cat([stream.log_probs() for stream in streams]))


def test_rows_that_were_run_are_gone_on_from(tiny_model):
    """Rows taken out of a stream whose rows have joined and gone, from anywhere in them."""
    stream = tiny_model.stream(PROMPT, ROWS)
    stream.push(np.zeros(len(ROWS), dtype=np.int64))
    stream.keep(np.array([2, 5, 0, 1]))
    stream.join(tiny_model.stream(PROMPT, [(2, 1)]))
    stream.push(np.array([1, 1, 2, 2, 0]))
    pasts = stream.take([0, 1, 2, 3, 4])
    assert [past.tokens for past in pasts] == [(1, 0, 1), (1, 1, 0, 1), (0, 1, 2, 0, 2), (0, 2), (2, 1, 0)]
    for lengths in ([3, 4, 5, 2, 3], [1, 0, 4, 2, 2], [1] * 5, [0] * 5):
        resumed = tiny_model.resume(PROMPT, pasts, lengths)
        plain = tiny_model.stream(PROMPT, [past.tokens[:n] for past, n in zip(pasts, lengths, strict=True)])
        for tokens in ([0, 1, 2, 0, 1], [1, 1, 1, 0, 0]):
            resumed.push(np.array(tokens))
            plain.push(np.array(tokens))
            assert_close(resumed.log_probs(), plain.log_probs())


PROMPTS = {PROMPT: ROWS, PROMPT[:1]: [(), (1, 0)], (2, 1) * 9: [(0,)]}  # and the rows after each
FAMILIES = {
    "llama": lambda: tiny.model(),
    "mistral": lambda: tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=None, scale=0.5),
    "a window, which shares nothing": lambda: tiny.of_another_kind(
        MistralConfig, MistralForCausalLM, sliding_window=3, scale=0.5
    ),
}


STEM = (0, 1, 1, 2, 0) * 4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stem_is_run_once_for_all_prompts_that_go_on_from_it(family):
    whole, model = FAMILIES[family](), FAMILIES[family]()
    model.expect(STEM)
    model.expect(STEM[:5])  # too short to be worth it
    for prompt in ((*STEM, 1, 2), (*STEM, 0), STEM, STEM[:7]):
        for one, other in zip(*(m.score(prompt, ROWS, STARTS) for m in (whole, model)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
        assert_close(model.stream(prompt, ROWS).log_probs(), whole.stream(prompt, ROWS).log_probs())
    saved = 0 if "window" in family else 2 * len(STEM)
    assert whole.cost.tokens_scored - model.cost.tokens_scored == saved


def test_what_a_prompt_gives_hangs_on_no_other_that_was_run_before():
    model, other = tiny.model(), tiny.model()
    for one in (model, other):
        one.expect(STEM)
    other.score((*STEM, 2), ROWS, STARTS)
    for prompt in (STEM, (*STEM, 1, 2)):
        for left, right in zip(*(m.score(prompt, ROWS, STARTS) for m in (model, other)), strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("model", FAMILIES)
def test_streams_of_several_prompts_are_pushed_by_one_pass(model):
    """Rows padded and not, dropped and joined on the way, against the same streams pushed one by one."""
    model, rng = FAMILIES[model](), np.random.default_rng(3)
    together, alone = ([model.stream(prompt, rows) for prompt, rows in PROMPTS.items()] for _ in range(2))
    shared = all(stream.joins for stream in together)
    for step in range(8):
        if step == 3:
            for streams in (together, alone):
                streams[0].keep(np.array([5, 0, 3]))
                if shared:
                    streams[1].join(model.stream(PROMPT[:1], [(2, 2, 1)]))
        tokens = [rng.integers(0, 3, size=len(stream.rows)) for stream in together] if shared else [
            np.full(len(stream.log_probs()), step % 3) for stream in together
        ]  # fmt: skip
        before, decoded = model.cost.forward_passes, model.cost.tokens_decoded
        model.push(together, tokens)
        passes = model.cost.forward_passes - before
        assert passes == 1 if shared else passes >= len(together)
        if shared:
            assert model.cost.tokens_decoded - decoded == sum(map(len, tokens))
        for stream, pushed in zip(alone, tokens, strict=True):
            stream.push(pushed)
        for ours, theirs in zip(together, alone, strict=True):
            assert_close(ours.log_probs(), theirs.log_probs())


def test_laws_are_computed_from_columns_without_holes():
    """A product of a view with holes and the vocabulary is up to 50 times slower on a CPU."""
    model, whole = tiny.model(), []
    model.model.lm_head.register_forward_pre_hook(lambda _, inputs: whole.append(inputs[0].is_contiguous()))
    model.score(PROMPT, [(0, 1, 2, 0), (0, 1, 1), (1, 1, 1, 2)], [2, 2, 2])
    model.score_prefixes(PROMPT, ROWS, STARTS)
    model.score_trees(PROMPT, [[((0, 1, 2, 0), 2), ((0, 2), 1)], [((1, 1), 1)]])
    model.stream(PROMPT, ROWS).push(np.zeros(len(ROWS), dtype=np.int64))
    assert len(whole) >= 5
    assert all(whole)


def test_rows_hold_their_own_tokens_only():
    model = tiny.model()
    prompt = (0, 1, 1, 2) * 25
    stream = model.stream(prompt, [(0, 1)] * 64)
    stream.push(np.zeros(64, dtype=np.int64))
    held = sum(buffer.nbytes for layer in stream._cache.layers for buffer in (layer._key_buffer, layer._value_buffer))
    one_prompt = sum(layer.keys.nbytes + layer.values.nbytes for layer in model.prompt(prompt).cache.layers)
    assert held < 0.5 * 64 * one_prompt
    assert stream._cache.get_seq_length() == 3


@pytest.mark.parametrize(
    "model",
    [
        tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=3),
        tiny.of_another_kind(Gemma2Config, Gemma2ForCausalLM, sliding_window=4),
    ],
    ids=["sliding window", "soft cap"],
)
def test_models_that_attend_otherwise_do_not_share(model):
    assert not is_shared(model)
    row = (0, 1, 2, 0, 1)
    expected = [tiny.reference_log_prob(model, (*PROMPT, *row[:t]), row[t : t + 1]) for t in range(len(row))]
    np.testing.assert_allclose(model.score(PROMPT, [row], [0])[0], expected, atol=1e-4)


WINDOWS = {
    "full at once": (MistralConfig, MistralForCausalLM, 3),
    "full on the way": (MistralConfig, MistralForCausalLM, len(PROMPT) + max(map(len, ROWS)) + 2),
    "never full": (MistralConfig, MistralForCausalLM, 64),
    "every other layer": (Gemma2Config, Gemma2ForCausalLM, 13),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize(
    "again",
    [pytest.param([5, 1, 1, 3, 0, 4], id="all lengths", marks=pytest.mark.slow), pytest.param([3, 3, 2], id="some")],
)
def test_padding_takes_no_place_of_a_window(name, again):
    """Rows of unequal length, pushed and narrowed with repeats, against passes over each whole sequence."""
    config, network, window = WINDOWS[name]
    model = tiny.of_another_kind(config, network, sliding_window=window, scale=0.5)
    sequences = [list(PROMPT + row) for row in ROWS]
    stream = model.stream(PROMPT, ROWS)
    for step in range(9):
        for law, sequence in zip(stream.log_probs(), sequences, strict=True):
            logits = model.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1]
            np.testing.assert_allclose(law, torch.log_softmax(logits, -1), atol=1e-4)
        if step in (1, 5):
            chosen = [i % len(sequences) for i in again]
            stream.keep(np.array(chosen))
            sequences = [list(sequences[i]) for i in chosen]
        tokens = np.arange(step, step + len(sequences)) % 3
        stream.push(tokens)
        for sequence, token in zip(sequences, tokens, strict=True):
            sequence.append(int(token))


def test_a_family_without_windows_shares():
    assert is_shared(tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=None))


@pytest.mark.model
class TestDefaultModel:
    PROMPT = "The old harbour was quiet that evening, and the boats lay still under a sky that promised"

    def test_streams_and_scores_equal_plain_ones(self, smollm2, plainly):
        prompt = smollm2.begin(smollm2.encode(self.PROMPT, markers=True))
        rows = [smollm2.encode(text, markers=False) for text in (" snow.", "", " rain and wind, and then some more")]

        def everything(model):
            scored = [part for pair in model.score_prefixes(prompt, rows, [0, 0, 2]) for part in pair]
            return [*laws(model, prompt, rows, num_steps=4, num_tokens=40_000), *scored]

        expected = plainly(smollm2, everything)
        assert is_shared(smollm2, prompt)
        assert_close(everything(smollm2), expected)


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "as they come"])
@pytest.mark.parametrize("stem", [True, False], ids=["a stem", "no stem"])
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_several_prompts_are_scored_together_as_they_are_alone(family, stem, prepared):
    """In one pass where prompts are shared; no rows behind a prompt ask for nothing, and it is not run."""
    alone, together = FAMILIES[family](), FAMILIES[family]()
    if stem:
        together.expect(STEM)
    prompts = [(*STEM, 1, 2), (*STEM, 0), (1, 1), STEM, (2,), (*STEM, 0, 0, 1)]
    rows = list(zip(ROWS, STARTS, strict=True))
    asked = [(prompt, rows[i:] if prompt != (2,) else []) for i, prompt in enumerate(prompts)]
    if prepared:
        together.prepare([prompt for prompt, some in asked if some])
        known = together.cost.forward_passes
        together.prepare([prompt for prompt, some in asked if some])
        assert together.cost.forward_passes == known
    shared, before = is_shared(alone), together.cost.forward_passes
    found = together.score_all(asked)
    if prepared:
        assert together.cost.forward_passes - before == (1 if shared else sum(1 for _, some in asked if some))
    assert found[4] == []
    for (prompt, some), scores in zip(asked, found, strict=True):
        for one, other in zip(alone.score(prompt, *zip(*some, strict=True)) if some else [], scores, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_short_rows_are_not_padded_to_long_ones_of_other_prompts():
    model = tiny.model()
    asked = [((0,), [((0, 1, i % 3), 0) for i in range(3)] * 10), ((1,), [((0, 1, 2, 0) * 30, 0)])]
    model.prepare([prompt for prompt, _ in asked])
    before, tokens = model.cost.forward_passes, model.cost.tokens_scored
    model.score_all(asked)
    assert model.cost.forward_passes - before == 2
    assert model.cost.tokens_scored - tokens == 2 + 119
