"""Rows of unequal length under a model whose layers see a window, carry a state along, or count
columns as places.

Padding would take places of the window. So rows are padded and run together only while all columns
fit into it; from then on, or from the first token on, those of equal length run together, which
need no padding. Knows streams and what their caches hold, no tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lmppl.lm.protocol import Past, Tokens
from lmppl.lm.transformers.network import Network
from lmppl.lm.transformers.prompts import Prompt
from lmppl.lm.transformers.stream import HuggingFaceStream

Part = tuple[NDArray[np.int64], HuggingFaceStream]  # the places of some rows, and the rows


def stream_of(
    owner: Network, ready: Prompt, suffixes: Sequence[Tokens]
) -> HuggingFaceStream | RaggedStream:
    """Rows after a prompt, each followed by its own suffix."""
    equal = len(set(map(len, suffixes))) <= 1
    return (HuggingFaceStream if equal or math.isinf(room(owner, ready)) else RaggedStream)(
        owner, ready, suffixes
    )


def room(owner: Network, ready: Prompt) -> float:
    """How many columns there may be where some of them are padding."""
    return window(ready.cache) if owner.pads else 0


def window(cache: DynamicCache) -> float:
    """How many columns all layers see whole; 0 where one holds something else than keys and
    values.
    """
    return min((_window(layer) for layer in cache.layers), default=math.inf)


def _window(layer: object) -> float:
    if isinstance(layer, DynamicSlidingWindowLayer):
        return layer.sliding_window
    return math.inf if type(layer) is DynamicLayer else 0


class RaggedStream:
    """Implements lm.protocol.Stream."""

    def __init__(self, owner: Network, ready: Prompt, suffixes: Sequence[Tokens]) -> None:
        self._owner, self._ready = owner, ready
        self._columns = ready.length + max(map(len, suffixes))
        self._room = room(owner, ready)
        self._padded = self._columns <= self._room
        whole = (
            [(np.arange(len(suffixes)), HuggingFaceStream(owner, ready, suffixes))]
            if self._padded
            else []
        )
        self._parts: list[Part] = whole or self._apart(suffixes)

    def _apart(self, rows: Sequence[Tokens]) -> list[Part]:
        """Rows of equal length together, run from the prompt on."""
        lengths = np.array([len(row) for row in rows])
        places = [np.flatnonzero(lengths == length) for length in np.unique(lengths)]
        parts = []
        for some in places:
            own = [rows[int(i)] for i in some]
            parts.append((some, HuggingFaceStream(self._owner, self._ready, own)))
        return parts

    @torch.inference_mode()
    def log_probs(self) -> torch.Tensor:
        order = np.argsort(np.concatenate([places for places, _ in self._parts]))
        laws = torch.cat([stream.log_probs() for _, stream in self._parts])
        return laws[torch.as_tensor(order, device=laws.device)]

    @torch.inference_mode()
    def push(self, tokens: NDArray[np.int64]) -> None:
        self._columns += 1
        if self._padded and self._columns > self._room:
            ((_, stream),) = self._parts
            self._padded, self._parts = False, self._apart(stream.rows)
        for places, stream in self._parts:
            stream.push(tokens[places])

    def keep(self, rows: NDArray[np.int64]) -> None:
        kept: list[Part] = []
        for places, stream in self._parts:
            mine = np.flatnonzero(np.isin(rows, places))
            if len(mine):
                stream.keep(np.searchsorted(places, rows[mine]))
                kept.append((mine, stream))
        self._parts = kept

    @property
    def joins(self) -> bool:
        """Rows of windows or states are never put together."""
        return False

    def take(self, rows: Sequence[int]) -> list[Past]:
        raise AssertionError("asked of streams that join only")

    def join(self, other: RaggedStream) -> None:
        raise AssertionError("asked of streams that join only")
