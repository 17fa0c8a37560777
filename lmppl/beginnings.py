"""Where the rows of a rollout begin: streams of all models of a prior, and masks, fed with what is there already.

Knows token ids, streams and masks; no programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmppl.lm.protocol import LanguageModel, Stream, Tokens
from lmppl.masks import MaskRows, Masks

COMPACT_BELOW = 0.75  # drop finished rows from the batch once fewer than this share are still growing


@dataclass(frozen=True)
class Beginning:
    """Under one model: what all texts follow, and what each of B rows has between that and its text."""

    model: LanguageModel
    prompt: Tokens
    tails: Sequence[Tokens]  # (B,)


@dataclass
class Batch:
    """B rows in step. Finished ones stay until enough can be dropped at once."""

    streams: Sequence[Stream]
    masks: MaskRows | None
    rows: NDArray[np.int64]  # (B,) their numbers in the rollout

    def compact(self, growing: NDArray[np.bool_]) -> bool:
        """Drop finished rows where that pays, and say whether any row is left to grow. growing: of the rollout's."""
        active = np.flatnonzero(growing[self.rows])
        if 0 < len(active) <= COMPACT_BELOW * len(self.rows):
            self._keep(active)
        return len(active) > 0

    def drop(self, growing: NDArray[np.bool_]) -> None:
        """Drop all finished rows."""
        active = np.flatnonzero(growing[self.rows])
        if len(active) < len(self.rows):
            self._keep(active)

    def _keep(self, rows: NDArray[np.int64]) -> None:
        self.rows = self.rows[rows]
        for stream in (*self.streams, *([self.masks] if self.masks else [])):
            stream.keep(rows)

    def push(self, tokens: NDArray[np.int64]) -> None:
        """One token more a row. (B,)"""
        for stream in (*self.streams, *([self.masks] if self.masks else [])):
            stream.push(tokens)

    @property
    def joins(self) -> bool:
        """Whether other rows can join these."""
        return all(stream.joins for stream in self.streams)

    def join(self, other: Batch) -> None:
        """Go on together. The laws are not known before the next push."""
        self.rows = np.concatenate([self.rows, other.rows])
        for mine, theirs in zip(self.streams, other.streams, strict=True):
            mine.join(theirs)
        if self.masks is not None and other.masks is not None:
            self.masks.join(other.masks)


@dataclass(frozen=True)
class Beginnings:
    """Of N rows, under all models of a prior."""

    terms: Sequence[Beginning]
    masks: Masks | None

    def batch(self, rows: NDArray[np.int64], kept: Sequence[Tokens]) -> Batch:
        """Some rows, each fed with the text so far."""
        streams = [
            term.model.stream(term.prompt, [term.tails[i] + tokens for i, tokens in zip(rows, kept, strict=True)])
            for term in self.terms
        ]
        return Batch(streams, self.masks.start(kept) if self.masks else None, rows)

    def whole(self, kept: Sequence[Tokens]) -> Batch:
        """All rows, each fed with the text so far. (N,)"""
        return self.batch(np.arange(len(kept)), kept)
