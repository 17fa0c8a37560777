"""Networks whose caches cannot be begun by a prompt, copied to many rows and gone on from: every
pass is whole.

What a network computes of a sequence by itself is its law by definition, so this is right for all
that computes one; a token costs a pass over all tokens before it. Rows run together have one
length: nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.lm.base import require_window
from lmppl.lm.protocol import Past, Row, Rows, Tokens
from lmppl.lm.transformers.huggingface import HuggingFaceModel
from lmppl.lm.transformers.scored_rows import Read, read_guests
from lmppl.lm.transformers.whole import run_whole
from lmppl.lm.tree import carriers, score_one_by_one

T = TypeVar("T")


class UncachedModel(HuggingFaceModel):
    """Implements lm.protocol.LanguageModel by whole passes."""

    caches = False

    @torch.inference_mode()
    def _read_all(self, asked: Sequence[Rows], read: Read[T], whole: bool = False) -> list[list[T]]:
        return [self._read_behind(rows, read, whole) if rows.tokens else [] for rows in asked]

    def _read_behind(self, rows: Rows, read: Read[T], whole: bool) -> list[T]:
        require_window(self.name, len(rows.prompt) + max(map(len, rows.tokens)), self.window)
        some = carriers([row if whole else row[:-1] for row in rows.tokens], rows.starts)
        found: dict[int, T] = {}
        for c, logits in run_whole(self, [(*rows.prompt, *carrier.inputs) for carrier in some]):
            own = logits[len(rows.prompt) - 1 + some[c].start :]
            found |= read_guests(rows, read, some[c], own)
        self.cost.tokens_scored += sum(len(rows.prompt) + len(carrier.inputs) for carrier in some)
        return [found[i] for i in range(len(rows.tokens))]

    def score_trees(
        self, prompt: Tokens, groups: Sequence[Sequence[Row]]
    ) -> list[NDArray[np.float64]]:
        return score_one_by_one(self, prompt, groups)

    def prepare(self, prompts: Sequence[Tokens]) -> None:
        """Nothing can be run before it is asked for."""

    def stream(self, prompt: Tokens, suffixes: Sequence[Tokens]) -> UncachedStream:  # type: ignore[override]
        require_window(self.name, len(prompt) + max(map(len, suffixes), default=0), self.window)
        return UncachedStream(self, prompt, suffixes)


class UncachedStream:
    """Implements lm.protocol.Stream."""

    def __init__(self, owner: UncachedModel, prompt: Tokens, suffixes: Sequence[Tokens]) -> None:
        self._owner, self._prompt = owner, prompt
        self.rows = [tuple(suffix) for suffix in suffixes]  # what each has after the prompt
        self._laws: dict[Tokens, torch.Tensor] = {}  # (V,) logits after the rows that have been run

    @torch.inference_mode()
    def log_probs(self) -> torch.Tensor:
        fresh = [row for row in dict.fromkeys(self.rows) if row not in self._laws]
        sequences = [(*self._prompt, *row) for row in fresh]
        for i, logits in run_whole(self._owner, sequences):
            self._laws[fresh[i]] = logits[-1].float()
        self._owner.cost.tokens_scored += sum(map(len, sequences))
        empty = torch.empty(0, self._owner.vocabulary_size, device=self._owner.device)
        return self._owner.log_law(
            torch.stack([self._laws[row] for row in self.rows]) if self.rows else empty
        )

    def push(self, tokens: NDArray[np.int64]) -> None:
        self.rows = [(*row, int(token)) for row, token in zip(self.rows, tokens, strict=True)]
        self._laws = {}
        self._owner.cost.tokens_decoded += len(tokens)

    def keep(self, rows: NDArray[np.int64]) -> None:
        self.rows = [self.rows[row] for row in rows]

    @property
    def joins(self) -> bool:
        """There is nothing to take out."""
        return False

    def take(self, rows: Sequence[int]) -> list[Past]:
        raise AssertionError("asked of streams that join only")

    def join(self, other: UncachedStream) -> None:
        raise AssertionError("asked of streams that join only")
