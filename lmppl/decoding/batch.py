"""Where the rows of a rollout begin: streams of all models of a prior, and masks, fed with what is
there already.

Knows token ids, streams and masks; no programs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding.masks import MaskRows, Masks
from lmppl.lm import LanguageModel, Past, Stream, Tokens, is_decoder

# drop finished rows from the batch once fewer than this share are still growing
COMPACT_BELOW = 0.75


Pasts = tuple[Past, ...]  # of one row, a model of the prior each


@dataclass(frozen=True)
class Beginning:
    """Under one model: what all texts follow, and what each of B rows has between that and its
    text.
    """

    model: LanguageModel
    prompt: Tokens
    tails: Sequence[Tokens]  # (B,)


@dataclass
class Batch:
    """B rows in step. Finished ones stay until enough can be dropped at once."""

    models: Sequence[LanguageModel]
    streams: Sequence[Stream]  # of each model
    masks: MaskRows | None
    rows: NDArray[np.int64]  # (B,) their numbers in the rollout

    def compact(self, growing: NDArray[np.bool_]) -> bool:
        """Drop finished rows where that pays, and say whether any row is left to grow. growing: of
        the rollout's.
        """
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

    @staticmethod
    def push(pushed: Sequence[Pushed]) -> None:
        """One token more in every row of some batches; models that share weights are run once."""
        streams: dict[int, list[Stream]] = {}
        tokens: dict[int, list[NDArray[np.int64]]] = {}
        models = {}
        for batch, new, _ in pushed:
            for model, stream in zip(batch.models, batch.streams, strict=True):
                key = id(model.root)
                models[key] = model
                streams.setdefault(key, []).append(stream)
                tokens.setdefault(key, []).append(new)
        for key, model in models.items():
            model.push(streams[key], tokens[key])
        for batch, new, drawn in pushed:
            if batch.masks is not None:
                batch.masks.push(new, drawn)

    @property
    def joins(self) -> bool:
        """Whether other rows can join these."""
        return all(stream.joins for stream in self.streams)

    def take(self, places: Sequence[int]) -> list[Pasts]:
        """What has been run of the rows in these places."""
        return list(zip(*(stream.take(places) for stream in self.streams), strict=True))

    def join(self, other: Batch) -> None:
        """Go on together. The laws are not known before the next push."""
        self.rows = np.concatenate([self.rows, other.rows])
        for mine, theirs in zip(self.streams, other.streams, strict=True):
            mine.join(theirs)
        if self.masks is not None and other.masks is not None:
            self.masks.join(other.masks)


# a batch, a token for each of its rows, and where that is a new one: others the masks have seen
# (B,)
Pushed = tuple[Batch, NDArray[np.int64], NDArray[np.bool_]]


@dataclass(frozen=True)
class Beginnings:
    """Of N rows, under all models of a prior."""

    terms: Sequence[Beginning]
    masks: Masks | None
    pasts: Sequence[
        Pasts | None
    ] = ()  # (N,) what has been run of each before, right or wrong; or of none

    def batch(self, rows: NDArray[np.int64], kept: Sequence[Tokens]) -> Batch:
        """Some rows, each fed with the text so far."""
        own = [self._own(i, tokens) for i, tokens in zip(rows, kept, strict=True)]
        streams = []
        for t, term in enumerate(self.terms):
            streams.append(term.model.stream(term.prompt, [row[t] for row in own]))
        return Batch(self._models, streams, self._begun(kept), rows)

    def resumed(
        self, rows: NDArray[np.int64], kept: Sequence[Tokens]
    ) -> tuple[Batch, NDArray[np.int64]]:
        """Some rows that `resumable` names, and the last token of each, which is still to be
        pushed. (B,)
        """
        own = [self._own(i, tokens) for i, tokens in zip(rows, kept, strict=True)]
        pasts = [self.pasts[i] or () for i in rows]
        streams = []
        for t, term in enumerate(self.terms):
            lengths = [len(row[t]) - 1 for row in own]
            streams.append(term.model.resume(term.prompt, [row[t] for row in pasts], lengths))
        last = np.array([row[0][-1] for row in own], dtype=np.int64)
        return Batch(self._models, streams, self._begun(kept), rows), last

    def resumable(self, rows: NDArray[np.int64], kept: Sequence[Tokens]) -> NDArray[np.bool_]:
        """(B,) rows of which all but one last token, the same under all models, has been run
        before.
        """
        return np.array(
            [self._resumes(i, self._own(i, tokens)) for i, tokens in zip(rows, kept, strict=True)],
            dtype=bool,
        )

    def _resumes(self, row: int, own: Sequence[Tokens]) -> bool:
        pasts = self.pasts[row] if self.pasts else None
        if pasts is None or not all(own) or len({tokens[-1] for tokens in own}) > 1:
            return False
        return all(
            past.tokens[: len(tokens) - 1] == tokens[:-1]
            for past, tokens in zip(pasts, own, strict=True)
        )

    def _own(self, row: int, kept: Tokens) -> list[Tokens]:
        """What a row has after the prompt, under each model."""
        return [term.tails[row] + kept for term in self.terms]

    @property
    def draws_itself(self) -> bool:
        """Whether the model has to draw whole texts: it tells no laws."""
        return not all(is_decoder(term.model) for term in self.terms)

    @property
    def _models(self) -> list[LanguageModel]:
        return [term.model for term in self.terms]

    def _begun(self, kept: Sequence[Tokens]) -> MaskRows | None:
        return self.masks.start(kept) if self.masks else None

    def whole(self, kept: Sequence[Tokens]) -> Batch:
        """All rows, each fed with the text so far. (N,)"""
        return self.batch(np.arange(len(kept)), kept)
