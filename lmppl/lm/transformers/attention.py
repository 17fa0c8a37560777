"""Attention of many rows to one prompt that they share, whose keys and values are kept once, at
batch 1.

A row's cache holds its own tokens only. All rows' queries meet the prompt in one product a head,
and each row meets its own tokens by itself; the two are weighed by their normalisers, which is
exact. The prompt reaches the attention as an argument of the model's forward. While a prompt is run
its keys and values are taken down as the attention gets them: a model that hands it anything else
than its cache, or asks for more than softmax attention (windows, soft caps, sinks, biases), does
not share. Knows tensors and nothing of tokens.

A pass may hold rows of several prompts, one block of them after another: each block attends by
itself. It may also hold rows whose columns are of fixed number, and read them without writing: see
static.py.

B rows, H query heads in G groups of R with one key head each, Q new tokens, P of the prompt, L own,
D wide.
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
Pair = tuple[torch.Tensor, torch.Tensor]  # keys and values
# arguments that change what attention is
UNSHARED = (
    "sliding_window",
    "softcap",
    "s_aux",
    "position_bias",
)


class SharedPrompt:
    """Keys and values of a prompt by layer, each (1, G, P, D), as attention was given them."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.complete = False
        self._usual = True  # whether every layer asked for what `attend` can do

    @classmethod
    def of(cls, cache: DynamicCache) -> SharedPrompt:
        """That of a cache that holds keys and values as attention was given them, and nothing
        else.
        """
        shared = cls()
        shared.layers = {i: (layer.keys, layer.values) for i, layer in enumerate(cache.layers)}  # type: ignore[misc, union-attr]
        shared.complete = True
        return shared

    def take_down(
        self, layer: int, keys: torch.Tensor, values: torch.Tensor, options: dict[str, Any]
    ) -> None:
        asks_more = (
            any(options.get(name) is not None for name in UNSHARED)
            or options.get("is_causal") is False
        )
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


class FixedRows:
    """Rows with one new token each, whose prompt and own columns are rounded up; the pass's mask
    tells what is filled.

    prompt: (2 layers, G, P, D). own: (2 layers, B, G, L, D). A pass leaves the tokens' keys and
    values in `new`, each (B, G, 1, D), layer by layer.
    """

    def __init__(self, prompt: torch.Tensor, own: torch.Tensor) -> None:
        self.prompt, self.own = prompt, own
        self.new: list[torch.Tensor] = []

    def attend(
        self, layer: int, query: torch.Tensor, new: Pair, mask: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """mask: (B, 1, 1, P + L + 1). -> (B, 1, H, D)"""
        self.new += new
        prompt = self.prompt[2 * layer][None], self.prompt[2 * layer + 1][None]
        own = self.own[2 * layer], self.own[2 * layer + 1]
        return _joint(query, prompt, [own, new], mask, _scale(query, scaling))


@dataclass(frozen=True)
class Block:
    """Rows of a pass that share a prompt."""

    size: int
    prompt: SharedPrompt
    # (size, L) which own columns a row's one new token sees; None: all until itself
    mask: torch.Tensor | None


def install(model: PreTrainedModel) -> None:
    """Let the model attend through here where its kind allows that. It computes what it did
    before.
    """
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
    shared_prompt: SharedPrompt | Sequence[Block] | FixedRows | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: query (B, H, Q, D), own keys and values (B, G, L, D)
    -> (B, Q, H, D).

    Where there are blocks, keys and values are those of each block in turn (cache.BlockLayer).
    """
    if isinstance(shared_prompt, FixedRows):
        assert attention_mask is not None
        layer: int = module.layer_idx  # pyright: ignore[reportAssignmentType]
        return shared_prompt.attend(layer, query, (key, value), attention_mask, scaling), None
    if isinstance(shared_prompt, Sequence):
        queries = query.split([block.size for block in shared_prompt])
        found = []
        for block, own, keys, values in zip(shared_prompt, queries, key, value, strict=True):
            mask = None if block.mask is None else block.mask[:, None, None]
            found.append(attend(module, own, keys, values, mask, scaling, block.prompt)[0])
        return torch.cat(found), None
    if shared_prompt is not None and shared_prompt.complete:
        prompt = shared_prompt.layers[module.layer_idx]  # pyright: ignore[reportArgumentType]
        own, mask, scale = (
            (key, value),
            _own_mask(attention_mask, query, key),
            _scale(query, scaling),
        )
        if _has_fused(query):
            return _weighed(query, prompt, own, mask, scale), None
        return _joint(query, prompt, [own], mask, scale), None
    if shared_prompt is not None:
        shared_prompt.take_down(module.layer_idx, key, value, options)  # pyright: ignore[reportArgumentType]
    return sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, **options
    )


def _has_fused(query: torch.Tensor) -> bool:
    """Whether there is a kernel that tells its normalisers; they have no gradient."""
    return query.device.type == "cpu" and not torch.is_grad_enabled()


def _scale(query: torch.Tensor, scaling: float | None) -> float:
    return query.shape[-1] ** -0.5 if scaling is None else scaling


def _own_mask(
    given: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor
) -> torch.Tensor | None:
    """What each new token sees of its row, (B or 1, 1, R Q, L); None where that is everything."""
    num_new, length = query.shape[2], key.shape[2]
    if given is None and num_new == 1:
        return None
    if given is None:
        given = torch.ones(1, 1, num_new, length, dtype=torch.bool, device=query.device).tril(
            length - num_new
        )
    return given.repeat(1, 1, query.shape[1] // key.shape[1], 1)


def _weighed(
    query: torch.Tensor, prompt: Pair, own: Pair, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Two attentions and their normalisers from the processor's fused kernel, which writes no
    scores down.
    """
    (batch, heads, num_new, size), groups = query.shape, own[0].shape[1]
    grouped = query.reshape(batch, groups, -1, size)  # (B, G, R Q, D)
    as_one = grouped.transpose(0, 1).reshape(1, groups, -1, size)  # (1, G, B R Q, D)
    on_prompt, prompt_total = _fused(as_one, prompt, None, scale)
    on_own, own_total = _fused(grouped, own, mask, scale)
    on_prompt = on_prompt.view(groups, batch, -1, size).transpose(0, 1)
    share = torch.sigmoid(prompt_total.view(groups, batch, -1).transpose(0, 1) - own_total)[
        ..., None
    ]
    mixed = torch.lerp(on_own.float(), on_prompt.float(), share).to(query.dtype)
    return mixed.reshape(batch, heads, num_new, size).transpose(1, 2).contiguous()


def _fused(query: torch.Tensor, pair: Pair, mask: torch.Tensor | None, scale: float) -> Pair:
    """Attention, and log Σ exp of its scores in float32. A token that sees nothing gets zeros and
    total 0.
    """
    bias = (
        None
        if mask is None
        else torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    )
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return kernel(query, *pair, 0.0, False, attn_mask=bias, scale=scale)


def _joint(
    query: torch.Tensor, prompt: Pair, own: Sequence[Pair], mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """One softmax over the scores of all parts side by side, on any device. mask: of the last
    columns, or all.
    """
    (batch, heads, num_new, size), groups = query.shape, prompt[0].shape[1]
    grouped = (query * scale).reshape(batch, groups, -1, size)  # (B, G, R Q, D)
    as_one = grouped.transpose(0, 1).reshape(groups, -1, size)  # (G, B R Q, D)
    length = prompt[0].shape[2]
    on_prompt = (as_one @ prompt[0][0].mT).view(groups, batch, -1, length).transpose(0, 1)
    scores = torch.cat([on_prompt, *(grouped @ keys.mT for keys, _ in own)], dim=-1)
    if mask is not None:
        hidden = torch.nn.functional.pad(~mask, (scores.shape[-1] - mask.shape[-1], 0))
        scores = scores.masked_fill(hidden, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    of_prompt, *of_own = weights.split([length, *(keys.shape[2] for keys, _ in own)], dim=-1)
    from_prompt = of_prompt.transpose(0, 1).reshape(groups, -1, length) @ prompt[1][0]
    mixed = from_prompt.view(groups, batch, -1, size).transpose(0, 1)
    for part, (_, values) in zip(of_own, own, strict=True):
        mixed = mixed + part @ values
    return mixed.reshape(batch, heads, num_new, size).transpose(1, 2).contiguous()


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
