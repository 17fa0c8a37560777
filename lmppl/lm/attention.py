"""Attention of many rows to one prompt that they share, whose keys and values are kept once, at batch 1.

A row's cache holds its own tokens only. All rows' queries meet the prompt in one product a head, and each row
meets its own tokens by itself; the two are weighed by their normalisers, which is exact. The prompt reaches the
attention as an argument of the model's forward. While a prompt is run its keys and values are taken down as
the attention gets them: a model that hands it anything else than its cache, or asks for more than softmax
attention (windows, soft caps, sinks, biases), does not share. Knows tensors and nothing of tokens.

A pass may hold rows of several prompts, one block of them after another: each block attends by itself.

B rows, H query heads in G groups of R with one key head each, Q new tokens, P of the prompt, L own, D wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lmppl_shared_prompt"
UNSHARED = ("sliding_window", "softcap", "s_aux", "position_bias")  # arguments that change what attention is


class SharedPrompt:
    """Keys and values of a prompt by layer, each (1, G, P, D), as attention was given them."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.complete = False
        self._usual = True  # whether every layer asked for what `attend` can do

    @classmethod
    def of(cls, cache: DynamicCache) -> SharedPrompt:
        """That of a cache that holds keys and values as attention was given them, and nothing else."""
        shared = cls()
        shared.layers = {i: (layer.keys, layer.values) for i, layer in enumerate(cache.layers)}  # type: ignore[misc, union-attr]
        shared.complete = True
        return shared

    def take_down(self, layer: int, keys: torch.Tensor, values: torch.Tensor, options: dict[str, Any]) -> None:
        asks_more = any(options.get(name) is not None for name in UNSHARED) or options.get("is_causal") is False
        self._usual = self._usual and not asks_more and layer not in self.layers
        self.layers[layer] = keys, values

    def finish(self, cache: DynamicCache) -> bool:
        """Whether rows can share the prompt that filled the cache."""
        self.complete = self._usual and len(self.layers) == len(cache.layers)
        for i, (keys, values) in self.layers.items():
            layer = cache.layers[i]
            # a layer of another class holds more than keys and values
            plain = type(layer) is DynamicLayer and layer.keys is keys and layer.values is values
            self.complete = self.complete and plain
        return self.complete


@dataclass(frozen=True)
class Block:
    """Rows of a pass that share a prompt."""

    size: int
    prompt: SharedPrompt
    mask: torch.Tensor | None  # (size, L) which own columns a row's one new token sees; None: all until itself


def install(model: PreTrainedModel) -> None:
    """Let the model attend through here where its kind allows that. It computes what it did before."""
    if model._supports_attention_backend and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)


def shares(model: PreTrainedModel) -> bool:
    """Whether the model attends through here, and takes a `shared_prompt`."""
    return model.config._attn_implementation == NAME


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    shared_prompt: SharedPrompt | Sequence[Block] | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: query (B, H, Q, D), own keys and values (B, G, L, D) -> (B, Q, H, D).

    Where there are blocks, keys and values are those of each block in turn (cache.BlockLayer).
    """
    if isinstance(shared_prompt, Sequence):
        queries = query.split([block.size for block in shared_prompt])
        found = []
        for block, own, keys, values in zip(shared_prompt, queries, key, value, strict=True):
            mask = None if block.mask is None else block.mask[:, None, None]
            found.append(attend(module, own, keys, values, mask, scaling, block.prompt)[0])
        return torch.cat(found), None
    if shared_prompt is not None and shared_prompt.complete:
        prompt = shared_prompt.layers[module.layer_idx]  # pyright: ignore[reportArgumentType]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        fused = query.device.type == "cpu" and not torch.is_grad_enabled()  # its normalisers have no gradient
        combine = _weighed if fused else _joint
        return combine(query, prompt, (key, value), _own_mask(attention_mask, query, key), scale), None
    if shared_prompt is not None:
        shared_prompt.take_down(module.layer_idx, key, value, options)  # pyright: ignore[reportArgumentType]
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)


def _own_mask(given: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
    """What each new token sees of its row, (B or 1, 1, R Q, L); None where that is everything."""
    num_new, length = query.shape[2], key.shape[2]
    if given is None and num_new == 1:
        return None
    if given is None:
        given = torch.ones(1, 1, num_new, length, dtype=torch.bool, device=query.device).tril(length - num_new)
    return given.repeat(1, 1, query.shape[1] // key.shape[1], 1)


Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values


def _weighed(query: torch.Tensor, prompt: Pair, own: Pair, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """Two attentions and their normalisers from the processor's fused kernel, which writes no scores down."""
    (batch, heads, num_new, size), groups = query.shape, own[0].shape[1]
    grouped = query.reshape(batch, groups, -1, size)  # (B, G, R Q, D)
    as_one = grouped.transpose(0, 1).reshape(1, groups, -1, size)  # (1, G, B R Q, D)
    on_prompt, prompt_total = _fused(as_one, prompt, None, scale)
    on_own, own_total = _fused(grouped, own, mask, scale)
    on_prompt = on_prompt.view(groups, batch, -1, size).transpose(0, 1)
    share = torch.sigmoid(prompt_total.view(groups, batch, -1).transpose(0, 1) - own_total)[..., None]
    mixed = torch.lerp(on_own.float(), on_prompt.float(), share).to(query.dtype)
    return mixed.reshape(batch, heads, num_new, size).transpose(1, 2).contiguous()


def _fused(query: torch.Tensor, pair: Pair, mask: torch.Tensor | None, scale: float) -> Pair:
    """Attention, and log Σ exp of its scores in float32. A token that sees nothing gets zeros and total 0."""
    bias = None if mask is None else torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, *pair, 0.0, False, attn_mask=bias, scale=scale)


def _joint(query: torch.Tensor, prompt: Pair, own: Pair, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    """One softmax over the scores of both parts side by side, on any device."""
    (batch, heads, num_new, size), groups = query.shape, own[0].shape[1]
    grouped = (query * scale).reshape(batch, groups, -1, size)  # (B, G, R Q, D)
    as_one = grouped.transpose(0, 1).reshape(groups, -1, size)  # (G, B R Q, D)
    length = prompt[0].shape[2]
    on_prompt = (as_one @ prompt[0][0].mT).view(groups, batch, -1, length).transpose(0, 1)
    on_own = grouped @ own[0].mT
    if mask is not None:
        on_own = on_own.masked_fill(~mask, -torch.inf)
    weights = torch.cat([on_prompt, on_own], dim=-1).softmax(-1, dtype=torch.float32).to(query.dtype)
    from_prompt = weights[..., :length].transpose(0, 1).reshape(groups, -1, length) @ prompt[1][0]
    mixed = from_prompt.view(groups, batch, -1, size).transpose(0, 1) + weights[..., length:] @ own[1]
    return mixed.reshape(batch, heads, num_new, size).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
