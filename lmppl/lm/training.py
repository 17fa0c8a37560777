"""Passes with gradients: a prompt that is run once and shared by all rows, and the laws after their tokens.

The prompt's keys, values and last logits become leaves: rows, in as many passes as memory asks for, leave their
gradients there, and `OpenPrompt.backward` carries them through the prompt once. Streams of the same model use the same
prompt meanwhile. Knows token ids and tensors, no programs and no losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from lmppl.lm.huggingface import HuggingFaceModel
from lmppl.lm.protocol import Tokens
from lmppl.lm.stream import Prompt


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt run with gradients: what the pass gave, and the leaves that stand for it."""

    prompt: Prompt
    outputs: list[torch.Tensor]
    leaves: list[torch.Tensor]

    def backward(self) -> None:
        """Carry what rows have left at the leaves through the prompt."""
        pairs = [(o, leaf.grad) for o, leaf in zip(self.outputs, self.leaves, strict=True) if leaf.grad is not None]
        if pairs:
            torch.autograd.backward([o for o, _ in pairs], [gradient for _, gradient in pairs])


def open_prompts(model: HuggingFaceModel, prompts: Sequence[Tokens]) -> dict[Tokens, OpenPrompt]:
    """Run prompts with gradients; a stem that several go on from is run once for them all.

    Stems come behind prompts, under their own tokens: `backward` in this order meets them when all has arrived there.
    """
    groups: dict[Tokens, list[Tokens]] = {}
    for tokens in dict.fromkeys(prompts):
        groups.setdefault(model.stem(tokens), []).append(tokens)
    stems = {stem: open_prompt(model, stem) for stem, group in groups.items() if stem and len(group) > 1}
    opened = {
        tokens: open_prompt(model, tokens, stems.get(stem))
        for stem, group in groups.items()
        for tokens in group
        if tokens not in stems
    }
    return opened | stems


def open_prompt(model: HuggingFaceModel, tokens: Tokens, stem: OpenPrompt | None = None) -> OpenPrompt:
    """Run a prompt with gradients, behind a stem; until prompts are forgotten, the model's streams use it too."""
    with torch.enable_grad():
        ready = model.run_prompt(tokens, stem.prompt if stem else None)
    outputs, leaves = [ready.logits], [ready.logits.detach().requires_grad_()]
    layers: Any = ready.cache.layers
    for i, layer in enumerate(layers):
        outputs += [layer.keys, layer.values]
        layer.keys, layer.values = (part.detach().requires_grad_() for part in (layer.keys, layer.values))
        leaves += [layer.keys, layer.values]
        if ready.shared is not None:
            ready.shared.layers[i] = layer.keys, layer.values
    prompt = Prompt(ready.cache, leaves[0], ready.shared)
    model.keep_prompt(tokens, prompt)
    return OpenPrompt(prompt, outputs, leaves)


def laws_with_gradient(
    model: HuggingFaceModel, opened: OpenPrompt, rows: Sequence[Tokens], starts: Sequence[int]
) -> torch.Tensor:
    """(B, S, V) float32 logits before the tokens rows[b][starts[b]:], padded at the end to the longest, S."""
    inputs = [row[:-1] for row in rows]
    width = max(map(len, inputs))
    longest = max(len(row) - start for row, start in zip(rows, starts, strict=True))
    own = _run_rows(model, opened, inputs, width) if width else None  # (B, width, V): after each input
    first, common = opened.prompt.logits, set(starts) if len(set(starts)) == 1 else None
    if common == {0}:
        laws = first.expand(len(rows), 1, -1)
        return laws if own is None or longest == 1 else torch.cat([laws, own[:, : longest - 1].float()], 1)
    if common is not None and own is not None:
        return own[:, starts[0] - 1 : starts[0] - 1 + longest].float()
    return torch.stack([_laws_of_row(first, own, b, start, longest) for b, start in enumerate(starts)])


def scores_with_gradient(
    model: HuggingFaceModel, opened: OpenPrompt, rows: Sequence[Tokens], starts: Sequence[int]
) -> torch.Tensor:
    """(B,) float32 log probability of the tokens rows[b][starts[b]:], summed. Nats."""
    logits = with_one_end(laws_with_gradient(model, opened, rows, starts), model.ends)  # (B, S, V)
    index = torch.zeros(logits.shape[:2], dtype=torch.long)
    within = torch.zeros(logits.shape[:2], dtype=torch.bool)
    for b, (row, start) in enumerate(zip(rows, starts, strict=True)):
        scored = row[start:]
        index[b, : len(scored)], within[b, : len(scored)] = torch.tensor(scored, dtype=torch.long), True
    chosen = logits.gather(-1, index.to(logits.device)[..., None])[..., 0] - torch.logsumexp(logits, -1)
    return chosen.masked_fill(~within.to(logits.device), 0.0).sum(1)


def with_one_end(logits: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    """Logits (B, S, V) where the first end token stands for all of them, as it does where rows are decoded."""
    if len(ends) == 1:
        return logits
    token = torch.arange(logits.shape[-1], device=logits.device)
    merged = torch.logsumexp(logits[..., list(ends)], -1, keepdim=True)
    others = logits.masked_fill(torch.isin(token, token.new_tensor(ends)), -torch.inf)
    return torch.where(token == ends[0], merged, others)


def _laws_of_row(first: torch.Tensor, own: torch.Tensor | None, b: int, start: int, count: int) -> torch.Tensor:
    """(count, V) logits before the tokens of one row from its start on; behind its end, whatever was computed."""
    if own is None:
        return first.expand(count, -1)
    index = torch.arange(start - 1, start - 1 + count, device=first.device).clamp(max=own.shape[1] - 1)
    rest = own[b].index_select(0, index.clamp(min=0)).float()
    return torch.cat([first[None], rest[1:]]) if start == 0 else rest


def _run_rows(model: HuggingFaceModel, opened: OpenPrompt, inputs: Sequence[Tokens], width: int) -> torch.Tensor:
    """Logits after every input; rows are padded on the right, where causal attention ignores it."""
    padded = torch.full((len(inputs), width), model.end, dtype=torch.long)
    for b, row in enumerate(inputs):
        padded[b, : len(row)] = torch.tensor(row, dtype=torch.long)
    length = opened.prompt.length
    positions = torch.arange(length, length + width, device=model.device)
    with torch.enable_grad():
        output = model.run(
            input_ids=padded.to(model.device),
            past_key_values=_own_cache(model, opened.prompt, len(inputs)),
            position_ids=positions[None].expand(len(inputs), -1),
            use_cache=True,
            **opened.prompt.arguments,
        )
    model.cost.tokens_scored += sum(map(len, inputs))
    return output.logits


def _own_cache(model: HuggingFaceModel, prompt: Prompt, num_rows: int) -> DynamicCache:
    """An empty cache where rows share the prompt, else one that begins with it; it grows by concatenation."""
    own = DynamicCache(config=model.model.config)
    if prompt.shared is None:
        for i, layer in enumerate(prompt.cache.layers):
            keys, values = layer.keys, layer.values  # type: ignore[union-attr]
            own.update(keys.expand(num_rows, -1, -1, -1), values.expand(num_rows, -1, -1, -1), i)  # type: ignore[union-attr]
    return own
