"""The tiny Llama of tiny.py as a GGUF file in float32, with a vocabulary of the SentencePiece kind."""

import gguf
import torch
import transformers

WORDS = ("▁a", "▁b", ".", "▁", "a", "b")
END, START, WINDOW = "</s>", "<s>", 96
KINDS = gguf.TokenType
PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def vocabulary(named=(), byte_tokens=range(256)):
    """Pieces with their kinds. named: further tokens that are markers."""
    markers = [(piece, KINDS.CONTROL) for piece in (END, START, *named)]
    return [*markers, *((f"<0x{b:02X}>", KINDS.BYTE) for b in byte_tokens), *((w, KINDS.NORMAL) for w in WORDS)]


def network(size, seed=0):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=WINDOW, rms_norm_eps=1e-5, eos_token_id=0, bos_token_id=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.5)
    return model


def write(path, pieces=None, *, ends=(), leave_out=(), seed=0, changed=iter, **said):
    """Writes a file and gives the network that it holds. ends: beside END; changed: tensors on their way into the file;
    said: other values of the tokenizer."""
    pieces = pieces or vocabulary(ends)
    model = network(len(pieces), seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model(said.get("model", "llama"))
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_scores([float(-n) for n in range(len(pieces))])
    writer.add_token_types([kind for _, kind in pieces])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_add_bos_token(said.get("begins", True))
    for name, tensor in changed(tensors(model)):
        if name not in leave_out:
            writer.add_tensor(name, tensor.contiguous().numpy())
    for part in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
        part()
    writer.close()
    return model


def tensors(model):
    state = model.state_dict()
    yield "token_embd.weight", state["model.embed_tokens.weight"]
    yield "output_norm.weight", state["model.norm.weight"]
    yield "output.weight", state["lm_head.weight"]
    for layer in range(2):
        for theirs, ours in PARTS.items():
            tensor = state[f"model.layers.{layer}.{theirs}.weight"]
            heads = {"attn_q": 4, "attn_k": 2}.get(ours)
            if heads:  # llama.cpp turns neighbours, where transformers turns halves
                tensor = tensor.reshape(heads, 2, 2, 16).transpose(1, 2).reshape(tensor.shape)
            yield f"blk.{layer}.{ours}.weight", tensor
