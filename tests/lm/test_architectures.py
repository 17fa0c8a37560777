"""Networks of many kinds, each run in the way that is found for it, against passes over whole texts."""

from pathlib import Path

import architectures
import numpy as np
import pytest
import tiny
from transformers import BertConfig, BertLMHeadModel

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.errors import LmpplError
from lmppl.lm.transformers.huggingface import HuggingFaceModel
from lmppl.lm.transformers.ways import quickest
from lmppl.source import Source

WAYS = {  # each with a cache, with rows padded, or not
    **dict.fromkeys(("llama", "gpt2", "mixtral", "gemma3_text", "gpt_oss"), "padded"),
    **dict.fromkeys(("mpt", "bloom", "gpt_neo", "lfm2", "qwen3_next"), "apart"),
    **dict.fromkeys(("mamba", "rwkv", "jamba"), "uncached"),
}
QUICK = ("llama", "bloom", "mamba")  # one of each way


LISTED = architectures.listed()


def test_the_page_says_how_they_run():
    for kind, way in WAYS.items():
        assert kind in LISTED[way]
    assert "wrong" not in LISTED
    if f" {architectures.VERSION}," in architectures.PAGE.read_text():
        kinds = [kind for some in LISTED.values() for kind in some]
        assert sorted(kinds) == sorted(architectures.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@pytest.mark.sweep
@pytest.mark.slow
@pytest.mark.parametrize(("way", "kind"), [(way, kind) for way in LISTED for kind in LISTED[way] if way != "not tried"])
def test_every_architecture_runs_as_the_page_says(way, kind):
    """All of transformers that can be built tiny."""
    found = architectures.tried(kind)
    if found == "not tried":
        pytest.skip(f"{kind} was not built in {architectures.LIMIT} s")
    assert found == way


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in QUICK else pytest.mark.slow) for k in WAYS])
def test_laws_are_those_of_whole_passes(kind):
    model = architectures.found(kind)
    assert (model.cost.forward_passes, model.caches) == (0, WAYS[kind] != "uncached")
    assert architectures.way(model) == WAYS[kind]
    architectures.assert_right(model)


def test_places_that_are_columns_are_seen_from_what_a_network_does(monkeypatch):
    """MPT, were it said to be like any other, still is not padded."""
    network = architectures.build("mpt")
    monkeypatch.setattr(type(network), "_supports_attention_backend", True)
    names = {"name": "LM", "identifier": "mpt", "revision": "built"}
    assert architectures.way(quickest(network, architectures.tokenizer(), **names)) == "apart"


def test_work_without_a_cache_is_counted_as_it_is():
    model = architectures.found("mamba")
    stream = model.stream(architectures.PROMPT, [(1,), (1,), (2, 3)])
    stream.log_probs()
    assert model.cost.forward_passes == 2  # one a length, equal rows once
    assert model.cost.tokens_scored == 2 * len(architectures.PROMPT) + 1 + 2
    stream.push(np.array([1, 1, 1]))
    assert model.cost.tokens_decoded == 3
    assert model.cost.forward_passes == 2  # its law is not asked for


@pytest.mark.parametrize("kind", ["rwkv", "llama"])
def test_a_run_says_that_it_has_no_cache(kind):
    code = 'lm LM = "./m"\nZ ~ LM(" w01 w02") max 2 tokens\n'
    program = analyse(Source("p.lm", code), Path()).program
    _, findings = bind(program, {"LM": architectures.found(kind)}, Row({}, {}))
    assert [finding.code for finding in findings] == ["without-cache"] * (kind == "rwkv")
    assert [code[f.span.start : f.span.end] for f in findings] == ['lm LM = "./m"'] * (kind == "rwkv")


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
