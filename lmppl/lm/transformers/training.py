"""Passes with gradients: prompts that are run once and shared by all rows, and the laws after their
tokens.

The prompts' keys, values and last logits become leaves: rows, in as many passes as memory asks for,
leave their gradients there, and `OpenPrompts.backward` carries them through the prompts once.
Streams of the same model use the same prompts meanwhile. Where a prompt leaves more than keys and
values behind, or nothing, rows run it again, each in a whole pass. Knows token ids and tensors, no
programs and no losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lmppl.lm.protocol import Rows, Tokens
from lmppl.lm.transformers.attention import Block
from lmppl.lm.transformers.cache import in_blocks
from lmppl.lm.transformers.laws import under
from lmppl.lm.transformers.network import Network
from lmppl.lm.transformers.prompts import Prompt, run_prompt, run_prompts, side_by_side
from lmppl.lm.transformers.stream import columns
from lmppl.lm.transformers.whole import run_whole
from lmppl.lm.tree import Carrier, carriers


class Prompted(Network, Protocol):
    """A network that keeps prompts which it has run."""

    ends: tuple[int, ...]  # tokens that end a text; the first stands for all
    caches: bool

    def stem(self, tokens: Tokens) -> Tokens:
        """What a prompt goes on from; of no tokens where there is nothing."""
        ...

    def by_stem(self, prompts: Sequence[Tokens]) -> dict[Tokens, list[Tokens]]:
        """Different prompts by the stem that they go on from."""
        ...

    def keep_prompt(self, tokens: Tokens, prompt: Prompt) -> Prompt:
        """Use this where the prompt is asked for."""
        ...


@dataclass(frozen=True)
class OpenPrompt:
    """A prompt run with gradients: what the pass gave, and the leaves that stand for it."""

    tokens: Tokens
    prompt: Prompt | None  # None where every row runs it
    outputs: list[torch.Tensor]
    leaves: list[torch.Tensor]

    @property
    def run(self) -> Prompt:
        """The prompt, where it has been run."""
        assert self.prompt is not None
        return self.prompt


@dataclass(frozen=True)
class OpenPrompts:
    """Prompts by their tokens, and the stems that they go on from. Implements
    lm.protocol.OpenPrompts.
    """

    model: Prompted
    prompts: dict[Tokens, OpenPrompt]
    stems: dict[Tokens, OpenPrompt]

    def __getitem__(self, tokens: Tokens) -> OpenPrompt:
        return self.prompts[tokens] if tokens in self.prompts else self.stems[tokens]

    def laws(self, asked: Sequence[Rows]) -> list[torch.Tensor]:
        """See lm.protocol.OpenPrompts. One pass, where rows need no copy of their prompts; rows
        that others begin with are read from these.
        """
        logits = _every_law(self.model, [_Behind(self[rows.prompt], rows) for rows in asked])
        law, ends = self.model.local_law, self.model.ends
        return [_with_one_end(under(own, law), ends) for own in logits]

    @property
    def leaves(self) -> list[torch.Tensor]:
        """Where gradients are left."""
        return [
            leaf
            for some in (self.prompts, self.stems)
            for one in some.values()
            for leaf in one.leaves
        ]

    def backward(self) -> None:
        """Carry what rows have left at the leaves through the prompts, and then all that has come
        to the stems.
        """
        for some in (self.prompts, self.stems):
            pairs = [
                pair for one in some.values() for pair in zip(one.outputs, one.leaves, strict=True)
            ]
            reached = [
                (output, leaf.grad)
                for output, leaf in pairs
                if leaf.grad is not None and output.requires_grad
            ]
            if reached:
                torch.autograd.backward(
                    [output for output, _ in reached], [gradient for _, gradient in reached]
                )


def open_prompts(model: Prompted, prompts: Sequence[Tokens]) -> OpenPrompts:
    """Run prompts with gradients, side by side; a stem that several go on from is run once for them
    all.

    Until prompts are forgotten, the model's streams use them too.
    """
    if not _leaves_pairs(model):
        return OpenPrompts(
            model, {tokens: OpenPrompt(tokens, None, [], []) for tokens in prompts}, {}
        )
    groups = model.by_stem(prompts)
    stems = [stem for stem, group in groups.items() if stem and len(group) > 1]
    with torch.enable_grad():
        begun = {stem: _opened(model, stem, run_prompt(model, stem, None)) for stem in stems}
        found: dict[Tokens, OpenPrompt] = {}
        for stem, group in groups.items():
            own = [tokens for tokens in group if tokens not in begun]
            ready = run_prompts(model, own, begun[stem].run if stem in begun else None)
            found |= {
                tokens: _opened(model, tokens, one) for tokens, one in zip(own, ready, strict=True)
            }
    return OpenPrompts(model, found, begun)


def num_own_tokens(model: Prompted, prompts: Iterable[Tokens]) -> int:
    """How many tokens of some prompts are run, each once, stems left out."""
    return sum(len(tokens) - len(model.stem(tokens)) for tokens in set(prompts))


def _opened(model: Prompted, tokens: Tokens, ready: Prompt) -> OpenPrompt:
    """Leaves in the place of what a prompt's pass gave."""
    outputs, leaves = [ready.logits], [ready.logits.detach().requires_grad_()]
    layers: Any = ready.cache.layers
    for i, layer in enumerate(layers):
        outputs += [layer.keys, layer.values]
        layer.keys, layer.values = (
            part.detach().requires_grad_() for part in (layer.keys, layer.values)
        )
        leaves += [layer.keys, layer.values]
        if ready.shared is not None:
            ready.shared.layers[i] = layer.keys, layer.values
    prompt = Prompt(ready.length, ready.cache, leaves[0], ready.shared)
    model.keep_prompt(tokens, prompt)
    return OpenPrompt(tokens, prompt, outputs, leaves)


def _leaves_pairs(model: Prompted) -> bool:
    """Whether all that a prompt leaves behind are the keys and values of its layers."""
    layers = model.empty.made().layers
    return model.caches and all(
        type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
    )


# --- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Behind:
    """Rows, and the prompt that was opened for them."""

    opened: OpenPrompt
    rows: Rows


def _every_law(model: Prompted, asked: Sequence[_Behind]) -> list[torch.Tensor]:
    """(B, S, V) float32 logits of each entry, before the tokens asked about."""
    groups = [_carriers(one.rows) for one in asked]
    if any(one.opened.prompt is None for one in asked):
        return [_whole_laws(model, one.rows, own) for one, own in zip(asked, groups, strict=True)]
    if all(one.opened.run.shared is not None for one in asked):
        passes = _run(model, asked, groups)
    else:
        passes = [_run(model, [one], [own])[0] for one, own in zip(asked, groups, strict=True)]
    return [_laws(one, own, *found) for one, own, found in zip(asked, groups, passes, strict=True)]


def _carriers(rows: Rows) -> list[Carrier]:
    return carriers([row[:-1] for row in rows.tokens], rows.starts)


def _whole_laws(model: Prompted, rows: Rows, group: Sequence[Carrier]) -> torch.Tensor:
    """(B, S, V) float32 logits of an entry, from passes over the prompt and each carrier."""
    longest = max(len(row) - start for row, start in zip(rows.tokens, rows.starts, strict=True))
    prompt, found = rows.prompt, {}
    sequences = [(*prompt, *carrier.inputs) for carrier in group]
    with torch.enable_grad():
        for c, logits in run_whole(model, sequences):
            for guest in group[c].guests:
                law = logits[len(prompt) - 1 + rows.starts[guest] :][
                    : len(rows.tokens[guest]) - rows.starts[guest]
                ]
                found[guest] = torch.nn.functional.pad(law.float(), (0, 0, 0, longest - len(law)))
        model.cost.tokens_scored += sum(map(len, sequences))
        return torch.stack([found[i] for i in range(len(rows.tokens))])


def _with_one_end(logits: torch.Tensor, ends: Sequence[int]) -> torch.Tensor:
    """Logits (B, S, V) where the first end token stands for all of them, as it does where rows are
    decoded.
    """
    if len(ends) == 1:
        return logits
    token = torch.arange(logits.shape[-1], device=logits.device)
    merged = torch.logsumexp(logits[..., list(ends)], -1, keepdim=True)
    others = logits.masked_fill(torch.isin(token, token.new_tensor(ends)), -torch.inf)
    return torch.where(token == ends[0], merged, others)


def _laws(
    one: _Behind, group: Sequence[Carrier], after: torch.Tensor | None, first: int
) -> torch.Tensor:
    """(B, S, V) float32 logits of an entry. after: (C, W, V) those after the carriers' inputs from
    `first` on.
    """
    rows, before = one.rows, one.opened.run.logits[None]
    longest = max(len(row) - start for row, start in zip(rows.tokens, rows.starts, strict=True))
    if after is None:
        return before.expand(len(rows.tokens), longest, -1)
    width = after.shape[1]
    places = np.zeros(
        (len(rows.tokens), longest), dtype=np.int64
    )  # in one list: the law after the prompt, all others
    for c, carrier in enumerate(group):
        for guest in carrier.guests:
            column = rows.starts[guest] - 1 - first + np.arange(longest)
            # behind a row's end, whatever was computed
            places[guest] = np.where(column < 0, 0, 1 + c * width + column.clip(max=width - 1))
    every = torch.cat([before, after.flatten(0, 1).float()])
    chosen = every.index_select(0, torch.from_numpy(places.ravel()).to(every.device))
    return chosen.view(*places.shape, -1)


def _run(
    model: Prompted, asked: Sequence[_Behind], groups: Sequence[Sequence[Carrier]]
) -> list[tuple[torch.Tensor | None, int]]:
    """One pass of all carriers: of every entry, logits (C, W, V) after their inputs from some
    column on, and which.
    """
    some = [carrier for group in groups for carrier in group]
    width = max(len(carrier.inputs) for carrier in some)
    first = max(min(carrier.start for carrier in some), 1) - 1
    if width <= first:
        return [(None, first)] * len(asked)
    sizes = [len(group) for group in groups]
    lengths = torch.tensor([one.opened.run.length for one in asked]).repeat_interleave(
        torch.tensor(sizes)
    )
    with torch.enable_grad():
        output = model.run(
            input_ids=side_by_side([carrier.inputs for carrier in some], model.end).to(
                model.device
            ),
            position_ids=(lengths[:, None] + torch.arange(width)).to(model.device),
            use_cache=True,
            logits_to_keep=columns(first, width, model.device),
            **_behind(model, [one.opened.run for one in asked], sizes),
        )
    model.cost.tokens_scored += sum(len(carrier.inputs) for carrier in some)
    return [(logits, first) for logits in output.logits.split(sizes)]


def _behind(model: Prompted, prompts: Sequence[Prompt], sizes: Sequence[int]) -> dict[str, Any]:
    """Empty caches where rows share their prompts, or one that begins with copies of the only
    prompt.
    """
    empty = [model.empty.made() for _ in prompts]
    blocks = [
        Block(size, one.shared, None)
        for size, one in zip(sizes, prompts, strict=True)
        if one.shared is not None
    ]
    if blocks:
        return {"past_key_values": in_blocks(empty, sizes), "shared_prompt": blocks}
    for i, layer in enumerate(prompts[0].cache.layers):
        keys, values = layer.keys, layer.values  # type: ignore[union-attr]
        empty[0].update(keys.expand(sizes[0], -1, -1, -1), values.expand(sizes[0], -1, -1, -1), i)  # type: ignore[union-attr]
    return {"past_key_values": empty[0]}
