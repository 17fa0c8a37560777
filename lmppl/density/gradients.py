"""What models are asked for a density, with gradients for one of them: the third way to ask.

The model that is learned runs its rows behind prompts that are opened with gradients (lm/training);
other models, whose weights stay as they are, are asked as ever. Rows of several targets go through
the learned model side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lmppl.density.folding import TENSORS
from lmppl.density.scoring import Entry, Scored, ask
from lmppl.lm.transformers import HuggingFaceModel, OpenPrompts, Rows, laws_with_gradient, summed


@dataclass(frozen=True)
class Learnable:
    """Entries of N states, and which of their questions are to the model that is learned."""

    entries: Sequence[Entry]
    count: int  # N
    learned: Sequence[Scored]  # of those in the entries; other questions are constants

    @property
    def pieces(self) -> list[Scored]:
        """What the learned model scores: rows of which no token is scored need no pass."""
        return [piece for piece in map(_with_tokens, self.learned) if piece.rows]

    @property
    def num_laws(self) -> int:
        """How many laws `log_joints` has at most at a time."""
        sizes = [len(p.rows) * max(len(tokens) for tokens, _ in p.rows) for p in self.pieces]
        return max(sizes, default=0)


def log_joints(
    asked: Sequence[Learnable], model: HuggingFaceModel, opened: OpenPrompts
) -> list[torch.Tensor]:
    """(N,) float64 Σ of each one's entries, with gradients. Nats.

    model: the one that is learned. opened: the prompts, run with gradients. What several score in
    the same turn goes through the model together.
    """
    found: list[dict[int, torch.Tensor]] = [{} for _ in asked]
    pieces = [[(id(s), _with_tokens(s)) for s in one.learned] for one in asked]
    pieces = [[(key, piece) for key, piece in some if piece.rows] for some in pieces]
    for turn in range(max(map(len, pieces), default=0)):
        now = [(i, *some[turn]) for i, some in enumerate(pieces) if turn < len(some)]
        behind = [Rows(opened[p.prompt], *zip(*p.rows, strict=True)) for *_, p in now]
        laws = laws_with_gradient(model, behind)
        for (i, key, _), rows, logits in zip(now, behind, laws, strict=True):
            found[i][key] = summed(logits, rows, model.ends).double()
    return [_folded(one, scores, model) for one, scores in zip(asked, found, strict=True)]


def _folded(
    one: Learnable, scores: dict[int, torch.Tensor], model: HuggingFaceModel
) -> torch.Tensor:
    """(N,) the sum of entries, of scores with gradients and of constants."""
    total = torch.zeros(one.count, dtype=torch.float64, device=model.device)
    own = {id(scored) for scored in one.learned}
    others = [s for entry in one.entries for s in entry.scored if id(s) not in own]
    fixed = dict(zip(map(id, others), ask(others), strict=True))
    for entry in one.entries:
        answers = [
            _placed(scored, scores.get(id(scored)), total)
            if id(scored) in own
            else torch.as_tensor(fixed[id(scored)], device=model.device)
            for scored in entry.scored
        ]
        total = total + entry.fold(answers, TENSORS)
    return total


def _with_tokens(scored: Scored) -> Scored:
    """Without the rows of which no token is scored."""
    kept = [i for i, (tokens, start) in enumerate(scored.rows) if len(tokens) > start]
    rows, owners = [scored.rows[i] for i in kept], [scored.owners[i] for i in kept]
    return replace(scored, rows=rows, owners=owners)


def _placed(scored: Scored, scores: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """(R,) scores in the places of their rows; 0 where no token is scored."""
    kept = [i for i, (tokens, start) in enumerate(scored.rows) if len(tokens) > start]
    if scores is None:
        return like.new_zeros(len(scored.rows))
    if len(kept) == len(scored.rows):
        return scores
    index = torch.tensor(kept, device=scores.device)
    return scores.new_zeros(len(scored.rows)).index_copy(0, index, scores)
