"""A transformer of a few tokens with a real tokenizer: small enough to enumerate, the same code path as any model."""

import re
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, WordLevel
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lmppl.lm.transformers.huggingface import HuggingFaceModel

WORDS = (" a", " b", ".")
END = "<end>"


FORMS = ("llama", "mistral", "gemma", "metaspace")  # tokenizers of the SentencePiece kind


def sentencepiece(words=WORDS, form="llama", *, fallback=(), end=END):
    """Byte pairs over ▁ for a space, which the forms put in front of texts and take away again in different ways.

    fallback: bytes that are tokens, <0x0A> and the like; a character none of whose bytes is missing is written so.
    """
    pieces = [word.replace(" ", "▁") for word in words]
    symbols = dict.fromkeys([*"".join(pieces), *pieces])
    named = [end, *(f"<0x{byte:02X}>" for byte in fallback)]
    vocabulary = {piece: i for i, piece in enumerate([*symbols, *named])}
    merges = [(piece[:i], piece[i:]) for piece in pieces for i in range(1, len(piece)) if piece[:i] in symbols]
    merges = [pair for pair in merges if pair[1] in symbols]
    backend = Tokenizer(BPE(vocabulary, merges, byte_fallback=bool(fallback)))
    spaces = normalizers.Replace(" ", "▁")
    backend.normalizer = {
        "llama": normalizers.Sequence([normalizers.Prepend("▁"), spaces]),
        "gemma": spaces,
    }.get(form)  # fmt: skip
    scheme = {"mistral": "first", "metaspace": "always"}.get(form)
    if scheme:
        backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=form == "metaspace")
    reading = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    stripped = [] if form == "gemma" else [decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Metaspace() if form == "metaspace" else decoders.Sequence([*reading, *stripped])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end)


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


def build(words=WORDS, *, seed=0, ends=(END,), bos=False, scale=1.0, window=128, decoder=None, chosen=None):
    """A Llama model whose next-token law is far from uniform and depends on its context; and its tokenizer.

    chosen: that tokenizer, in place of one of words.
    """
    chosen = chosen or tokenizer(words, ends=ends, bos=bos, decoder=decoder)
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
def reference_law(language_model: HuggingFaceModel, sequence) -> torch.Tensor:
    """(V,) log p of the next token, from a pass of its own without a cache."""
    logits = language_model.model(input_ids=torch.tensor([list(sequence)]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.double(), -1)


@torch.inference_mode()
def reference_laws(language_model: HuggingFaceModel, sequences) -> dict:
    """`reference_law` of each; those of one length are rows of one pass, which has no padding."""
    laws, by_length = {}, {}
    for sequence in sequences:
        by_length.setdefault(len(sequence), []).append(tuple(sequence))
    for some in by_length.values():
        logits = language_model.model(input_ids=torch.tensor(some), use_cache=False, logits_to_keep=1).logits[:, -1]
        laws |= zip(some, torch.log_softmax(logits.double(), -1), strict=True)
    return laws


def reference_log_prob(language_model: HuggingFaceModel, context, tokens) -> float:
    """Σ log p, token by token."""
    total = 0.0
    sequence = list(context)
    for token in tokens:
        total += float(reference_law(language_model, sequence)[token])
        sequence.append(token)
    return total
