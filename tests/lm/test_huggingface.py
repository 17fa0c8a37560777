"""Scoring and streams of a Hugging Face model, against passes without a cache."""

import numpy as np
import pytest
import tiny
import torch

from lmppl.errors import LmpplError
from lmppl.lm.transformers.huggingface import HuggingFaceModel

ROWS = [(0, 1, 2), (), (1,), (2, 2, 0, 1, 1, 0), (0, 3), (1, 1)]
STARTS = [0, 0, 1, 3, 1, 0]
PROMPT = (0, 1, 1)


def reference(model, row, start):
    return [tiny.reference_log_prob(model, (*PROMPT, *row[:t]), row[t : t + 1]) for t in range(start, len(row))]


def test_scores_equal_passes_without_a_cache(tiny_model):
    for scores, row, start in zip(tiny_model.score(PROMPT, ROWS, STARTS), ROWS, STARTS, strict=True):
        np.testing.assert_allclose(scores, reference(tiny_model, row, start), atol=1e-5)
    assert tiny_model.score(PROMPT, [], []) == []


def test_prefix_scores_hold_the_end_everywhere(tiny_model):
    for (scores, ends), row, start in zip(tiny_model.score_prefixes(PROMPT, ROWS, STARTS), ROWS, STARTS, strict=True):
        np.testing.assert_allclose(scores, reference(tiny_model, row, start), atol=1e-5)
        expected = [
            tiny.reference_log_prob(tiny_model, (*PROMPT, *row[:t]), [tiny_model.end])
            for t in range(start, len(row) + 1)
        ]
        np.testing.assert_allclose(ends, expected, atol=1e-5)


def test_laws_are_those_of_a_stream():
    """At every position of every row, several end tokens being one."""
    model = tiny.model(ends=("<end>", "<stop>"), seed=2)
    for law, row, start in zip(model.laws(PROMPT, ROWS, STARTS), ROWS, STARTS, strict=True):
        expected = [model.stream(PROMPT, [row[:t]]).log_probs() for t in range(start, len(row))]
        assert law.shape == (len(row) - start, model.vocabulary_size)
        if expected:
            np.testing.assert_allclose(law, torch.cat(expected), atol=1e-5)
    assert model.laws(PROMPT, [], []) == []


def test_a_row_that_another_begins_with_is_not_run():
    """It is read from the other's pass, wherever the two are asked for from."""
    model, rows = tiny.model(), [(0, 1, 2, 0, 1), (0, 1, 2), (0, 2), (0, 1), (0, 1, 2, 2, 1), (1,)]
    starts = [3, 0, 1, 0, 2, 0]
    scores = model.score(PROMPT, rows, starts)
    assert model.cost.tokens_scored == len(PROMPT) + 4 + 4  # (0, 1, 2, 0) and (0, 1, 2, 2), each with its last left out
    for score, row, start in zip(scores, rows, starts, strict=True):
        np.testing.assert_allclose(score, reference(model, row, start), atol=1e-5)


def test_small_batches_score_alike(tiny_model, monkeypatch):
    together = tiny_model.score(PROMPT, ROWS, STARTS)
    monkeypatch.setattr("lmppl.lm.transformers.huggingface.MOST_LOGITS", 1)
    for left, right in zip(together, tiny_model.score(PROMPT, ROWS, STARTS), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_streams_follow_the_model(tiny_model):
    """Ragged suffixes, pushes and selections with repeats, against the laws of whole sequences."""
    rng = np.random.default_rng(0)
    sequences = [list(PROMPT + row) for row in ROWS]
    stream = tiny_model.stream(PROMPT, ROWS)
    for step in range(40):  # beyond what was allocated at first
        law = stream.log_probs()
        np.testing.assert_allclose(law.exp().sum(-1), 1, atol=1e-5)
        for i, sequence in enumerate(sequences):
            logits = tiny_model.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1]
            np.testing.assert_allclose(law[i], torch.log_softmax(logits, -1), atol=1e-4)
        if step % 7 == 3:
            rows = rng.integers(0, len(sequences), size=5)
            stream.keep(rows)
            sequences = [list(sequences[i]) for i in rows]
        tokens = rng.integers(0, 3, size=len(sequences))
        stream.push(tokens)
        for sequence, token in zip(sequences, tokens, strict=True):
            sequence.append(int(token))


def test_a_shared_prompt_is_not_changed_by_use(tiny_model):
    before = tiny_model.score(PROMPT, ROWS, STARTS)
    stream = tiny_model.stream(PROMPT, [(), (1, 2)])
    for _ in range(5):
        stream.push(np.array([0, 1]))
    for left, right in zip(before, tiny_model.score(PROMPT, ROWS, STARTS), strict=True):
        np.testing.assert_array_equal(left, right)


def test_work_is_counted_without_padding():
    model = tiny.model()
    model.score(PROMPT, [(1, 1), (0, 1, 2, 0)], [0, 0])
    assert (model.cost.tokens_scored, model.cost.forward_passes) == (3 + 1 + 3, 2)
    stream = model.stream(PROMPT, [(1,), (0, 1, 1)])
    stream.push(np.array([0, 0]))
    assert (model.cost.tokens_scored, model.cost.tokens_decoded) == (7 + 4, 2)


def test_several_end_tokens_are_one_event():
    model = tiny.model(ends=("<end>", "<stop>"), seed=2)
    first, second = model.ends
    logits = model.model(input_ids=torch.tensor([PROMPT]), use_cache=False).logits[0, -1]
    law = torch.log_softmax(logits, -1)
    both = float(torch.logsumexp(law[[first, second]], 0))
    streamed = model.stream(PROMPT, [()]).log_probs()[0]
    assert abs(float(streamed[first]) - both) < 1e-5
    assert float(streamed[second]) == -np.inf
    assert abs(float(streamed.exp().sum()) - 1) < 1e-5
    assert abs(model.score(PROMPT, [(first,)], [0])[0][0] - both) < 1e-5
    assert model.score(PROMPT, [(second,)], [0])[0][0] == -np.inf
    assert abs(model.score_prefixes(PROMPT, [()], [0])[0][1][0] - both) < 1e-5


def test_one_beginning_token():
    model = tiny.model(bos=True)
    start = model.tokenizer.get_vocab()["<start>"]
    assert model.encode(" a b", markers=True) == (0, 1)
    assert model.begin((0, 1)) == (start, 0, 1)
    assert model.begin((start, 0)) == (start, 0)
    assert model.begin(()) == (start,)


def test_an_empty_context_is_the_end_token_without_one(tiny_model):
    assert tiny_model.begin(()) == (tiny_model.end,)
    assert tiny_model.begin((1,)) == (1,)


def test_contexts_beyond_the_window_are_refused():
    model = tiny.model(window=8)
    with pytest.raises(LmpplError, match="9 tokens"):
        model.score(PROMPT, [(0,) * 6], [0])
    with pytest.raises(LmpplError, match="10 tokens"):
        model.stream(PROMPT, [(0,) * 7])


def test_bfloat16_runs_and_sums_to_one():
    built, tokenizer = tiny.build()
    model = HuggingFaceModel(built.to(torch.bfloat16), tokenizer)
    law = model.stream(PROMPT, [(), (1,)]).log_probs()
    assert law.dtype == torch.float32
    np.testing.assert_allclose(law.exp().sum(-1), 1, atol=1e-5)
    assert np.isfinite(model.score(PROMPT, [(0, 1)], [0])[0]).all()


@pytest.mark.model
class TestDefaultModel:
    PROMPT = "The weather in London today is"

    def test_streams_and_scores_agree(self, smollm2):
        prompt = smollm2.begin(smollm2.encode(self.PROMPT, markers=True))
        rows = [smollm2.encode(text, markers=False) for text in (" cold and wet.", " fine, all in all", "")]
        scores = smollm2.score(prompt, rows, [0, 0, 0])
        stream = smollm2.stream(prompt, [()])
        for token, score in zip(rows[0], scores[0], strict=True):
            assert abs(float(stream.log_probs()[0, token]) - score) < 1e-3
            stream.push(np.array([token]))

    def test_markers_in_data_are_plain_text(self, smollm2):
        assert smollm2.encode("<|im_end|>", markers=True) == (smollm2.end,)
        plain = smollm2.encode("<|im_end|>", markers=False)
        assert len(plain) > 3
        assert smollm2.decode(plain) == "<|im_end|>"

    def test_pieces_of_broken_characters(self, smollm2):
        assert smollm2.pieces(smollm2.encode(" é🙂", markers=False)) == [" é", "<0xF0><0x9F>", "<0x99><0x82>"]
