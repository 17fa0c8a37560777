"""Tensor by tensor, or all of them at once: a GGUF file becomes the same model, to the last bit."""

import json

import pytest
import tiny_gguf
import torch
from safetensors.torch import load_file, save
from transformers import AutoModelForCausalLM

from lmppl.errors import LmpplError
from lmppl.lm.transformers import convert, models
from lmppl.lm.transformers.aliases import ALIASES


def whole(file, dtype):
    """What transformers makes of a file by itself, with all of it in memory."""
    source = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    return AutoModelForCausalLM.from_pretrained(**source, dtype=dtype).state_dict()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_those_of_transformers_to_the_last_bit(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(convert, "ROWS_AT_ONCE", 100)  # of the table of 264 tokens
    network = tiny_gguf.write(tmp_path / "m.gguf")
    told = []
    ends = (tiny_gguf.START,)
    convert.convert_gguf(tmp_path / "m.gguf", tmp_path / "out", dtype, ends, lambda *at: told.append(at))
    expected = whole(tmp_path / "m.gguf", getattr(torch, dtype))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == save(expected, {"format": "pt"})
    for name, value in network.state_dict().items():
        assert torch.equal(expected[name], value.to(getattr(torch, dtype)))
    total = sum(value.numel() for value in expected.values())
    assert told[-1] == (total, total)
    assert len(told) == len(expected) + 2 * 2  # two tables, in three pieces each
    settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [0, 1]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


def test_a_weight_that_is_no_number_is_named(tmp_path):
    def spoil(tensors):
        for name, tensor in tensors:
            if name == "blk.1.ffn_up.weight":
                tensor = tensor.clone()
                tensor[3, 5] = float("nan")
            yield name, tensor

    tiny_gguf.write(tmp_path / "m.gguf", changed=spoil)
    with pytest.raises(LmpplError, match="are not whole") as caught:
        convert.convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert "model.layers.1.mlp.up_proj.weight holds what is no number" in caught.value.diagnostics[0].found


@pytest.mark.model
def test_the_default_model_has_the_weights_that_it_always_had(smollm2):
    """By content: those that transformers has made of the file with all of it in memory."""
    made = json.loads((models.cache_folder() / "smollm2-135m" / models.MANIFEST).read_text())
    expected = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"
    assert made["files"]["model.safetensors"]["sha256"] == expected
    assert made["source_sha256"] == ALIASES["smollm2-135m"].source_sha256
    weights = load_file(models.cache_folder() / "smollm2-135m" / "model.safetensors")
    assert sum(value.numel() for value in weights.values()) == 134_515_008
