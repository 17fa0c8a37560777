"""Prompts that have been run: what rows begin with. Several are run side by side where that changes
nothing.

Knows token ids and caches, and the model only as what runs a pass.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import DynamicCache

from lmppl.lm.protocol import Tokens
from lmppl.lm.transformers.attention import Block, SharedPrompt, shares
from lmppl.lm.transformers.cache import fork, in_blocks, parts
from lmppl.lm.transformers.network import Network

FEWEST_PROMPTS = 16  # prompts whose caches are kept, whatever they hold …
MOST_BYTES = 2**29  # … and more of them while all hold less …
# … up to so many: of short ones the layers' objects weigh more than what is in them
MOST_PROMPTS = 1024


@dataclass(frozen=True)
class Prompt:
    """A prompt that has been run, at batch 1, and the law of the token after it."""

    length: int  # in tokens, which a cache of states alone does not tell
    cache: DynamicCache
    logits: torch.Tensor  # (V,) float32
    shared: SharedPrompt | None  # where rows need no copy of the cache

    @cached_property
    def bytes(self) -> int:
        """What its keys and values take; layers of other kinds are not counted."""
        return sum(part.nbytes for part in parts(self.cache))

    def put(self, cache: DynamicCache) -> int:
        """Begin an empty cache with this prompt. How many tokens that are: 0 where layers hold
        more.
        """
        if self.shared is None:
            return 0
        for i, (keys, values) in self.shared.layers.items():
            cache.update(keys, values, i)
        return self.length

    def fork(self, num_rows: int, room: int) -> DynamicCache:
        return fork(self.cache, num_rows, room, shared=self.shared is not None)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the model's forward is given besides a cache made by `fork`."""
        return {} if self.shared is None else {"shared_prompt": self.shared}


class Prompts:
    """The latest prompts that have been run, as many as there is room for."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Tokens, Prompt] = OrderedDict()
        self._bytes = 0

    def __contains__(self, tokens: Tokens) -> bool:
        return tokens in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    def latest(self, tokens: Tokens) -> Prompt:
        """One that is kept, which is the latest from now on."""
        self._kept.move_to_end(tokens)
        return self._kept[tokens]

    def keep(self, tokens: Tokens, prompt: Prompt) -> None:
        if tokens in self._kept:
            self._bytes -= self._kept.pop(tokens).bytes
        self._kept[tokens] = prompt
        self._bytes += prompt.bytes
        while len(self._kept) > MOST_PROMPTS or (
            len(self._kept) > FEWEST_PROMPTS and self._bytes > MOST_BYTES
        ):
            self._bytes -= self._kept.popitem(last=False)[1].bytes

    def keep_only(self, some: Collection[Tokens]) -> None:
        """Drop all others."""
        for tokens in [tokens for tokens in self._kept if tokens not in some]:
            self._bytes -= self._kept.pop(tokens).bytes

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0


def side_by_side(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    """(B, width of the longest) rows of numbers, filled up on the right, where causal attention
    ignores it.
    """
    whole = torch.full((len(rows), max(map(len, rows))), filler, dtype=torch.long)
    for b, row in enumerate(rows):
        whole[b, : len(row)] = torch.tensor(row, dtype=torch.long)
    return whole


def forked(prompts: Sequence[Prompt], sizes: Sequence[int], room: int) -> dict[str, Any]:
    """What a pass is given for rows of several prompts, so many of each, one after another.

    room: positions that are to be added. Of more than one prompt, all have to be shared.
    """
    caches = [prompt.fork(size, room) for prompt, size in zip(prompts, sizes, strict=True)]
    if len(prompts) == 1:
        return {"past_key_values": caches[0], **prompts[0].arguments}
    blocks = [
        Block(size, one.shared, None)
        for size, one in zip(sizes, prompts, strict=True)
        if one.shared is not None
    ]
    return {"past_key_values": in_blocks(caches, sizes), "shared_prompt": blocks}


def run_prompt(owner: Network, tokens: Tokens, stem: Prompt | None) -> Prompt:
    """Run a prompt, what comes behind the stem where that can be taken up."""
    cache = owner.empty.made()
    done = stem.put(cache) if stem else 0
    ids = torch.tensor([tokens[done:]], dtype=torch.long, device=owner.device)
    shared = SharedPrompt() if shares(owner.model) else None
    options = {} if shared is None else {"shared_prompt": shared}
    output = owner.run(
        input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1, **options
    )
    owner.cost.tokens_scored += len(tokens) - done
    filled = output.past_key_values
    shared = shared if shared is not None and shared.finish(filled) else None
    return Prompt(len(tokens), filled, output.logits[0, -1].float(), shared)


def run_prompts(owner: Network, prompts: Sequence[Tokens], stem: Prompt | None) -> list[Prompt]:
    """Run prompts that go on from one stem, or from none, in as few passes as the logits have room
    for.

    Side by side they are padded, which only plain attention ignores: the stem, or the first, shows
    whether this is it.
    """
    if stem is None and len(prompts) > 1:
        first = run_prompt(owner, prompts[0], None)
        return [first, *_run_many(owner, prompts[1:], None, first.shared is not None)]
    return _run_many(owner, prompts, stem, stem is not None and stem.shared is not None)


def _run_many(
    owner: Network, prompts: Sequence[Tokens], stem: Prompt | None, plain: bool
) -> list[Prompt]:
    if not plain or len(prompts) == 1:
        return [run_prompt(owner, tokens, stem) for tokens in prompts]
    found: dict[int, Prompt] = {}
    for some in _batches(prompts, owner.most_logits // owner.vocabulary_size):
        found |= zip(some, _run_together(owner, [prompts[i] for i in some], stem), strict=True)
    return [found[i] for i in range(len(prompts))]


def _batches(prompts: Sequence[Tokens], most: int) -> Iterator[list[int]]:
    """Prompts of similar length together: a pass has a law for every row and every length that a
    row has.
    """
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        if batch and (len(batch) + 1) * len({len(prompts[j]) for j in (*batch, i)}) > most:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def _run_together(owner: Network, prompts: Sequence[Tokens], stem: Prompt | None) -> list[Prompt]:
    """One pass, and what each row has left in it."""
    done = stem.length if stem else 0
    lengths = [len(tokens) - done for tokens in prompts]
    kept = sorted({length - 1 for length in lengths})
    positions = torch.arange(done, done + max(lengths), device=owner.device)
    shared = (
        stem.shared if stem else None
    ) or SharedPrompt()  # without a stem it takes the keys down
    output = owner.run(
        input_ids=side_by_side([tokens[done:] for tokens in prompts], owner.end).to(owner.device),
        past_key_values=owner.empty.made(),
        position_ids=positions[None].expand(len(prompts), -1),
        use_cache=True,
        logits_to_keep=torch.tensor(kept, device=owner.device),
        shared_prompt=shared,
    )
    owner.cost.tokens_scored += sum(lengths)
    rows = []
    for b, length in enumerate(lengths):
        cache = _row(owner, output.past_key_values, b, length, stem)
        rows.append(
            Prompt(
                done + length,
                cache,
                output.logits[b, kept.index(length - 1)].float(),
                SharedPrompt.of(cache),
            )
        )
    return rows


def _row(
    owner: Network, filled: DynamicCache, b: int, length: int, stem: Prompt | None
) -> DynamicCache:
    """The stem and the first columns of a row, so many, as a cache at batch 1."""
    cache = owner.empty.made()
    if stem:
        stem.put(cache)
    for i, layer in enumerate(filled.layers):
        keys, values = layer.keys, layer.values  # type: ignore[union-attr]
        cache.update(keys[b : b + 1, :, :length], values[b : b + 1, :, :length], i)  # type: ignore[index]
    return cache
