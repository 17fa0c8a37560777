"""Rows that begin alike scored as trees: what they share is run once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.lm.base import require_window
from lmppl.lm.protocol import Row
from lmppl.lm.transformers.batches import halving
from lmppl.lm.transformers.laws import Integers, picked
from lmppl.lm.transformers.network import Network
from lmppl.lm.transformers.prompts import Prompt, side_by_side
from lmppl.lm.tree import ROOT, Tree, ancestry, grow

Floats = NDArray[np.float64]
Planted = tuple[Floats, Tree]  # a tree, and the sums that its rows add to


def score_trees(network: Network, ready: Prompt, groups: Sequence[Sequence[Row]]) -> list[Floats]:
    """Per group, log probabilities of its rows behind a shared prompt, summed over tokens."""
    totals = [np.zeros(len(group)) for group in groups]
    planted: list[Planted] = []
    for total, group in zip(totals, groups, strict=True):
        planted += [(total, tree) for tree in grow(group)]
    for batch in _batches(network, planted, ready.length):
        trees = [tree for _, tree in batch]
        scores = halving(lambda some: _score(network, ready, some), trees)
        for (total, tree), score in zip(batch, scores, strict=True):
            np.add.at(total, tree.rows, score)
    return totals


def _batches(
    network: Network, planted: Sequence[Planted], prompt_length: int
) -> Iterator[list[Planted]]:
    """Trees of similar size together, as many as the logits have room for."""
    batch: list[Planted] = []
    for one in sorted(planted, key=lambda one: len(one[1])):
        tree = one[1]
        length = prompt_length + max(tree.depths, default=-1) + 1
        require_window(network.name, length, network.window)
        numbers = (len(batch) + 1) * len(tree) * network.vocabulary_size
        if batch and numbers > network.most_logits:
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _score(network: Network, ready: Prompt, trees: Sequence[Tree]) -> list[Floats]:
    """Per tree, log probabilities of its targets (R,). One pass, with logits where some tree
    needs them.
    """
    nodes = np.array([*chain.from_iterable(tree.nodes for tree in trees)], dtype=np.int64)
    targets = np.array([*chain.from_iterable(tree.targets for tree in trees)], dtype=np.int64)
    sizes = [len(tree.nodes) for tree in trees]
    owner = np.repeat(np.arange(len(trees)), sizes)
    at_root = nodes == ROOT
    scores = np.empty(len(nodes))
    scores[at_root] = picked(
        ready.logits[None],
        np.zeros(at_root.sum(), dtype=np.int64),
        targets[at_root],
        network.ends,
        network.local_law,
    )
    kept, place = np.unique(nodes[~at_root], return_inverse=True)
    if len(kept):
        logits = run_trees(network, ready, trees, kept).flatten(0, 1)
        places = owner[~at_root] * len(kept) + place
        scores[~at_root] = picked(
            logits, places, targets[~at_root], network.ends, network.local_law
        )
    return np.split(scores, np.cumsum(sizes)[:-1])


def run_trees(
    network: Network, ready: Prompt, trees: Sequence[Tree], kept: Integers
) -> torch.Tensor:
    """(B, len(kept), V) logits after these nodes of each tree; trees are padded on the right."""
    width = max(map(len, trees))
    positions = ready.length + side_by_side([tree.depths for tree in trees], 0)
    seen = torch.from_numpy(np.stack([ancestry(tree, width) for tree in trees]))
    output = network.run(
        input_ids=side_by_side([tree.tokens for tree in trees], network.end).to(network.device),
        past_key_values=ready.fork(len(trees), width),
        position_ids=positions.to(network.device),
        attention_mask=seen[:, None].to(network.device),
        use_cache=True,
        logits_to_keep=torch.as_tensor(kept, device=network.device),
        **ready.arguments,
    )
    network.cost.tokens_scored += sum(map(len, trees))
    return output.logits
