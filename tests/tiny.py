"""A transformer of a few tokens with a real tokenizer: small enough to enumerate, the same code path as any model."""

import re
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lmppl.lm.huggingface import HuggingFaceModel

WORDS = (" a", " b", ".")
END = "<end>"


def tokenizer(words=WORDS, *, ends=(END,), bos=False, decoder=None):
    pieces = [*words, *ends, *(["<start>"] if bos else [])]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=words[0]))
    longest_first = sorted(words, key=len, reverse=True)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated")
    backend.decoder = decoder or decoders.Fuse()
    if bos:
        start = vocabulary["<start>"]
        backend.post_processor = processors.TemplateProcessing("<start> $A", special_tokens=[("<start>", start)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=ends[0], bos_token="<start>" if bos else None,
        additional_special_tokens=list(ends[1:]),
    )  # fmt: skip


def build(words=WORDS, *, seed=0, ends=(END,), bos=False, scale=1.0, window=128, decoder=None):
    """A Llama model whose next-token law is far from uniform and depends on its context; and its tokenizer."""
    chosen = tokenizer(words, ends=ends, bos=bos, decoder=decoder)
    vocabulary = chosen.get_vocab()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=window,
        bos_token_id=vocabulary.get("<start>"), eos_token_id=[vocabulary[end] for end in ends], pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.5 * scale)
    model.generation_config = GenerationConfig(eos_token_id=[vocabulary[end] for end in ends])
    return model.eval().requires_grad_(False), chosen


def model(words=WORDS, **options) -> HuggingFaceModel:
    return HuggingFaceModel(*build(words, **options))


SMALL = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 128,
}  # fmt: skip


def of_another_kind(config_class, model_class, *, scale=0.5, **options) -> HuggingFaceModel:
    """A model of another family, as small; it computes what its config says."""
    _, chosen = build()
    torch.manual_seed(0)
    config = config_class(vocab_size=4, eos_token_id=3, bos_token_id=None, pad_token_id=None, **{**SMALL, **options})
    network = model_class(config).requires_grad_(False)
    for value in network.parameters():
        if value.dim() > 1:
            value.data.normal_(0, scale)
    return HuggingFaceModel(network, chosen)


def save(folder: Path, words=WORDS, **options) -> Path:
    built, chosen = build(words, **options)
    built.save_pretrained(folder)
    chosen.save_pretrained(folder)
    return folder


@torch.inference_mode()
def reference_log_prob(language_model: HuggingFaceModel, context, tokens) -> float:
    """Σ log p, token by token, each from a pass of its own without a cache."""
    total = 0.0
    sequence = list(context)
    for token in tokens:
        logits = language_model.model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0, -1]
        total += float(torch.log_softmax(logits.double(), -1)[token])
        sequence.append(token)
    return total
