"""Whole passes over sequences, with nothing kept: what any causal network can do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from lmppl.lm.protocol import Tokens
from lmppl.lm.transformers.network import Network


def run_whole(model: Network, sequences: Sequence[Tokens]) -> Iterator[tuple[int, torch.Tensor]]:
    """The number of each sequence and logits (T, V) after its tokens, as many at a time as memory
    is meant for.
    """
    batch: list[int] = []
    for i in [*sorted(range(len(sequences)), key=lambda i: len(sequences[i])), None]:
        size = len(sequences[batch[0]]) if batch else 0
        full = (len(batch) + 1) * size * model.vocabulary_size > model.most_logits
        if batch and (i is None or full or len(sequences[i]) != size):
            ids = torch.tensor([sequences[j] for j in batch], dtype=torch.long, device=model.device)
            yield from zip(batch, model.run(input_ids=ids, use_cache=False).logits, strict=True)
            batch = []
        if i is not None:
            batch.append(i)
