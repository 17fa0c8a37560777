"""From what rows' draws are worth to gradients of the loss at the policy's parameters.

Draws of several rows go through the model together. Where one row's are too many for a pass it is
cut: gradients of log q come first, then pass by pass the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from lmppl.density import Target
from lmppl.engines.amortised.learner import Learner, Row
from lmppl.engines.amortised.objectives import OBJECTIVES, Batch
from lmppl.engines.amortised.policy import Decisions, Wanted
from lmppl.engines.amortised.recipe import Recipe
from lmppl.engines.amortised.training_draws import Experience, stopping_text
from lmppl.lm import OpenPrompts, together


@dataclass(frozen=True)
class Opened:
    """Some rows in the midst of a step: their prompts, run with gradients, and what was drawn for
    them, by number.
    """

    prompts: OpenPrompts
    seen: Mapping[int, Experience]

    def wanted(self, row: Row) -> Wanted:
        """What of the policy a row's loss asks for."""
        number, target = row
        seen = self.seen[number]
        if seen.prefix_reward is None:
            return Wanted(target, seen.rewarded.states)
        end = target.text_latent(stopping_text(target)).stopping.end
        return Wanted(target, seen.rewarded.states, end if seen.closer is None else seen.closer)


@dataclass(frozen=True)
class Gradients:
    """How rows' draws become gradients. numbers: of all rows, in the order of log evidences; steps:
    of all training.

    micro_batch: most draws in one pass; 0: all, and half as many whenever memory runs out.
    """

    recipe: Recipe
    numbers: Sequence[int]
    steps: int
    micro_batch: int

    def leave(
        self, learner: Learner, rows: Sequence[Row], opened: Opened, share: float
    ) -> list[float]:
        """Add a share of each row's gradients to those at the parameters and open prompts. Returns
        their losses.
        """
        losses = []
        for some in self._passes(learner, rows, opened):
            most = max(len(opened.seen[number].rewarded.states) for number, _ in some)
            losses += self._leave(learner, some, opened, share, min(self.micro_batch or most, most))
        return losses

    def _passes(self, learner: Learner, rows: Sequence[Row], opened: Opened) -> Iterator[list[Row]]:
        """Rows whose draws go through the model together: as many as a batch takes and the logits
        have room for.
        """
        model = learner.policy.adapter.model
        sizes = []
        for row in rows:
            wanted = opened.wanted(row)
            draws = len(wanted.states) / (self.micro_batch or row[1].batch_size)
            numbers = learner.policy.num_laws(wanted) * model.vocabulary_size
            laws = numbers / model.most_logits
            sizes.append(max(draws, laws))
        return together(rows, sizes, 1.0)

    def _leave(
        self, learner: Learner, rows: Sequence[Row], opened: Opened, share: float, size: int
    ) -> list[float]:
        """As `leave`, from one pass; from smaller ones where memory runs out. size: most draws of a
        row in one.
        """
        learned = [*learner.policy.adapter.parameters.values(), learner.log_evidence]
        learned += opened.prompts.leaves  # other rows may have left some there
        before = [None if value.grad is None else value.grad.clone() for value in learned]
        try:
            return self._backward(learner, rows, opened, share, size)
        except torch.OutOfMemoryError:
            if len(rows) == 1 and size == 1:
                raise
        for value, gradient in zip(learned, before, strict=True):  # of the pass that was cut short
            value.grad = gradient
        if len(rows) == 1:
            return self._leave(learner, rows, opened, share, -(-size // 2))
        half = len(rows) // 2
        parts = [
            self._leave(learner, some, opened, share, size) for some in (rows[:half], rows[half:])
        ]
        return [loss for part in parts for loss in part]

    def _backward(
        self, learner: Learner, rows: Sequence[Row], opened: Opened, share: float, size: int
    ) -> list[float]:
        wanted = [opened.wanted(row) for row in rows]
        if len(rows) == 1 and len(wanted[0].states) > size:
            return [self._in_parts(learner, rows[0], opened, share, size)]
        found = learner.policy.decisions(wanted, opened.prompts)
        losses = [
            self._loss(learner, row, opened.seen[row[0]], own) for row,
            own in zip(rows, found, strict=True)
        ]  # fmt: skip
        (share * torch.stack(losses).sum()).backward()
        return [float(loss.detach()) for loss in losses]

    def _in_parts(
        self, learner: Learner, row: Row, opened: Opened, share: float, size: int
    ) -> float:
        """The loss of one row whose draws are cut into parts."""
        wanted = opened.wanted(row)
        count = len(wanted.states)
        parts = [list(range(i, min(i + size, count))) for i in range(0, count, size)]

        def decisions(part: Sequence[int]) -> Decisions:
            some = replace(wanted, states=[wanted.states[i] for i in part])
            return learner.policy.decisions([some], opened.prompts)[0]

        with torch.no_grad():
            whole = _side_by_side([decisions(part) for part in parts])
        stop = None if whole.log_stop is None else whole.log_stop.requires_grad_()
        leaves = Decisions(whole.log_q.requires_grad_(), stop)
        loss = self._loss(learner, row, opened.seen[row[0]], leaves)
        (share * loss).backward()
        for part in parts:
            own = decisions(part)
            pairs = [(own.log_q, leaves.log_q), (own.log_stop, leaves.log_stop)]
            known = [(x, leaf.grad[part][:, : x.shape[1]]) for x, leaf in pairs
                     if x is not None and leaf is not None and leaf.grad is not None]  # fmt: skip
            torch.autograd.backward([x for x, _ in known], [gradient for _, gradient in known])
        return float(loss.detach())

    def _loss(self, learner: Learner, row: Row, seen: Experience, found: Decisions) -> torch.Tensor:
        number, target = row
        log_q = found.log_q.double()
        device = log_q.device
        beta, epsilon = learner.beta, self.recipe.log_epsilon(learner.step, self.steps)
        reward = torch.as_tensor(seen.rewarded.log_reward(beta, epsilon), device=device)
        batch = Batch(reward, log_q, torch.as_tensor(seen.log_q, device=device))
        if self.recipe.imitates(learner.step):
            return OBJECTIVES["sft"](batch, self.recipe.shape)
        if self.recipe.objective == "tb":
            place = self.numbers.index(number)
            if torch.isnan(learner.log_evidence.data[place]):
                learner.log_evidence.data[place] = float((reward - batch.drawn_log_q).nanmean())
            batch = replace(batch, log_evidence=learner.log_evidence[place])
        if seen.log_reference is not None:
            batch = replace(batch, log_reference=torch.as_tensor(seen.log_reference, device=device))
        if seen.prefix_reward is not None:
            batch = _with_prefixes(batch, target, seen, found)
        return OBJECTIVES[self.recipe.objective](batch, self.recipe.shape)


def _with_prefixes(batch: Batch, target: Target, seen: Experience, found: Decisions) -> Batch:
    """A batch with flows at every prefix, all as wide as the longest text and its end."""
    assert seen.prefix_reward is not None
    assert found.log_stop is not None
    name = stopping_text(target)
    lengths = [len(target.tokens(name, state[name])) for state in seen.rewarded.states]
    width = max(lengths)
    tokens = torch.nn.functional.pad(found.log_q, (0, max(0, width - found.log_q.shape[1])))[
        :, :width
    ].double()
    within = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    tokens = tokens * within.to(tokens.device)
    log_stop = torch.nn.functional.pad(
        found.log_stop, (0, max(0, width + 1 - found.log_stop.shape[1]))
    )
    reward = torch.as_tensor(seen.prefix_reward[:, : width + 1], device=tokens.device)
    return replace(
        batch, prefix_reward=reward, log_stop=log_stop[:, : width + 1].double(), prefix_log_q=tokens
    )


def _side_by_side(parts: Sequence[Decisions]) -> Decisions:
    """Decisions of several parts as one, padded with 0 to the widest."""

    def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        width = max(tensor.shape[1] for tensor in tensors)
        return torch.cat(
            [torch.nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors]
        )

    stops = [part.log_stop for part in parts if part.log_stop is not None]
    return Decisions(stacked([part.log_q for part in parts]), stacked(stops) if stops else None)
