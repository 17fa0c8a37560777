"""A causal language model of transformers behind the protocol: scoring and streams over token ids.

Log probabilities are of the raw logits, in float32: no temperature, no truncation, no penalty. Nothing here
knows programs, files or devices beyond where its weights lie; `load.py` finds and loads models.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

from lmppl.errors import LmpplError, error
from lmppl.lm.attention import SharedPrompt, install, shares
from lmppl.lm.cache import SLACK, GrowingLayer, alike, fork, put, take
from lmppl.lm.protocol import Cost, Past, Tokens
from lmppl.lm.vocabulary import byte_table, token_bytes

MOST_PROMPTS = 16  # prompts whose caches are kept
MOST_LOGITS = 128 * 2**20  # logits of one scoring pass: 0.5 GiB in float32
DOCUMENT_START = "<|endoftext|>"  # separates documents in the training of GPT-2, SmolLM2, Qwen and many others


@dataclass(frozen=True)
class _Prompt:
    """A prompt that has been run, at batch 1, and the law of the token after it."""

    cache: DynamicCache
    logits: torch.Tensor  # (V,) float32
    shared: SharedPrompt | None  # where rows need no copy of the cache

    @property
    def length(self) -> int:
        return self.cache.get_seq_length()

    def fork(self, num_rows: int, room: int) -> DynamicCache:
        return fork(self.cache, num_rows, room, shared=self.shared is not None)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the model's forward is given besides a cache made by `fork`."""
        return {} if self.shared is None else {"shared_prompt": self.shared}


class HuggingFaceModel:
    """Implements lm.protocol.LanguageModel. The model is put into evaluation mode; its weights are never changed."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        name: str = "LM",
        identifier: str = "local",
        revision: str = "local",
    ) -> None:
        self.name, self.identifier, self.revision = name, identifier, revision
        self.model, self.tokenizer = model.eval(), tokenizer
        install(model)
        self.device = model.device
        self.cost = Cost()
        self.ends = _end_tokens(model, tokenizer)
        self.end = self.ends[0]
        self.vocabulary_size = int(model.config.get_text_config().vocab_size)
        # a model without learned or rotary positions has no window of its own
        self.window = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        backend: Any = tokenizer.backend_tokenizer
        self.tokenizer_fingerprint = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self._bytes = functools.cache(lambda: token_bytes(tokenizer, self.vocabulary_size))
        self._beginning = _beginning(tokenizer)
        self._empty = _document_start(tokenizer, self.end)
        self._prompts: OrderedDict[Tokens, _Prompt] = OrderedDict()

    # --- tokens ----------------------------------------------------------------------------------

    def encode(self, text: str, *, markers: bool) -> Tokens:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=not markers)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        known = [token for token in tokens if token < len(self.tokenizer)]  # padded vocabularies have no text there
        return str(self.tokenizer.decode(known, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def begin(self, tokens: Tokens) -> Tokens:
        if self._beginning is not None and tokens[:1] != (self._beginning,):
            return (self._beginning, *tokens)
        return tokens or (self._empty,)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Text of every token by itself; bytes that are no whole character are written <0xE2>."""
        return [self._piece(token) for token in tokens]

    def _piece(self, token: int) -> str:
        text = self.decode([token])
        if "\ufffd" not in text:
            return text
        raw = self.tokenizer.convert_ids_to_tokens([token])[0]
        table = byte_table()
        return "".join(f"<0x{table.get(character, ord(character) & 0xFF):02X}>" for character in raw)

    @property
    def token_bytes(self) -> tuple[bytes, ...] | None:
        """Bytes of each of the V tokens; None where a token's text depends on its neighbours."""
        return self._bytes()

    # --- scoring ---------------------------------------------------------------------------------

    def score(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[NDArray[np.float64]]:
        return [tokens for tokens, _ in self._score(prompt, continuations, starts, with_ends=False)]

    def score_prefixes(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        return self._score(prompt, continuations, starts, with_ends=True)

    @torch.inference_mode()
    def _score(self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int], with_ends: bool):
        """Per row: log probabilities of its tokens from its start on, and of the end around them (or nothing)."""
        results: list = [None] * len(continuations)
        for batch in self._batches(continuations, starts, len(prompt)):
            rows = [continuations[i] for i in batch]
            scores = self._score_batch(prompt, rows, [starts[i] for i in batch], with_ends)
            for i, score in zip(batch, scores, strict=True):
                results[i] = score
        return results

    def _batches(
        self, continuations: Sequence[Tokens], starts: Sequence[int], prompt_length: int
    ) -> Iterator[list[int]]:
        """Rows of similar length together, as many as the logits have room for."""
        order = sorted(range(len(continuations)), key=lambda i: (len(continuations[i]), starts[i]))
        batch: list[int] = []
        least = 0
        for i in order:
            longest = len(continuations[i])
            self._check_window(prompt_length + longest)
            least = min(least, starts[i]) if batch else starts[i]
            if batch and (len(batch) + 1) * (longest - least + 1) * self.vocabulary_size > MOST_LOGITS:
                yield batch
                batch, least = [], starts[i]
            batch.append(i)
        if batch:
            yield batch

    def _score_batch(self, prompt: Tokens, rows: Sequence[Tokens], starts: Sequence[int], with_ends: bool) -> list:
        try:
            return self._score_rows(prompt, rows, starts, with_ends)
        except torch.cuda.OutOfMemoryError:
            if len(rows) == 1:
                raise
        half = len(rows) // 2
        first = self._score_batch(prompt, rows[:half], starts[:half], with_ends)
        return first + self._score_batch(prompt, rows[half:], starts[half:], with_ends)

    def _score_rows(self, prompt: Tokens, rows: Sequence[Tokens], starts: Sequence[int], with_ends: bool) -> list:
        """One pass. The last token of a row is run only where the law after it is asked for.

        Position t of a row is predicted by the input before it: the prompt's last for t = 0.
        """
        ready = self._prompt(prompt)
        inputs = [row if with_ends else row[:-1] for row in rows]
        width = max(map(len, inputs))
        first = max(min(starts), 1) - 1  # first input whose law is needed
        logits = self._run_padded(ready, inputs, width, first) if width > first else None  # (B, width - first, V)
        results = []
        for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
            laws = [ready.logits[None]] if start == 0 and (row or with_ends) else []
            if logits is not None and len(inputs[b]) > max(start - 1, 0):
                laws.append(logits[b, max(start - 1, 0) - first : len(inputs[b]) - first])
            results.append(self._read(laws, row[start:], with_ends))
        return results

    def _run_padded(self, ready: _Prompt, inputs: Sequence[Tokens], width: int, first: int) -> torch.Tensor:
        """Logits after inputs[first:]. Rows are padded on the right, where causal attention ignores it."""
        padded = torch.full((len(inputs), width), self.end, dtype=torch.long)
        for b, row in enumerate(inputs):
            padded[b, : len(row)] = torch.tensor(row, dtype=torch.long)
        positions = torch.arange(ready.length, ready.length + width, device=self.device)
        output = self.model(
            input_ids=padded.to(self.device),
            past_key_values=ready.fork(len(inputs), width),
            position_ids=positions[None].expand(len(inputs), -1),
            use_cache=True,
            logits_to_keep=width - first,
            **ready.arguments,
        )
        self.cost.forward_passes += 1
        self.cost.tokens_scored += sum(map(len, inputs))
        return output.logits

    def _read(self, laws: Sequence[torch.Tensor], tokens: Tokens, with_ends: bool):
        """Log probabilities of tokens (T,) and, from laws of T + 1 positions, of the end (T + 1,)."""
        if not laws:
            return np.zeros(0), np.zeros(0)
        law = torch.cat(list(laws)) if len(laws) > 1 else laws[0]
        law = law.float()
        total = torch.logsumexp(law, dim=-1)
        index = torch.tensor(tokens, dtype=torch.long, device=law.device)
        scores = law[: len(tokens)].gather(1, index[:, None])[:, 0] - total[: len(tokens)]
        if len(self.ends) > 1:
            ends = torch.logsumexp(law[:, list(self.ends)], dim=-1) - total
            scores = torch.where(index == self.end, ends[: len(tokens)], scores)
            scores = scores.masked_fill(torch.isin(index, index.new_tensor(self.ends[1:])), -torch.inf)
        else:
            ends = law[:, self.end] - total if with_ends else total[:0]
        return scores.double().cpu().numpy(), ends.double().cpu().numpy()

    # --- streams ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def stream(self, prompt: Tokens, suffixes: Sequence[Tokens]) -> HuggingFaceStream:
        self._check_window(len(prompt) + max(map(len, suffixes), default=0))
        return HuggingFaceStream(self, self._prompt(prompt), suffixes)

    @torch.inference_mode()
    def resume(self, prompt: Tokens, pasts: Sequence[Past], lengths: Sequence[int]) -> HuggingFaceStream:
        rows = [past.tokens[:length] for past, length in zip(pasts, lengths, strict=True)]
        return HuggingFaceStream(self, self._prompt(prompt), rows, [past.block for past in pasts])

    def log_law(self, logits: torch.Tensor) -> torch.Tensor:
        """Log probabilities of logits (…, V), in float32, with all end tokens as one."""
        law = torch.log_softmax(logits.float(), dim=-1)
        if len(self.ends) > 1:
            ends = torch.logsumexp(law[..., list(self.ends)], dim=-1)
            law[..., list(self.ends)] = -torch.inf
            law[..., self.end] = ends
        return law

    def _prompt(self, tokens: Tokens) -> _Prompt:
        """The prompt's cache and next law, run once and kept while it is among the latest."""
        if tokens in self._prompts:
            self._prompts.move_to_end(tokens)
            return self._prompts[tokens]
        self._check_window(len(tokens))
        cache = DynamicCache(config=self.model.config)
        ids = torch.tensor([tokens], dtype=torch.long, device=self.device)
        shared = SharedPrompt() if shares(self.model) else None
        options = {} if shared is None else {"shared_prompt": shared}
        output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **options)
        self.cost.forward_passes += 1
        self.cost.tokens_scored += len(tokens)
        filled = output.past_key_values
        shared = shared if shared is not None and shared.finish(filled) else None
        self._prompts[tokens] = _Prompt(filled, output.logits[0, -1].float(), shared)
        while len(self._prompts) > MOST_PROMPTS:
            self._prompts.popitem(last=False)
        return self._prompts[tokens]

    def _check_window(self, length: int) -> None:
        if length > self.window:
            message = f"`{self.name}` was given {length} tokens"
            raise LmpplError(error("context-too-long", message, expected=f"at most {self.window} tokens"))


class HuggingFaceStream:
    """Implements lm.protocol.Stream. Suffixes of unequal length are padded between the prompt and themselves."""

    def __init__(
        self,
        owner: HuggingFaceModel,
        ready: _Prompt,
        suffixes: Sequence[Tokens],
        blocks: Sequence[torch.Tensor | None] | None = None,
    ) -> None:
        """blocks: keys and values of at least the suffixes, where they have been run before."""
        self._owner = owner
        lengths = torch.tensor([len(suffix) for suffix in suffixes])
        width = int(lengths.max()) if len(suffixes) else 0
        self._ready = ready
        self._own = [list(suffix) for suffix in suffixes]  # per row, its tokens in the cache
        self._positions = ready.length + lengths  # (B,) of the next token
        self._mask: torch.Tensor | None = None  # (B, length of the cache), where rows are padded
        self._logits = ready.logits.expand(len(suffixes), -1)  # (B, V)
        if blocks is not None:
            held = [block for block in blocks if block is not None]
            self._cache = put(ready.cache, held, lengths.tolist(), SLACK)
            self._mask = self._padding(width)
            return
        self._cache = ready.fork(len(suffixes), width + SLACK)
        if width:
            self._feed_suffixes(suffixes, lengths, width)

    def _padding(self, width: int) -> torch.Tensor | None:
        """(B, width) which columns a row has filled, where the prompt is shared; None where that is all."""
        own = self._positions - self._ready.length
        real = torch.arange(width)[None] >= width - own[:, None]
        return None if bool(real.all()) else real.to(self._owner.device)

    def _feed_suffixes(self, suffixes: Sequence[Tokens], lengths: torch.Tensor, width: int) -> None:
        padded = torch.full((len(suffixes), width), self._owner.end, dtype=torch.long)
        for b, suffix in enumerate(suffixes):
            if suffix:
                padded[b, width - len(suffix) :] = torch.tensor(suffix, dtype=torch.long)
        real = torch.arange(width)[None] >= width - lengths[:, None]  # (B, width)
        positions = self._ready.length + (torch.arange(width)[None] - (width - lengths[:, None])).clamp(min=0)
        if not bool(real.all()):
            before = torch.ones(len(suffixes), self._cache.get_seq_length(), dtype=torch.bool)
            self._mask = torch.cat([before, real], dim=1).to(self._owner.device)
        before = self._logits
        self._forward(padded, positions)
        self._owner.cost.tokens_scored += int(lengths.sum())
        empty = (lengths == 0).to(self._owner.device)
        self._logits = torch.where(empty[:, None], before, self._logits.float())

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> None:
        output = self._owner.model(
            input_ids=tokens.to(self._owner.device),
            past_key_values=self._cache,
            position_ids=positions.to(self._owner.device),
            attention_mask=self._mask,
            use_cache=True,
            logits_to_keep=1,
            **self._ready.arguments,
        )
        self._logits = output.logits[:, -1]
        self._owner.cost.forward_passes += 1

    @torch.inference_mode()
    def log_probs(self) -> torch.Tensor:
        return self._owner.log_law(self._logits)

    @torch.inference_mode()
    def push(self, tokens: NDArray[np.int64]) -> None:
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self._forward(torch.as_tensor(tokens)[:, None], self._positions[:, None])
        self._positions = self._positions + 1
        for own, token in zip(self._own, tokens.tolist(), strict=True):
            own.append(token)
        self._owner.cost.tokens_decoded += len(tokens)

    @torch.inference_mode()
    def keep(self, rows: NDArray[np.int64]) -> None:
        index = torch.as_tensor(rows)
        on_device = index.to(self._owner.device)
        self._cache.batch_select_indices(on_device)
        self._positions = self._positions[index]
        self._own = [list(self._own[row]) for row in rows]
        self._logits = self._logits[on_device]
        if self._mask is not None:
            self._mask = self._mask[on_device]

    @property
    def joins(self) -> bool:
        """Only caches of rows' own tokens can be put side by side."""
        return self._ready.shared is not None and alike(self._ready.cache)

    @torch.inference_mode()
    def take(self, rows: Sequence[int]) -> list[Past]:
        return [Past(tuple(self._own[row]), take(self._cache, row, len(self._own[row]))) for row in rows]

    @torch.inference_mode()
    def join(self, other: HuggingFaceStream) -> None:
        self._positions = torch.cat([self._positions, other._positions])
        self._own += other._own
        width = max(map(len, self._own))
        for mine, theirs in zip(self._cache.layers, other._cache.layers, strict=True):
            assert isinstance(mine, GrowingLayer)
            assert isinstance(theirs, GrowingLayer)
            mine.join(theirs, width)
        self._logits = torch.cat([self._logits, other._logits])
        self._mask = self._padding(width)


# --- special tokens -------------------------------------------------------------------------------


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """End-of-text tokens, the tokenizer's own first. Raises LmpplError where there is none."""
    settings = model.generation_config or model.config
    listed = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    ends = [token for token in dict.fromkeys([tokenizer.eos_token_id, *listed]) if token is not None]
    if not ends:
        raise LmpplError(error("no-end-token", "the model names no end-of-text token, so no text could end"))
    return tuple(int(str(token)) for token in ends)


def _beginning(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The beginning-of-text token, where the tokenizer puts one in front of a text by itself."""
    whole = tokenizer("a", add_special_tokens=True)["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    added = len(whole) > len(bare) and whole[:1] != bare[:1]
    return int(whole[0]) if added and whole[0] == tokenizer.bos_token_id else None


def _document_start(tokenizer: PreTrainedTokenizerFast, end: int) -> int:
    """What an empty context consists of, where the tokenizer adds no beginning-of-text token."""
    vocabulary = tokenizer.get_vocab()
    if DOCUMENT_START in vocabulary:
        return vocabulary[DOCUMENT_START]
    return int(str(tokenizer.bos_token_id)) if tokenizer.bos_token_id is not None else end
