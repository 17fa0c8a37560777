"""Key-value caches of B rows that begin with one prompt, and grow in place.

Rows that share the prompt (see attention.py) hold their own tokens only; others begin with a copy
of it. Knows the layer classes of transformers and nothing of tokens. A layer of a kind that cannot
be preallocated (sliding windows, recurrent states) is copied and grows in its own way.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

SLACK = 32  # positions allocated beyond what is asked for


class EmptyCache:
    """The cache that a network begins with. Its config is read once: reading takes longer than a
    short prompt takes a small network.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        self._config = config

    @cached_property
    def _first(self) -> DynamicCache:
        return DynamicCache(config=self._config)

    def made(self) -> DynamicCache:
        """A new one."""
        if any(type(layer) is not DynamicLayer for layer in self._first.layers):
            return DynamicCache(config=self._config)  # such layers have arguments of their own
        cache = copy.copy(self._first)
        plain: list = [DynamicLayer() for _ in cache.layers]
        cache.layers = plain
        return cache


class GrowingLayer(DynamicLayer):
    """Keys and values (B, heads, length, size) in buffers with room to grow: a step writes one
    column.
    """

    def __init__(self, key_buffer: torch.Tensor, value_buffer: torch.Tensor, length: int) -> None:
        """Buffers whose first columns, so many, are filled."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = key_buffer.dtype, key_buffer.device, True
        self._length = length
        self._key_buffer, self._value_buffer = key_buffer, value_buffer
        self._show()

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = (
            self._key_buffer[:, :, : self._length],
            self._value_buffer[:, :, : self._length],
        )
        self.keys, self.values = keys, values
        return keys, values

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new columns and return all; the signature is the base class's."""
        start, end = self._length, self._length + key_states.shape[-2]
        if end > self._key_buffer.shape[-2]:
            keys, values = self._show()
            room = end - start + start // 2 + SLACK
            self._key_buffer = _allocate(keys, len(keys), room)
            self._value_buffer = _allocate(values, len(values), room)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self._length = end
        return self._show()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._key_buffer = self._key_buffer[indices]
        self._value_buffer = self._value_buffer[indices]
        self._show()

    def join(self, other: GrowingLayer, width: int) -> None:
        """Another layer's rows behind these, all as wide as this: columns are dropped or left open
        on the left.
        """
        (keys, values), (more_keys, more_values) = self._show(), other._show()
        self._key_buffer = _side_by_side(keys, more_keys, width)
        self._value_buffer = _side_by_side(values, more_values, width)
        self._length = width
        self._show()


class BlockLayer(DynamicLayer):
    """One layer of several caches, for a pass over the rows of all: what comes back is a list, one
    entry a cache.
    """

    def __init__(self, layers: Sequence[Any], sizes: Sequence[int]) -> None:
        """sizes: rows of each."""
        super().__init__()
        self._layers, self._sizes = layers, list(sizes)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> Any:
        """Write every cache's new columns; the signature is the base class's."""
        pieces = zip(
            self._layers,
            key_states.split(self._sizes),
            value_states.split(self._sizes),
            strict=True,
        )
        return tuple(
            zip(*(layer.update(keys, values) for layer, keys, values in pieces), strict=True)
        )


def in_blocks(caches: Sequence[DynamicCache], sizes: Sequence[int]) -> DynamicCache:
    """Caches of rows that share a prompt each, as one for a pass; they grow by it."""
    whole = copy.copy(caches[0])
    columns = zip(*(cache.layers for cache in caches), strict=True)  # by layer
    layers: list = [BlockLayer(own, sizes) for own in columns]
    whole.layers = layers
    return whole


def _allocate(filled: torch.Tensor, num_rows: int, room: int) -> torch.Tensor:
    """A buffer with room, begun with what every row begins with, at batch 1 or num_rows."""
    _, heads, length, size = filled.shape
    buffer = filled.new_empty(num_rows, heads, length + room, size)
    buffer[:, :, :length] = filled
    return buffer


def _side_by_side(first: torch.Tensor, second: torch.Tensor, width: int) -> torch.Tensor:
    """(B₁ + B₂, heads, width + room, size); open columns are zeros, as a mask hides them but not
    what is not finite.
    """
    count = len(first) + len(second)
    buffer = first.new_zeros(count, first.shape[1], width + SLACK, first.shape[3])
    for rows, part in ((buffer[: len(first)], first), (buffer[len(first) :], second)):
        filled = min(width, part.shape[2])
        rows[:, :, width - filled : width] = part[:, :, part.shape[2] - filled :]
    return buffer


def fork(prompt: DynamicCache, num_rows: int, room: int, *, shared: bool) -> DynamicCache:
    """A cache of num_rows rows after the prompt (batch 1), which is left as it is.

    room: positions that are likely to be added. shared: leave the prompt's own positions out.
    """
    forked = copy.copy(prompt)
    forked.layers = [_fork_layer(layer, num_rows, room, shared) for layer in prompt.layers]
    return forked


def _fork_layer(layer, num_rows: int, room: int, shared: bool):
    if type(layer) is DynamicLayer:
        assert layer.keys is not None
        assert layer.values is not None
        begun = 0 if shared else layer.get_seq_length()
        keys, values = layer.keys[:, :, :begun], layer.values[:, :, :begun]
        return GrowingLayer(
            _allocate(keys, num_rows, room), _allocate(values, num_rows, room), begun
        )
    duplicate = copy.deepcopy(layer)  # states are written in place
    duplicate.reorder_cache(torch.zeros(num_rows, dtype=torch.long))
    return duplicate


def select(cache: DynamicCache, rows: torch.Tensor) -> None:
    """Go on with these rows only, in this order, some of them perhaps more than once."""
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer):
            layer.batch_select_indices(rows)
        else:  # what transformers has for beams is the one way that layers of all kinds know
            layer.reorder_cache(rows)  # type: ignore[arg-type]


def alike(cache: DynamicCache) -> bool:
    """Whether keys and values of all layers have one shape, so that they can be held together."""
    return len({part.shape for part in parts(cache)}) == 1


def parts(cache: DynamicCache) -> list[torch.Tensor]:
    """Keys and values of every layer in turn."""
    layers = [layer for layer in cache.layers if isinstance(layer, DynamicLayer)]
    return [part for layer in layers for part in (layer.keys, layer.values) if part is not None]


def take(cache: DynamicCache, row: int, length: int) -> torch.Tensor:
    """The last columns of a row, copied. (2 layers, heads, length, size)"""
    return torch.stack([part[row, :, part.shape[2] - length :] for part in parts(cache)])


def put(
    prompt: DynamicCache, blocks: Sequence[torch.Tensor], lengths: Sequence[int], room: int
) -> DynamicCache:
    """A cache of rows that share the prompt, begun with the first columns, so many, of what `take`
    gave.
    """
    width = max(lengths)
    layers, heads, _, size = blocks[0].shape
    whole = blocks[0].new_zeros(layers, len(blocks), heads, width + room, size)
    for row, (block, length) in enumerate(zip(blocks, lengths, strict=True)):
        whole[:, row, :, width - length : width] = block[:, :, :length]
    begun = copy.copy(prompt)
    grown: list = [GrowingLayer(whole[i], whole[i + 1], width) for i in range(0, layers, 2)]
    begun.layers = grown
    return begun
