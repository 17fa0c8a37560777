"""Rows that grow token by token after a prompt that was run once, on key-value caches of their own
tokens.

Knows token ids and caches, and the model only as what runs a pass and reads a law.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.lm.protocol import Past, Tokens
from lmppl.lm.transformers.attention import Block
from lmppl.lm.transformers.cache import SLACK, GrowingLayer, alike, in_blocks, put, select, take
from lmppl.lm.transformers.network import Network
from lmppl.lm.transformers.prompts import Prompt


def columns(first: int, end: int, device: torch.device) -> torch.Tensor:
    """Which columns of a pass logits are asked for, named one by one.

    Asked for by number, transformers cuts a view with holes, and torch multiplies that by the
    vocabulary row by row: 4 to 50 times slower on a CPU.
    """
    return torch.arange(first, end, device=device)


class HuggingFaceStream:
    """Implements lm.protocol.Stream. Suffixes of unequal length are padded between the prompt and
    themselves.

    That is right while every layer sees all columns; else see ragged.py.
    """

    def __init__(
        self,
        owner: Network,
        ready: Prompt,
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
        """(B, width) which columns a row has filled, where the prompt is shared; None where that is
        all.
        """
        own = self._positions - self._ready.length
        real = torch.arange(width)[None] >= width - own[:, None]
        return None if bool(real.all()) else real.to(self._owner.device)

    def _feed_suffixes(self, suffixes: Sequence[Tokens], lengths: torch.Tensor, width: int) -> None:
        padded = torch.full((len(suffixes), width), self._owner.end, dtype=torch.long)
        for b, suffix in enumerate(suffixes):
            if suffix:
                padded[b, width - len(suffix) :] = torch.tensor(suffix, dtype=torch.long)
        real = torch.arange(width)[None] >= width - lengths[:, None]  # (B, width)
        positions = self._ready.length + (
            torch.arange(width)[None] - (width - lengths[:, None])
        ).clamp(min=0)
        if not bool(real.all()):
            before = torch.ones(len(suffixes), self._cache.get_seq_length(), dtype=torch.bool)
            self._mask = torch.cat([before, real], dim=1).to(self._owner.device)
        before = self._logits
        self._forward(padded, positions)
        self._owner.cost.tokens_scored += int(lengths.sum())
        empty = (lengths == 0).to(self._owner.device)
        self._logits = torch.where(empty[:, None], before, self._logits.float())

    def _forward(self, tokens: torch.Tensor, positions: torch.Tensor) -> None:
        output = self._owner.run(
            input_ids=tokens.to(self._owner.device),
            past_key_values=self._cache,
            position_ids=positions.to(self._owner.device),
            attention_mask=self._mask,
            use_cache=True,
            logits_to_keep=columns(tokens.shape[1] - 1, tokens.shape[1], self._owner.device),
            **self._ready.arguments,
        )
        self._logits = output.logits[:, -1]

    @property
    def logits(self) -> torch.Tensor:
        """(B, V) of the next token."""
        return self._logits

    @torch.inference_mode()
    def log_probs(self) -> torch.Tensor:
        return self._owner.log_law(self._logits)

    @torch.inference_mode()
    def push(self, tokens: NDArray[np.int64]) -> None:
        self._widen()
        self._forward(torch.as_tensor(tokens)[:, None], self._positions[:, None])
        self._pushed(tokens)

    def _widen(self) -> None:
        """Room for one column more in the mask."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._own), 1)], dim=1)

    def _pushed(self, tokens: NDArray[np.int64]) -> None:
        self._positions = self._positions + 1
        for own, token in zip(self._own, tokens.tolist(), strict=True):
            own.append(token)
        self._owner.cost.tokens_decoded += len(tokens)

    @staticmethod
    @torch.inference_mode()
    def push_all(streams: Sequence[HuggingFaceStream], tokens: Sequence[NDArray[np.int64]]) -> None:
        """One token more in every row of several streams of one model whose prompts are shared, by
        one pass.
        """
        blocks, owner = [], streams[0]._owner
        for stream in streams:
            stream._widen()
            assert stream._ready.shared is not None
            blocks.append(Block(len(stream._own), stream._ready.shared, stream._mask))
        sizes = [block.size for block in blocks]
        output = owner.run(
            input_ids=torch.as_tensor(np.concatenate(tokens))[:, None].to(owner.device),
            past_key_values=in_blocks([stream._cache for stream in streams], sizes),
            position_ids=torch.cat([stream._positions for stream in streams])[:, None].to(
                owner.device
            ),
            use_cache=True,
            shared_prompt=blocks,
        )
        for stream, logits, pushed in zip(
            streams, output.logits[:, -1].split(sizes), tokens, strict=True
        ):
            stream._logits = logits
            stream._pushed(pushed)

    @torch.inference_mode()
    def keep(self, rows: NDArray[np.int64]) -> None:
        index = torch.as_tensor(rows)
        on_device = index.to(self._owner.device)
        select(self._cache, on_device)
        self._positions = self._positions[index]
        self._own = [list(self._own[row]) for row in rows]
        self._logits = self._logits[on_device]
        if self._mask is not None:
            self._mask = self._mask[on_device]

    @property
    def rows(self) -> list[Tokens]:
        """What each row has after the prompt."""
        return [tuple(own) for own in self._own]

    @property
    def joins(self) -> bool:
        """Only caches of rows' own tokens can be put side by side."""
        return self._ready.shared is not None and alike(self._ready.cache)

    @torch.inference_mode()
    def take(self, rows: Sequence[int]) -> list[Past]:
        return [
            Past(tuple(self._own[row]), take(self._cache, row, len(self._own[row]))) for row in rows
        ]

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
