"""Networks of many kinds, each run in the way that is found for it, against passes over whole texts."""

import architectures
import numpy as np
import pytest
import tiny
import torch
from transformers import BertConfig, BertLMHeadModel

from lmppl.errors import LmpplError
from lmppl.lm.huggingface import HuggingFaceModel
from lmppl.lm.ragged import room
from lmppl.lm.uncached import UncachedModel
from lmppl.lm.ways import quickest

PROMPT = (1, 2, 3, 4)
ROWS = [(5, 6, 7), (), (8,) * 9, (9, 10, 11, 12, 13, 14, 15, 16, 3, 2, 1, 5), (2, 17)]
WAYS = {  # each with a cache, with rows padded, or not
    **dict.fromkeys(("llama", "gpt2", "mixtral", "gemma3_text", "gpt_oss"), "padded"),
    **dict.fromkeys(("mpt", "bloom", "gpt_neo", "lfm2", "qwen3_next"), "apart"),
    **dict.fromkeys(("mamba", "rwkv", "jamba"), "uncached"),
}


def found(kind):
    names = {"name": "LM", "identifier": kind, "revision": "built"}
    return quickest(architectures.build(kind), architectures.tokenizer(), **names)


def way(model):
    if isinstance(model, UncachedModel):
        return "uncached"
    return "padded" if room(model, model.prompt(PROMPT)) else "apart"


@torch.inference_mode()
def law(model, tokens):
    """(T, V) after every token, from one pass over them alone."""
    logits = model.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return torch.log_softmax(logits.double(), -1).numpy()


def assert_right(model):
    """Scores, prefix scores and trees; and streams, fed, narrowed and fed again."""
    starts = [1, 0, 4, 0, 2]
    wholes = [law(model, (*PROMPT, *row))[len(PROMPT) - 1 :] for row in ROWS]
    expected = [whole[np.arange(len(row)), list(row)] for whole, row in zip(wholes, ROWS, strict=True)]
    for score, own, start in zip(model.score(PROMPT, ROWS, starts), expected, starts, strict=True):
        np.testing.assert_allclose(score, own[start:], atol=1e-4)
    for (_, ends), whole, start in zip(model.score_prefixes(PROMPT, ROWS, starts), wholes, starts, strict=True):
        np.testing.assert_allclose(ends, whole[start:, model.end], atol=1e-4)
    (trees,) = model.score_trees(PROMPT, [list(zip(ROWS, starts, strict=True))])
    np.testing.assert_allclose(trees, [own[s:].sum() for own, s in zip(expected, starts, strict=True)], atol=1e-3)
    stream, texts = model.stream(PROMPT, ROWS), [(*PROMPT, *row) for row in ROWS]
    for step in range(5):
        for one, text in zip(stream.log_probs(), texts, strict=True):
            np.testing.assert_allclose(one, law(model, text)[-1], atol=1e-4)
        if step == 1:
            stream.keep(np.array([3, 0, 0, 2]))
            texts = [texts[i] for i in (3, 0, 0, 2)]
        tokens = np.arange(step, step + len(texts)) % 20
        stream.push(tokens)
        texts = [(*text, int(token)) for text, token in zip(texts, tokens, strict=True)]


@pytest.mark.parametrize("kind", WAYS)
def test_laws_are_those_of_whole_passes(kind):
    model = found(kind)
    assert (model.cost.forward_passes, model.caches) == (0, WAYS[kind] != "uncached")
    assert way(model) == WAYS[kind]
    assert_right(model)


def test_places_that_are_columns_are_seen_from_what_a_network_does(monkeypatch):
    """MPT, were it said to be like any other, still is not padded."""
    network = architectures.build("mpt")
    monkeypatch.setattr(type(network), "_supports_attention_backend", True)
    names = {"name": "LM", "identifier": "mpt", "revision": "built"}
    assert way(quickest(network, architectures.tokenizer(), **names)) == "apart"


def test_work_without_a_cache_is_counted_as_it_is():
    model = found("mamba")
    stream = model.stream(PROMPT, [(1,), (1,), (2, 3)])
    stream.log_probs()
    assert (model.cost.forward_passes, model.cost.tokens_scored) == (2, len(PROMPT) + 1 + len(PROMPT) + 2)
    stream.push(np.array([1, 1, 1]))
    assert model.cost.tokens_decoded == 3
    assert model.cost.forward_passes == 2  # its law is not asked for


def refused(network):
    with pytest.raises(LmpplError) as caught:
        quickest(network, architectures.tokenizer(), name="LM", identifier="./m", revision="built")
    (finding,) = caught.value.diagnostics
    assert finding.code == "model-unsupported"
    assert type(network).__name__ in finding.message
    return finding.found


def test_a_network_that_fills_in_gaps_is_refused_by_its_name():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    network = BertLMHeadModel(BertConfig(vocab_size=architectures.SIZE, is_decoder=False, **sizes))
    for value in network.parameters():
        if value.dim() > 1:
            value.data.normal_(0, 0.5)
    assert "fills in gaps" in refused(network)


def test_a_network_that_cannot_read_tokens_alone_is_refused_by_its_name(monkeypatch):
    network = architectures.build("gpt2")
    monkeypatch.setattr(network, "forward", lambda pixels: pixels)
    assert "fails" in refused(network)


def test_a_tiny_window_is_not_outgrown_by_the_trial():
    network, tokenizer = tiny.build(window=4)
    assert isinstance(quickest(network, tokenizer, name="LM", identifier="m", revision="built"), HuggingFaceModel)
