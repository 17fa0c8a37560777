"""Every causal architecture of transformers as a network of a few thousand numbers, built from its own config.

`python tests/architectures.py` tries them all, and writes into docs/models.md which run and how; or some, by name.
"""

import inspect
import signal
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tiny
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig
from transformers import __version__ as VERSION
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lmppl.errors import LmpplError
from lmppl.lm.transformers.ragged import room
from lmppl.lm.transformers.uncached import UncachedModel
from lmppl.lm.transformers.ways import quickest

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
LIMIT = 120  # seconds for an architecture
LARGEST = 10**7  # numbers of a network that is still tiny
PROMPT = (1, 2, 3, 4)
ROWS = [(5, 6, 7), (), (8,) * 9, (9, 10, 11, 12, 13, 14, 15, 16, 3, 2, 1, 5), (2, 17)]
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
    **dict.fromkeys(("linear_num_heads", "linear_num_value_heads", "mamba_n_heads", "mamba_num_heads"), 4),
    "linear_num_key_heads": 2,
    **dict.fromkeys(("linear_head_dim", "linear_key_head_dim", "linear_value_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state"), 4),
    **dict.fromkeys(("mamba_d_head", "mamba_headdim", "mamba_head_dim"), 16),
    **dict.fromkeys(("mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), 6),
    "index_n_heads": 2,
    "index_topk": 64,  # a choice among equals would hang on the length of the pass
    **dict.fromkeys(("bos_token_id", "pad_token_id"), 0),
    "eos_token_id": SIZE - 1,
    "is_decoder": True,
    "use_cache": True,
}  # fmt: skip
MIXED = ["linear_attention", "full_attention"]
SLIDING = ["sliding_attention", "full_attention"]
STATES = ["conv", "full_attention"]
OWN = {  # what an architecture needs besides
    **{kind: {"layer_types": MIXED} for kind in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "qwen4_exp_text")},
    **{kind: {"layer_types": MIXED} for kind in ("kimi_linear", "granitemoehybrid")},
    **{kind: {"layer_types": STATES} for kind in ("lfm2", "lfm3")},
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"layer_types": SLIDING},
    "gemma3n_text": {
        "layer_types": SLIDING, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": SIZE,
        "hidden_size_per_layer_input": 8, "activation_sparsity_pattern": [0.0, 0.0], "laurel_rank": 4,
    },
    "gemma4_text": {"layer_types": SLIDING, "vocab_size_per_layer_input": SIZE, "hidden_size_per_layer_input": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "lfm2_moe": {"layer_types": STATES, "num_dense_layers": 1},
    "mamba2": {"head_dim": 16},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local"], "attention_head_size": 8},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "mamba", "hybrid"], "mamba_dt_rank": 4},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"]},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip


def build(kind):
    """A network of an architecture, by the name of its config, whose laws are far from uniform."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(_config(CONFIG_MAPPING[kind], OWN.get(kind, {})), dtype=torch.float32)
    if network.num_parameters() > LARGEST:
        raise ValueError(f"{kind} is not tiny")
    for value in network.requires_grad_(False).parameters():
        if value.dim() > 1:
            value.data.normal_(0, 0.3)
    network.generation_config = GenerationConfig(eos_token_id=SIZE - 1)
    return network.eval()


def _config(kind, own):
    names = set(inspect.signature(kind.__init__).parameters)
    sizes = {name: value for name, value in SIZES.items() if name in names}
    if "kv_lora_rank" in names:  # latent attention has keys for every head
        sizes["num_key_value_heads"] = 4
    for name, part in (kind.sub_configs or {}).items():
        if name in names and part.__name__ != "AutoConfig":
            sizes[name] = _config(part, {}).to_dict()
    return kind(**{**sizes, **own})


def tokenizer():
    return tiny.tokenizer(WORDS)


def found(kind):
    names = {"name": "LM", "identifier": kind, "revision": "built"}
    return quickest(build(kind), tokenizer(), **names)


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


# --- the page -------------------------------------------------------------------------------------

TITLES = {
    "padded": "with a cache, rows of any length together",
    "apart": "with a cache, rows of one length together",
    "uncached": "without a cache: slow",
    "refused": "refused",
    "wrong": "wrong",
    "not tried": "not tried: cannot be built small from its config alone",
}
BEGIN, END = "<!-- by tests/architectures.py -->\n", "<!-- until here -->\n"


class OutOfTime(Exception):
    pass


def tried(kind):
    """How an architecture runs, by the names of TITLES."""
    with limited(), warnings.catch_warnings(action="ignore"):
        try:
            build(kind)(input_ids=torch.tensor([PROMPT]), use_cache=False)
        except Exception:
            return "not tried"
        try:
            model = found(kind)
            assert_right(model)
        except OutOfTime:
            return "not tried"
        except LmpplError:
            return "refused"
        except AssertionError:
            return "wrong"
        return way(model)


@contextmanager
def limited():
    """OutOfTime where it takes longer than LIMIT."""

    def stop(*_):
        raise OutOfTime

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)


def listed():
    """What the page says: kinds by the names of TITLES."""
    rows = [line.split(" | ") for line in PAGE.read_text().split(BEGIN)[1].split(END)[0].splitlines()[2:]]
    names = {title: name for name, title in TITLES.items()}
    return {names[title.removeprefix("| ")]: kinds.removesuffix(" |").split(", ") for title, kinds in rows}


def write(chosen):
    """Try these kinds, or all where there are none, and write the page's table anew."""
    before, rest = PAGE.read_text().split(BEGIN)
    ways = {kind: way for way, kinds in (listed() if chosen else {}).items() for kind in kinds}
    for kind in chosen or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        ways[kind] = tried(kind)
        print(kind, ways[kind], flush=True)
    kinds = {way: ", ".join(sorted(kind for kind in ways if ways[kind] == way)) for way in TITLES}
    rows = [f"| {TITLES[way]} | {names} |\n" for way, names in kinds.items() if names]
    table = f"| how it runs | architectures of transformers {VERSION}, by `model_type` |\n|---|---|\n" + "".join(rows)
    PAGE.write_text(f"{before}{BEGIN}{table}{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    write(sys.argv[1:])
