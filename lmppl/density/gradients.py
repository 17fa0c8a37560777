"""What models are asked for a density, with gradients for one of them: the third way to ask.

The model that is learned runs its rows behind prompts that are opened with gradients;
other models, whose weights stay as they are, are asked as ever. Rows of several targets go through
the learned model side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lmppl.density.folding import TENSORS
from lmppl.density.scoring import Entry, Scored, ask
from lmppl.lm import OpenPrompts, Rows, Trainable, summed


@dataclass(frozen=True)
class Learnable:
    """Entries of N states, and which of their questions are to the model that is learned."""

    entries: Sequence[Entry]
    count: int  # N
    learned: Sequence[Scored]  # of those in the entries; other questions are constants

    @cached_property
    def kept(self) -> dict[int, list[int]]:
        """By `id` of a question to the learned model, its rows of which a token is scored: the
        others need no pass.
        """
        return {id(asked): _scored_rows(asked) for asked in self.learned}

    @cached_property
    def pieces(self) -> list[Scored]:
        """What the learned model scores."""
        kept = [(asked, self.kept[id(asked)]) for asked in self.learned]
        return [_rows_of(asked, own) for asked, own in kept if own]

    @property
    def constants(self) -> list[Scored]:
        """Questions to other models."""
        asked = [scored for entry in self.entries for scored in entry.scored]
        return [scored for scored in asked if id(scored) not in self.kept]

    @property
    def num_laws(self) -> int:
        """How many laws `log_joints` has at most at a time."""
        return max(map(_num_laws, self.pieces), default=0)


def _scored_rows(asked: Scored) -> list[int]:
    """Rows of a question of which a token is scored."""
    return [i for i, (tokens, start) in enumerate(asked.rows) if len(tokens) > start]


def _rows_of(asked: Scored, own: Sequence[int]) -> Scored:
    """A question about some of its rows."""
    owners = [asked.owners[i] for i in own]
    return replace(asked, rows=[asked.rows[i] for i in own], owners=owners)


def _num_laws(asked: Scored) -> int:
    """How many laws a question is answered from, its rows padded."""
    return len(asked.rows) * max(len(tokens) for tokens, _ in asked.rows)


def log_joints(
    asked: Sequence[Learnable], model: Trainable, opened: OpenPrompts
) -> list[torch.Tensor]:
    """(N,) float64 Σ of each one's entries, with gradients. Nats.

    model: the one that is learned. opened: the prompts, run with gradients. What several score in
    the same turn goes through the model together.
    """
    # first: a pass without the adapter, on weights that are shared, would take its gradients away
    constants = [scored for one in asked for scored in one.constants]
    answers = [torch.as_tensor(answer, device=model.device) for answer in ask(constants)]
    fixed = dict(zip(map(id, constants), answers, strict=True))
    found: list[list[torch.Tensor]] = [[] for _ in asked]
    for turn in range(max((len(one.pieces) for one in asked), default=0)):
        now = [(i, one.pieces[turn]) for i, one in enumerate(asked) if turn < len(one.pieces)]
        behind = [Rows(piece.prompt, *zip(*piece.rows, strict=True)) for _, piece in now]
        for (i, _), rows, logits in zip(now, behind, opened.laws(behind), strict=True):
            found[i].append(summed(logits, rows).double())
    return [_folded(one, scores, fixed, model) for one, scores in zip(asked, found, strict=True)]


def _folded(
    one: Learnable,
    scores: Sequence[torch.Tensor],
    fixed: Mapping[int, torch.Tensor],
    model: Trainable,
) -> torch.Tensor:
    """(N,) the sum of entries, of scores with gradients and of constants."""
    total = torch.zeros(one.count, dtype=torch.float64, device=model.device)
    following, answers = iter(scores), dict(fixed)
    for asked in one.learned:
        kept = one.kept[id(asked)]
        placed = total.new_zeros(len(asked.rows))  # 0 where no token is scored
        if kept:
            index = torch.tensor(kept, device=model.device)
            placed = placed.index_copy(0, index, next(following))
        answers[id(asked)] = placed
    for entry in one.entries:
        total = total + entry.fold([answers[id(scored)] for scored in entry.scored], TENSORS)
    return total
