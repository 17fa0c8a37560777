"""Every causal architecture of transformers as a network of a few thousand numbers, built from its own config."""

import inspect

import tiny
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig

WORDS = tuple(f" w{number:02d}" for number in range(23))
SIZE = len(WORDS) + 1  # the end token is the last
# by the names that configs give them; windows are short, so that texts outgrow them
SIZES = {
    "vocab_size": SIZE,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_size", "embed_dim", "emb_dim", "dim"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "dim_model", "attention_hidden_size", "conv_dim", "lru_width"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_inner", "dff", "ffn_hidden_size", "dim_ff"), 64),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim", "mamba_d_ssm"), 64),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_decoder_attention_heads", "num_encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "context_length"), 128),
    **dict.fromkeys(("max_target_positions", "max_source_positions"), 128),
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "n_group", "topk_group"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("linear_num_value_heads", "mamba_n_heads", "mamba_num_heads"), 4),
    "linear_num_key_heads": 2,
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_headdim", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), 6),
    "index_n_heads": 2,
    "index_topk": 6,
    **dict.fromkeys(("bos_token_id", "pad_token_id"), 0),
    "eos_token_id": SIZE - 1,
    "is_decoder": True,
    "use_cache": True,
}  # fmt: skip
MIXED = ["linear_attention", "full_attention"]
OWN = {  # what an architecture needs besides
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    **{key: {"layer_types": MIXED} for key in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen4_exp_text")},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
}


def build(kind):
    """A network of an architecture, by the name of its config, whose laws are far from uniform."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_config(CONFIG_MAPPING[kind], OWN.get(kind, {})), dtype=torch.float32)
    for value in network.requires_grad_(False).parameters():
        if value.dim() > 1:
            value.data.normal_(0, 0.3)
    network.generation_config = GenerationConfig(eos_token_id=SIZE - 1)
    return network.eval()


def _config(kind, own):
    names = set(inspect.signature(kind.__init__).parameters)
    sizes = {name: value for name, value in SIZES.items() if name in names}
    for name, part in (kind.sub_configs or {}).items():
        if name in names and part.__name__ != "AutoConfig":
            sizes[name] = _config(part, {}).to_dict()
    return kind(**{**sizes, **own})


def tokenizer():
    return tiny.tokenizer(WORDS)
