"""A causal language model of transformers behind the protocol: scoring and streams over token ids.

Log probabilities are of the raw logits, in float32: no temperature, no truncation, no penalty.
Nothing here knows programs, files or devices beyond where its weights lie; `load.py` finds and
loads models.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lmppl.lm.base import NOTHING, require_window
from lmppl.lm.capabilities import Capabilities, Capability
from lmppl.lm.protocol import Cost, Past, Row, Rows, Tokens, nothing
from lmppl.lm.transformers import adapter
from lmppl.lm.transformers.attention import install
from lmppl.lm.transformers.batches import Placed, batches, halving
from lmppl.lm.transformers.cache import EmptyCache, alike
from lmppl.lm.transformers.limits import longest, require_known, require_rows
from lmppl.lm.transformers.prompts import (
    Prompt,
    Prompts,
    forked,
    law_before,
    run_prompt,
    run_prompts,
    side_by_side,
)
from lmppl.lm.transformers.ragged import RaggedStream, stream_of
from lmppl.lm.transformers.recorded import Record, RecordedStep, Tell
from lmppl.lm.transformers.special_tokens import beginning, document_start, end_tokens
from lmppl.lm.transformers.spelling import Spelling
from lmppl.lm.transformers.static import CompiledStep, StaticStream, Step
from lmppl.lm.transformers.stream import HuggingFaceStream, columns
from lmppl.lm.transformers.training import OpenPrompts, num_own_tokens, open_prompts
from lmppl.lm.tree import ROOT, Tree, ancestry, carriers, grow, score_one_by_one

SHORTEST_STEM = 16  # tokens that prompts begin with: fewer are not worth a pass of their own
# logits of one scoring pass on a CPU: 128 MiB; larger passes cost a token as much
MOST_LOGITS = 32 * 2**20
ON_GPU = 8  # times as many
Integers = NDArray[np.int64]
T = TypeVar("T")


LIGHT = 10_000_000  # weights that a processor goes over in no time


class HuggingFaceModel:
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
        self.name, self.identifier, self.revision, self.fingerprint = (
            name,
            identifier,
            revision,
            fingerprint,
        )
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
        other._prompts, other.before_pass = Prompts(), before_pass
        if isinstance(self._step, RecordedStep):
            other._step = self._step.anew()
        return other

    def run_step(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of static.py, counted. Raises LmpplError where the network cannot be
        compiled.
        """
        assert self._step is not None
        self.cost.begin_pass()
        self.before_pass()
        return self._step(self.model, *arguments)

    def run(self, **arguments: Any) -> Any:
        """One pass of the network, counted."""
        self.cost.begin_pass()
        self.before_pass()
        return self.model(**arguments)

    # --- tokens ----------------------------------------------------------------------------------

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        write = self._spelling.encode_opening if opening else self._spelling.encode
        tokens = write(text, markers=markers)
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
        some = [
            Rows(prompt, [row for row, _ in rows], [start for _, start in rows])
            for prompt, rows in asked
        ]
        return self._read_all(some, self._scores)

    def score_prefixes(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        starts: Sequence[int],
        closing: int | None = None,
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        closer = self.end if closing is None else closing

        def scores(
            logits: torch.Tensor, tokens: Tokens
        ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            found = self._pick(
                logits,
                [*range(len(tokens)), *range(len(logits))],
                [*tokens, *[closer] * len(logits)],
            )
            return found[: len(tokens)], found[len(tokens) :]

        return self._read(Rows(prompt, continuations, starts), scores, whole=True)

    def laws(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[torch.Tensor]:
        return self._read(
            Rows(prompt, continuations, starts), lambda logits, _: self.log_law(logits)
        )

    def _scores(self, logits: torch.Tensor, tokens: Tokens) -> NDArray[np.float64]:
        return self._pick(logits, range(len(tokens)), tokens)

    def _read(
        self, rows: Rows, read: Callable[[torch.Tensor, Tokens], T], whole: bool = False
    ) -> list[T]:
        return self._read_all([rows], read, whole)[0]

    @torch.inference_mode()
    def _read_all(
        self, asked: Sequence[Rows], read: Callable[[torch.Tensor, Tokens], T], whole: bool = False
    ) -> list[list[T]]:
        """Per row, what `read` makes of the logits (T, V) that its T tokens from its start on come
        from, and of these.

        whole: the last token is run as well, and there are logits after it, (T + 1, V).
        """
        results: dict[tuple[int, int], T] = {}
        ready, work = {}, []
        for e, rows in enumerate(asked):
            if not rows.tokens:
                continue
            require_window(self.name, len(rows.prompt) + max(map(len, rows.tokens)), self.window)
            ready[e] = self.prompt(rows.prompt)
            inputs = [row if whole else row[:-1] for row in rows.tokens]
            placed = [Placed(e, carrier) for carrier in carriers(inputs, rows.starts)]
            work += [one for one in placed if one.carrier.inputs]
            for i in (i for one in placed if not one.carrier.inputs for i in one.carrier.guests):
                tokens = rows.tokens[i][rows.starts[i] :]  # the prompt's own law tells of them
                results[e, i] = read(ready[e].logits[None][: len(tokens) + whole], tokens)

        def run(some: Sequence[Placed]) -> list[None]:
            # first input whose law is needed
            first = max(min(one.carrier.start for one in some), 1) - 1
            for one, logits in zip(some, self._run_padded(some, ready, first), strict=True):
                rows = asked[one.entry]
                for i in one.carrier.guests:
                    tokens = rows.tokens[i][rows.starts[i] :]
                    law = law_before(
                        ready[one.entry], logits, first, rows.starts[i], len(tokens) + whole
                    )
                    results[one.entry, i] = read(law, tokens)
            return [None] * len(some)

        shared = [one for one in work if ready[one.entry].shared is not None]
        apart = [[one for one in work if one.entry == e] for e in ready if ready[e].shared is None]
        for group in (shared, *apart):
            for batch in batches(group, self.most_logits // self.vocabulary_size):
                halving(run, batch)
        return [[results[e, i] for i in range(len(rows.tokens))] for e, rows in enumerate(asked)]

    @property
    def most_logits(self) -> int:
        """Of one pass."""
        return MOST_LOGITS * (ON_GPU if self.device.type == "cuda" else 1)

    def _run_padded(
        self, some: Sequence[Placed], ready: Mapping[int, Prompt], first: int
    ) -> torch.Tensor:
        """(B, width - first, V) logits after inputs[first:]."""
        width = max(len(one.carrier.inputs) for one in some)
        sizes = Counter(one.entry for one in some)
        prompts = [ready[e] for e in sizes]
        if width <= first:
            return prompts[0].logits.new_empty(len(some), 0, self.vocabulary_size)
        behind = torch.tensor([ready[one.entry].length for one in some])
        output = self.run(
            input_ids=side_by_side([one.carrier.inputs for one in some], self.end).to(self.device),
            position_ids=(behind[:, None] + torch.arange(width)).to(self.device),
            use_cache=True,
            logits_to_keep=columns(first, width, self.device),
            **forked(prompts, list(sizes.values()), width),
        )
        self.cost.tokens_scored += sum(len(one.carrier.inputs) for one in some)
        return output.logits

    def _pick(
        self, law: torch.Tensor, places: Sequence[int] | Integers, tokens: Sequence[int] | Integers
    ) -> NDArray[np.float64]:
        """(R,) log probabilities of tokens, each under the law (N, V) at one place."""
        law = torch.log_softmax(law.float(), dim=-1)  # one kernel, where logsumexp is five
        place = torch.from_numpy(np.asarray(places, dtype=np.int64)).to(law.device)
        index = torch.from_numpy(np.asarray(tokens, dtype=np.int64)).to(law.device)
        scores = law[place, index]
        if len(self.ends) > 1:
            ends = torch.logsumexp(law[:, list(self.ends)], dim=-1)
            scores = torch.where(index == self.end, ends[place], scores)
            scores = scores.masked_fill(
                torch.isin(index, index.new_tensor(self.ends[1:])), -torch.inf
            )
        return scores.double().cpu().numpy()

    @torch.inference_mode()
    def score_trees(
        self, prompt: Tokens, groups: Sequence[Sequence[Row]]
    ) -> list[NDArray[np.float64]]:
        if not groups or (ready := self.prompt(prompt)).shared is None:
            return score_one_by_one(self, prompt, groups)
        totals = [np.zeros(len(group)) for group in groups]
        planted = [(totals[g], tree) for g, group in enumerate(groups) for tree in grow(group)]
        trees = [tree for _, tree in planted]
        for batch in self._tree_batches(trees, len(prompt)):
            scores = halving(
                lambda some: self._score_some_trees(ready, some), [trees[i] for i in batch]
            )
            for i, score in zip(batch, scores, strict=True):
                np.add.at(planted[i][0], trees[i].rows, score)
        return totals

    def _tree_batches(self, trees: Sequence[Tree], prompt_length: int) -> Iterator[list[int]]:
        """Trees of similar size together, as many as the logits have room for."""
        batch: list[int] = []
        for i in sorted(range(len(trees)), key=lambda i: len(trees[i])):
            require_window(
                self.name, prompt_length + max(trees[i].depths, default=-1) + 1, self.window
            )
            if batch and (len(batch) + 1) * len(trees[i]) * self.vocabulary_size > self.most_logits:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _score_some_trees(self, ready: Prompt, trees: Sequence[Tree]) -> list[NDArray[np.float64]]:
        """Per tree, log probabilities of its targets (R,). One pass, with logits where some tree
        needs them.
        """
        nodes = np.array([node for tree in trees for node in tree.nodes], dtype=np.int64)
        targets = np.array([token for tree in trees for token in tree.targets], dtype=np.int64)
        sizes = [len(tree.nodes) for tree in trees]
        owner = np.repeat(np.arange(len(trees)), sizes)
        at_root = nodes == ROOT
        scores = np.empty(len(nodes))
        scores[at_root] = self._pick(
            ready.logits[None], np.zeros(at_root.sum(), dtype=np.int64), targets[at_root]
        )
        kept, place = np.unique(nodes[~at_root], return_inverse=True)
        if len(kept):
            law = self._run_trees(ready, trees, kept).flatten(0, 1)
            scores[~at_root] = self._pick(
                law, owner[~at_root] * len(kept) + place, targets[~at_root]
            )
        return np.split(scores, np.cumsum(sizes)[:-1])

    def _run_trees(self, ready: Prompt, trees: Sequence[Tree], kept: Integers) -> torch.Tensor:
        """(B, len(kept), V) logits after these nodes of each tree; trees are padded on the
        right.
        """
        width = max(map(len, trees))
        positions = ready.length + side_by_side([tree.depths for tree in trees], 0)
        seen = torch.from_numpy(np.stack([ancestry(tree, width) for tree in trees]))
        output = self.run(
            input_ids=side_by_side([tree.tokens for tree in trees], self.end).to(self.device),
            past_key_values=ready.fork(len(trees), width),
            position_ids=positions.to(self.device),
            attention_mask=seen[:, None].to(self.device),
            use_cache=True,
            logits_to_keep=torch.as_tensor(kept, device=self.device),
            **ready.arguments,
        )
        self.cost.tokens_scored += sum(map(len, trees))
        return output.logits

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
        law = torch.log_softmax(logits.float(), dim=-1)
        if len(self.ends) > 1:
            ends = torch.logsumexp(law[..., list(self.ends)], dim=-1)
            law[..., list(self.ends)] = -torch.inf
            law[..., self.end] = ends
        return law

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
        for stem, group in self.by_stem(fresh).items():
            behind = self.prompt(stem) if stem else None
            own = [tokens for tokens in group if tokens not in self._prompts]
            for tokens, ready in zip(own, run_prompts(self, own, behind), strict=True):
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
