"""Files that do not hold a network's weights are refused, and a tensor is named."""

import shutil

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_models import CPU, SOURCE
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from lmppl import ir
from lmppl.engines.contract import quiet
from lmppl.errors import LmpplError
from lmppl.lm.transformers import adapter, convert
from lmppl.lm.transformers.load import load_model
from lmppl.source import Span

NORM, UP = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"
SIZES = {"vocab_size": 4, "bos_token_id": None, "eos_token_id": 3, "pad_token_id": None}


def change(folder, by, name="model.safetensors"):
    weights = load_file(folder / name)
    by(weights)
    save_file(weights, folder / name, metadata={"format": "pt"})


def finding(folder, **options):
    with pytest.raises(LmpplError) as caught:
        load_model(ir.ModelDeclaration("LM", str(folder), Span(0, 5), **options), SOURCE, folder, CPU, quiet)
    (found,) = caught.value.diagnostics
    assert (found.code, found.source, found.span) == ("model-unusable", SOURCE, Span(0, 5))
    return found


def not_a_number(name, value=float("nan")):
    return lambda weights: weights[name].view(-1)[1:2].fill_(value)


CHANGES = {
    "missing": (lambda weights: weights.pop(UP), f"the tensor {UP} is missing"),
    "several": (lambda weights: [weights.pop(UP), weights.pop(NORM)], f"the tensor {UP} and 1 more are missing"),
    "too many": (lambda weights: weights.update(more=torch.zeros(2)), "the tensor more is there"),
    "shape": (lambda weights: weights.update({NORM: torch.zeros(3)}), f"the tensor {NORM} has the shape (3,)"),
    "NaN": (not_a_number(UP), f"the tensor {UP} holds what is no number"),
    "infinity": (not_a_number(NORM, -torch.inf), f"the tensor {NORM} holds what is no number"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_files_that_are_not_whole_are_refused_by_a_tensors_name(kind, tiny_folder, tmp_path):
    by, expected = CHANGES[kind]
    shutil.copytree(tiny_folder, tmp_path / "m")
    change(tmp_path / "m", by)
    assert finding(tmp_path / "m").found.startswith(expected)


def test_weights_that_are_tied_may_be_left_out_and_others_may_not(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path)
    network = GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=32, **SIZES))
    network.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    load_model(ir.ModelDeclaration("LM", str(tmp_path), Span(0, 5)), SOURCE, tmp_path, CPU, quiet)
    change(tmp_path, lambda weights: weights.pop("transformer.wte.weight"))
    assert "lm_head.weight and 1 more are missing" in finding(tmp_path).found


def test_an_expert_that_a_mixture_lacks_is_named(tmp_path):
    """Experts are put together into one tensor as they are read."""
    tiny.tokenizer().save_pretrained(tmp_path)
    options = {name: value for name, value in tiny.SMALL.items() if name != "head_dim"}
    MixtralForCausalLM(MixtralConfig(num_local_experts=2, **{**options, **SIZES})).save_pretrained(tmp_path)
    change(tmp_path, lambda weights: weights.pop("model.layers.1.block_sparse_moe.experts.0.w1.weight"))
    assert "model.layers.1.mlp.experts.gate_up_proj" in finding(tmp_path).found


def test_large_weights_are_numbers(tiny_folder):
    """Their sum is not."""
    from lmppl.lm.transformers.weights import not_numbers

    large = torch.full((4,), torch.finfo(torch.float32).max)
    assert not large.sum().isfinite()
    assert not_numbers({"large": large, "none": torch.zeros(0), "whole": torch.zeros(2, dtype=torch.int64)}) is None


@pytest.fixture
def adapted(tmp_path):
    """A folder with an adapter, changed by a function."""
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(tiny.build()[0], config).save_pretrained(tmp_path)

    def changed(by):
        change(tmp_path, by, "adapter_model.safetensors")
        return tmp_path

    return changed


LORA = "base_model.model.model.layers.1.self_attn.v_proj.lora_B"
ADAPTERS = {
    "missing": (lambda weights: weights.pop(f"{LORA}.weight"), LORA),
    "too many": (lambda weights: weights.update(more=torch.zeros(2)), "the tensor more is there"),
    "shape": (lambda weights: weights.update({f"{LORA}.weight": torch.zeros(3)}), f"size mismatch for {LORA}"),
    "NaN": (not_a_number(f"{LORA}.weight"), f"{LORA}.weight holds what is no number"),
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_that_are_not_whole_are_refused_by_a_tensors_name(kind, tiny_folder, adapted):
    by, expected = ADAPTERS[kind]
    folder = adapted(by)
    assert expected in finding(tiny_folder, adapter=str(folder)).found
    with pytest.raises(LmpplError) as caught:
        adapter.load(tiny.model(), folder)
    assert caught.value.diagnostics[0].code == "adapter-unusable"
    assert expected in caught.value.diagnostics[0].found


def test_a_gguf_file_that_lacks_a_tensor_is_not_converted(tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(32)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(4)
    writer.add_tensor("token_embd.weight", torch.zeros(4, 16).numpy())
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        write()
    writer.close()
    with pytest.raises(LmpplError, match="are not whole") as caught:
        convert.convert_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert "model.layers.0." in caught.value.diagnostics[0].found
    assert not (tmp_path / "out").exists()
