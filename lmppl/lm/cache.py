"""Key-value caches that share one prompt: copies of it for B rows that grow in place.

Knows the layer classes of transformers and nothing of tokens. A layer of a kind that cannot be preallocated
(sliding windows, recurrent states) is copied and grows in its own way.
"""

from __future__ import annotations

import copy

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SLACK = 32  # positions allocated beyond what is asked for


class GrowingLayer(DynamicLayer):
    """Keys and values (B, heads, length, size) in buffers with room to grow: a step writes one column."""

    def __init__(self, prompt: DynamicLayer, num_rows: int, room: int) -> None:
        super().__init__()
        assert prompt.keys is not None
        assert prompt.values is not None
        self.dtype, self.device, self.is_initialized = prompt.dtype, prompt.device, True
        self._length = prompt.get_seq_length()
        self._key_buffer = self._allocate(prompt.keys, num_rows, room)
        self._value_buffer = self._allocate(prompt.values, num_rows, room)
        self._show()

    @staticmethod
    def _allocate(filled: torch.Tensor, num_rows: int, room: int) -> torch.Tensor:
        _, heads, length, size = filled.shape
        buffer = filled.new_empty(num_rows, heads, length + room, size)
        buffer[:, :, :length] = filled
        return buffer

    def _show(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self._key_buffer[:, :, : self._length], self._value_buffer[:, :, : self._length]
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
            self._key_buffer = self._allocate(keys, len(keys), room)
            self._value_buffer = self._allocate(values, len(values), room)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self._length = end
        return self._show()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._key_buffer = self._key_buffer[indices]
        self._value_buffer = self._value_buffer[indices]
        self._show()


def fork(prompt: DynamicCache, num_rows: int, room: int) -> DynamicCache:
    """A cache of num_rows rows that all begin with the prompt (batch 1), which is left as it is.

    room: positions that are likely to be added.
    """
    forked = copy.copy(prompt)
    forked.layers = [_fork_layer(layer, num_rows, room) for layer in prompt.layers]
    return forked


def _fork_layer(layer, num_rows: int, room: int):
    if type(layer) is DynamicLayer:
        return GrowingLayer(layer, num_rows, room)
    duplicate = copy.deepcopy(layer)
    duplicate.batch_repeat_interleave(num_rows)
    return duplicate
