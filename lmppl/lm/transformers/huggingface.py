"""A causal language model of transformers behind the protocol: scoring and streams over token ids.

Log probabilities are of the raw logits, in float32, or of what a local law makes of them.
Nothing here knows programs, files or devices beyond where its weights lie; `load.py` finds and
loads models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmppl.lm.base import NOTHING, require_window
from lmppl.lm.capabilities import Capabilities, Capability
from lmppl.lm.local_law import UnderLaw
from lmppl.lm.protocol import Cost, Past, Row, Rows, Tokens, nothing
from lmppl.lm.sampling import sample_by_laws
from lmppl.lm.transformers import adapter
from lmppl.lm.transformers.attention import install
from lmppl.lm.transformers.cache import EmptyCache, alike
from lmppl.lm.transformers.laws import log_law, picked_rows
from lmppl.lm.transformers.limits import longest, require_known, require_rows
from lmppl.lm.transformers.prompts import (
    Prompt,
    Prompts,
    run_prompt,
    run_prompts,
)
from lmppl.lm.transformers.ragged import RaggedStream, stream_of
from lmppl.lm.transformers.recorded import Record, RecordedStep, Tell
from lmppl.lm.transformers.scored_rows import Read, read_rows
from lmppl.lm.transformers.scored_trees import score_trees
from lmppl.lm.transformers.special_tokens import (
    beginning,
    document_start,
    end_tokens,
    template_of,
)
from lmppl.lm.transformers.spelling import Spelling
from lmppl.lm.transformers.static import CompiledStep, StaticStream, Step
from lmppl.lm.transformers.stream import HuggingFaceStream
from lmppl.lm.transformers.training import OpenPrompts, num_own_tokens, open_prompts
from lmppl.lm.tree import score_one_by_one

SHORTEST_STEM = 16  # tokens that prompts begin with: fewer are not worth a pass of their own
# logits of one scoring pass on a CPU: 128 MiB; larger passes cost a token as much
MOST_LOGITS = 32 * 2**20
ON_GPU = 8  # times as many
T = TypeVar("T")
LIGHT = 10_000_000  # weights that a processor goes over in no time


class HuggingFaceModel(UnderLaw):
    """Implements lm.protocol.Trainable. The model is put into evaluation mode; its weights are
    never changed.
    """

    caches = True
    capabilities: Capabilities = frozenset(Capability)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        name: str = "LM",
        identifier: str = "local",
        revision: str = "local",
        fingerprint: Mapping[str, str] = NOTHING,
    ) -> None:
        self.name, self.identifier, self.revision = name, identifier, revision
        self.fingerprint = fingerprint
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        install(model)
        # where transformers builds no masks, a layer may count columns as places (ALiBi, windows of
        # its own)
        self.pads: bool = model._supports_attention_backend
        self.device = model.device
        self.cost, self.empty = Cost(), EmptyCache(model.config)
        self.vocabulary_size = int(model.config.get_text_config().vocab_size)
        self.ends = end_tokens(model, tokenizer)
        self.end = self.ends[0]
        self.window = longest(model)
        self.chat = template_of(tokenizer)
        backend: Any = tokenizer.backend_tokenizer
        self.tokenizer_fingerprint = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self._spelling = Spelling(tokenizer, self.vocabulary_size)
        # puts a shared network into this model's state
        self.before_pass: Callable[[], None] = nothing
        self._beginning = beginning(tokenizer)
        self._empty = document_start(tokenizer, self.end)
        require_rows(self.vocabulary_size, [*self.ends, self._beginning, self._empty], tokenizer)
        self._prompts = Prompts()
        self._stems: set[Tokens] = set()
        self._step: Step | None = None

    @property
    def slow(self) -> bool:
        return self.device.type == "cpu" and self.model.num_parameters() > LIGHT

    def compile(self, backend: str | Callable = "inductor") -> None:
        """Decode by a compiled step of static shapes (static.py) from now on, where rows share
        their prompt.
        """
        self._step = CompiledStep(backend)

    def record(self, record: Record, tell: Tell) -> None:
        """Decode by recorded steps of static shapes (recorded.py) from now on, where rows share
        their prompt.
        """
        self._step = RecordedStep(record, tell)

    def beside(self, before_pass: Callable[[], None]) -> Self:
        """The same network in another state, as a model with prompts and steps of its own. It
        shares weights, tokenizer and counts of work. before_pass: puts the network into that state.
        """
        other = copy(self)
        other._root, other._prompts, other.before_pass = None, Prompts(), before_pass
        if isinstance(self._step, RecordedStep):
            other._step = self._step.anew()
        return other

    def run_step(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of static.py, counted. Raises LmpplError where the network cannot be
        compiled.
        """
        assert self._step is not None
        self.cost.begin_pass()
        self.root.before_pass()
        return self._step(self.model, *arguments)

    def run(self, **arguments: Any) -> Any:
        """One pass of the network, counted."""
        self.cost.begin_pass()
        self.root.before_pass()
        return self.model(**arguments)

    def end_also(self, token: int) -> bool:
        if token not in self.ends:
            self.ends = (*self.ends, token)
        return True

    # --- tokens ----------------------------------------------------------------------------------

    def encode_template(self, text: str, *, opening: bool) -> Tokens:
        return self._known(self._spelling.encode_template(text, opening=opening))

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        write = self._spelling.encode_opening if opening else self._spelling.encode
        return self._known(write(text, markers=markers))

    def _known(self, tokens: Tokens) -> Tokens:
        """Tokens that the network has rows for. Raises LmpplError where it has not."""
        require_known(tokens, self.vocabulary_size, self.name, self.tokenizer)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return self._spelling.decode(tokens)

    def begin(self, tokens: Tokens) -> Tokens:
        if self._beginning is not None and tokens[:1] != (self._beginning,):
            return (self._beginning, *tokens)
        return tokens or (self._empty,)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Text of every token by itself; bytes that are no whole character are written <0xE2>."""
        return [self._spelling.piece(token) for token in tokens]

    @property
    def token_bytes(self) -> tuple[bytes, ...] | None:
        """Bytes of each of the V tokens; None where a token's text depends on its neighbours."""
        found = self._spelling.token_bytes
        return None if found is None else found[: self.vocabulary_size]

    # --- scoring ---------------------------------------------------------------------------------

    def score(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[NDArray[np.float64]]:
        return self._read(Rows(prompt, continuations, starts), self._scores)

    def score_all(
        self, asked: Sequence[tuple[Tokens, Sequence[Row]]]
    ) -> list[list[NDArray[np.float64]]]:
        return self._read_all([_rows(prompt, rows) for prompt, rows in asked], self._scores)

    def score_all_by(
        self, models: Sequence[Self], asked: Sequence[tuple[Tokens, Sequence[Row]]]
    ) -> list[list[list[NDArray[np.float64]]]]:
        def scores(
            logits: torch.Tensor, rows: Sequence[tuple[int, Tokens]]
        ) -> list[Sequence[NDArray[np.float64]]]:
            return [*zip(*(model._scores(logits, rows) for model in models), strict=True)]

        found = self._read_all([_rows(prompt, rows) for prompt, rows in asked], scores)
        by_model = []
        for i in range(len(models)):
            by_model.append([_of_law(i, rows) for rows in found])
        return by_model

    def score_prefixes(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        starts: Sequence[int],
        closing: int | None = None,
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        closer = self.end if closing is None else closing

        def scores(
            logits: torch.Tensor, rows: Sequence[tuple[int, Tokens]]
        ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
            ends = [(first, (closer,) * (len(tokens) + 1)) for first, tokens in rows]
            found = picked_rows(logits, [*rows, *ends], self.ends, self.local_law)
            return [*zip(found[: len(rows)], found[len(rows) :], strict=True)]

        return self._read(Rows(prompt, continuations, starts), scores, whole=True)

    def laws(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[torch.Tensor]:
        def laws(logits: torch.Tensor, rows: Sequence[tuple[int, Tokens]]) -> list[torch.Tensor]:
            law = self.log_law(logits)
            return [law[first : first + len(tokens)] for first, tokens in rows]

        return self._read(Rows(prompt, continuations, starts), laws)

    def _scores(
        self, logits: torch.Tensor, rows: Sequence[tuple[int, Tokens]]
    ) -> list[NDArray[np.float64]]:
        return picked_rows(logits, rows, self.ends, self.local_law)

    def _read(self, rows: Rows, read: Read[T], whole: bool = False) -> list[T]:
        return self._read_all([rows], read, whole)[0]

    @torch.inference_mode()
    def _read_all(self, asked: Sequence[Rows], read: Read[T], whole: bool = False) -> list[list[T]]:
        """Per row, what `read` makes of its logits: see `read_rows`."""
        ready: dict[int, Prompt] = {}
        for e, rows in enumerate(asked):
            if rows.tokens:
                length = len(rows.prompt) + max(map(len, rows.tokens))
                require_window(self.name, length, self.window)
                ready[e] = self.prompt(rows.prompt)
        return read_rows(self, asked, ready, read, whole)

    @property
    def most_logits(self) -> int:
        """Of one pass."""
        return MOST_LOGITS * (ON_GPU if self.device.type == "cuda" else 1)

    @torch.inference_mode()
    def score_trees(
        self, prompt: Tokens, groups: Sequence[Sequence[Row]]
    ) -> list[NDArray[np.float64]]:
        if not groups or (ready := self.prompt(prompt)).shared is None:
            return score_one_by_one(self, prompt, groups)
        return score_trees(self, ready, groups)

    # --- streams ---------------------------------------------------------------------------------

    @torch.inference_mode()
    def stream(
        self, prompt: Tokens, suffixes: Sequence[Tokens]
    ) -> HuggingFaceStream | RaggedStream | StaticStream:
        require_window(self.name, len(prompt) + max(map(len, suffixes), default=0), self.window)
        ready = self.prompt(prompt)
        return (
            StaticStream(self, ready, suffixes)
            if self._is_static(ready)
            else stream_of(self, ready, suffixes)
        )

    def _is_static(self, ready: Prompt) -> bool:
        works = self._step is not None and not (
            isinstance(self._step, RecordedStep) and not self._step.works
        )
        return works and ready.shared is not None and alike(ready.cache)

    @torch.inference_mode()
    def resume(
        self, prompt: Tokens, pasts: Sequence[Past], lengths: Sequence[int]
    ) -> HuggingFaceStream | StaticStream:
        rows = [past.tokens[:length] for past, length in zip(pasts, lengths, strict=True)]
        ready = self.prompt(prompt)
        kind = StaticStream if self._is_static(ready) else HuggingFaceStream
        return kind(self, ready, rows, [past.block for past in pasts])

    def push(self, streams: Sequence[Any], tokens: Sequence[NDArray[np.int64]]) -> None:
        if len(streams) > 1 and all(
            isinstance(stream, HuggingFaceStream) and stream.joins for stream in streams
        ):
            HuggingFaceStream.push_all(streams, tokens)
            return
        for stream, pushed in zip(streams, tokens, strict=True):
            stream.push(pushed)

    def log_law(self, logits: torch.Tensor) -> torch.Tensor:
        """Log probabilities of logits (…, V), in float32, with all end tokens as one."""
        return log_law(logits, self.ends, self.local_law)

    def prompt(self, tokens: Tokens) -> Prompt:
        """The prompt's cache and next law, run once and kept while it is among the latest."""
        if tokens in self._prompts:
            return self._prompts.latest(tokens)
        require_window(self.name, len(tokens), self.window)
        stem = self.stem(tokens)
        return self.keep_prompt(
            tokens, run_prompt(self, tokens, self.prompt(stem) if stem else None)
        )

    def expect(self, stem: Tokens) -> None:
        if len(stem) >= SHORTEST_STEM:
            self._stems.add(stem)

    def stem(self, tokens: Tokens) -> Tokens:
        """The longest stem that was told of and that a prompt goes on from; of no tokens where
        there is none.

        It depends on what was told alone, not on what has been run, and so do the prompt's numbers.
        """
        found = (
            stem for stem in self._stems if len(stem) < len(tokens) and tokens[: len(stem)] == stem
        )
        return max(found, key=len, default=())

    @torch.inference_mode()
    def prepare(self, prompts: Sequence[Tokens]) -> None:
        fresh = [tokens for tokens in prompts if tokens not in self._prompts]
        require_window(self.name, max(map(len, fresh), default=0), self.window)
        for stem in [tokens for tokens in fresh if tokens in self._stems]:
            self.prompt(stem)  # alone: its numbers hang on nothing else that is asked for
        for stem, group in self.by_stem(fresh).items():
            behind = self.prompt(stem) if stem else None
            own = [tokens for tokens in group if tokens not in self._prompts]
            made = run_prompts(self, own, behind) if own else []
            for tokens, ready in zip(own, made, strict=True):
                self.keep_prompt(tokens, ready)

    def by_stem(self, prompts: Sequence[Tokens]) -> dict[Tokens, list[Tokens]]:
        """Different prompts by the stem that they go on from."""
        groups: dict[Tokens, list[Tokens]] = {}
        for tokens in dict.fromkeys(prompts):
            groups.setdefault(self.stem(tokens), []).append(tokens)
        return groups

    def keep_prompt(self, tokens: Tokens, prompt: Prompt) -> Prompt:
        """Use this where the prompt is asked for, while it is among the latest."""
        self._prompts.keep(tokens, prompt)
        return prompt

    def forget_prompts(self) -> None:
        """Run prompts anew: the network's weights have changed."""
        self._prompts.clear()

    def forget_all_but_stems(self) -> None:
        self._prompts.keep_only(self._stems)

    sample = sample_by_laws

    # --- learning --------------------------------------------------------------------------------

    def add_adapter(
        self, *, rank: int, alpha: int, targets: str, seed: int
    ) -> adapter.Adapter[Self]:
        return adapter.add(self, rank=rank, alpha=alpha, targets=targets, seed=seed)

    def load_adapter(self, folder: Path) -> adapter.Adapter[Self]:
        return adapter.load(self, folder)

    def open_prompts(self, prompts: Sequence[Tokens]) -> OpenPrompts:
        return open_prompts(self, prompts)

    def num_open_tokens(self, prompts: Iterable[Tokens]) -> int:
        return num_own_tokens(self, prompts)


def _rows(prompt: Tokens, rows: Sequence[Row]) -> Rows:
    starts = [start for _, start in rows]
    return Rows(prompt, [tokens for tokens, _ in rows], starts)


def _of_law(i: int, rows: Sequence[Sequence[T]]) -> list[T]:
    """Of what each row has for several laws, that for one."""
    return [row[i] for row in rows]
