"""Rows read off a network: what is asked of each row's logits, in as few passes as there is room
for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from lmppl.lm.protocol import Rows, Tokens
from lmppl.lm.transformers.batches import Placed, batches, halving
from lmppl.lm.transformers.network import Network
from lmppl.lm.transformers.prompts import Prompt, forked, side_by_side
from lmppl.lm.transformers.stream import columns
from lmppl.lm.tree import Carrier, carriers

T = TypeVar("T")
# of logits (N, V), and of rows: in which of them the laws of a row's tokens begin, and these
Read = Callable[[torch.Tensor, Sequence[tuple[int, Tokens]]], Sequence[T]]
Found = dict[tuple[int, int], T]  # by entry, and row of it


def read_rows(
    network: Network,
    asked: Sequence[Rows],
    ready: Mapping[int, Prompt],
    read: Read[T],
    whole: bool = False,
) -> list[list[T]]:
    """Per row, what `read` makes of the logits that its tokens from its start on come from, and of
    these. Rows whose logits are of one pass are read together.

    ready: the prompts of the entries that have rows, which have been run. whole: the last token is
    run as well, and there are logits after it.
    """
    placed = [*_placed(asked, ready, whole)]
    results: Found[T] = {}
    for one in placed:
        if not one.carrier.inputs:
            # rows of at most one token: the prompt's own law tells of them
            law = ready[one.entry].logits[None]
            results |= _found(asked, read, one, law[one.carrier.start :])
    work = [one for one in placed if one.carrier.inputs]

    def run(some: Sequence[Placed]) -> list[Found[T]]:
        return _read_batch(network, asked, ready, read, some)

    for group in _groups(work, ready):
        for batch in batches(group, network.most_logits // network.vocabulary_size):
            for found in halving(run, batch):
                results |= found
    ordered: list[list[T]] = []
    for e, rows in enumerate(asked):
        ordered.append([results[e, i] for i in range(len(rows.tokens))])
    return ordered


def _placed(asked: Sequence[Rows], ready: Mapping[int, Prompt], whole: bool) -> Iterator[Placed]:
    """What is run behind the prompts: few rows, from whose passes all can be read."""
    for e in ready:
        inputs = [row if whole else row[:-1] for row in asked[e].tokens]
        for carrier in carriers(inputs, asked[e].starts):
            yield Placed(e, carrier)


def read_guests(rows: Rows, read: Read[T], carrier: Carrier, logits: torch.Tensor) -> dict[int, T]:
    """What `read` makes of the rows that a carrier serves, by number. logits: (N, V) that the
    tokens from its start on come from.
    """
    own = [
        (rows.starts[i] - carrier.start, rows.tokens[i][rows.starts[i] :]) for i in carrier.guests
    ]
    return dict(zip(carrier.guests, read(logits, own), strict=True))


def _found(asked: Sequence[Rows], read: Read[T], one: Placed, logits: torch.Tensor) -> Found[T]:
    found = read_guests(asked[one.entry], read, one.carrier, logits)
    return {(one.entry, i): own for i, own in found.items()}


def _groups(work: Sequence[Placed], ready: Mapping[int, Prompt]) -> Iterator[list[Placed]]:
    """Rows that may go through together: all whose prompts are shared, the others by prompt."""
    yield [one for one in work if ready[one.entry].shared is not None]
    for e, prompt in ready.items():
        if prompt.shared is None:
            yield [one for one in work if one.entry == e]


def _read_batch(
    network: Network,
    asked: Sequence[Rows],
    ready: Mapping[int, Prompt],
    read: Read[T],
    some: Sequence[Placed],
) -> list[Found[T]]:
    """Results of the guests of each of some rows, from one pass."""
    # first input whose law is needed
    first = max(min(one.carrier.start for one in some), 1) - 1
    results = []
    for one, logits in zip(some, _run_padded(network, some, ready, first), strict=True):
        start, end = one.carrier.start, len(one.carrier.inputs)
        after = logits[max(start - 1, 0) - first : end - first]
        if start == 0:
            after = torch.cat([ready[one.entry].logits[None], after])
        results.append(_found(asked, read, one, after))
    return results


def _run_padded(
    network: Network, some: Sequence[Placed], ready: Mapping[int, Prompt], first: int
) -> torch.Tensor:
    """(B, width - first, V) logits after inputs[first:]."""
    inputs = [one.carrier.inputs for one in some]
    width = max(map(len, inputs))
    sizes = Counter(one.entry for one in some)
    prompts = [ready[e] for e in sizes]
    if width <= first:
        return prompts[0].logits.new_empty(len(some), 0, network.vocabulary_size)
    behind = torch.tensor([ready[one.entry].length for one in some])
    output = network.run(
        input_ids=side_by_side(inputs, network.end).to(network.device),
        position_ids=(behind[:, None] + torch.arange(width)).to(network.device),
        use_cache=True,
        logits_to_keep=columns(first, width, network.device),
        **forked(prompts, list(sizes.values()), width),
    )
    network.cost.tokens_scored += sum(map(len, inputs))
    return output.logits
