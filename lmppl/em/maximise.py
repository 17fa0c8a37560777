"""The M-step: an adapter of one model, fitted to weighted draws of the latents by maximum
likelihood.

What is made larger is Σ over rows of E[log p(z, y)], the expectation under the E-step's draws; only
terms of the model that is learned depend on its weights. Where the expectation is exact, its
gradient at the weights of the E-step is that of the log evidence (Fisher's identity; Dempster,
Laird and Rubin 1977). Knows targets and adapters, no engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmppl.decoding import Purpose, Randomness
from lmppl.density import Floats, Learnable, log_joints
from lmppl.em.cases import Case
from lmppl.engines import resample
from lmppl.errors import LmpplError, error
from lmppl.lm import OPEN_TOKENS, Adapter, Trainable, together
from lmppl.settings import Count, Positive, Size, SomeShare

WARM = 5  # steps in which the learning rate goes up


@dataclass(frozen=True)
class Fit:
    """How to maximise. The defaults suit a small model and few rows."""

    steps: Count = 50  # optimiser steps a round
    rows: Size = 4  # data rows a step
    draws: Size = 8  # of each row, a step
    learning_rate: SomeShare = 3e-4  # after a short warm-up; goes down to 0
    rank: Size = 16  # of the adapter
    alpha: Size = 32  # the adapter's scale is alpha / rank
    targets: str = "all-linear"  # layers that are adapted, by name
    clip_gradient: Positive = 1.0  # largest norm of a gradient


def maximise(
    cases: Sequence[Case],
    name: str,
    adapter: Adapter,
    fit: Fit,
    seed: int,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Fit the adapter of the model that the program calls `name`. Raises LmpplError where the loss
    is no number.
    """
    parameters = list(adapter.parameters.values())
    optimiser = torch.optim.AdamW(parameters, lr=fit.learning_rate, weight_decay=0.0, foreach=False)
    for step in range(fit.steps):
        optimiser.zero_grad()
        chosen = _chosen(len(cases), fit.rows, seed, step)
        some = [_some(cases[i], fit.draws, seed, i, step) for i in chosen]
        asked = [(learnable(case, name), case.weights) for case in some]
        tokens = [_num_open_tokens(one, adapter.model) for one, _ in asked]
        loss = sum(
            _learn(group, adapter.model, len(chosen))
            for group in together(asked, tokens, OPEN_TOKENS)
        )
        norm = torch.nn.utils.clip_grad_norm_(parameters, fit.clip_gradient)
        if not (np.isfinite(loss) and bool(norm.isfinite())):
            message = f"the loss of step {step + 1} of maximisation is no number"
            raise LmpplError(
                error("diverged", message, found=f"{loss}", help="take a lower learning rate")
            )
        for group in optimiser.param_groups:
            group["lr"] = fit.learning_rate * _rate(step, fit.steps)
        optimiser.step()
        progress(step + 1, loss)
    adapter.model.forget_prompts()


def _num_open_tokens(asked: Learnable, model: Trainable) -> int:
    return model.num_open_tokens(piece.prompt for piece in asked.pieces)


def _rate(step: int, steps: int) -> float:
    warm = min(WARM, max(1, steps // 5))
    return (
        (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm)) ** 0.5
    )


def _chosen(count: int, most: int, seed: int, step: int) -> list[int]:
    """Rows of a step; they come in a new order every time round."""
    size = min(most, count)
    orders = {
        turn: np.argsort(Randomness(seed, 0).uniforms(0, turn, Purpose.ROW_ORDER, count))
        for turn in range(step * size // count, ((step + 1) * size - 1) // count + 1)
    }
    return [int(orders[i // count][i % count]) for i in range(step * size, (step + 1) * size)]


def _some(case: Case, count: int, seed: int, number: int, step: int) -> Case:
    """At most `count` states, drawn systematically by weight, so that the gradient's expectation
    stays the same.
    """
    if len(case.states) <= count:
        return case
    with np.errstate(divide="ignore"):
        log_weights = np.log(case.weights)
    kept = resample(
        log_weights, count, Randomness(seed, number).uniforms(0, step, Purpose.ROW_DRAWS, 1)[0]
    )
    states, counts = np.unique(kept, return_counts=True)
    return Case(case.target, [case.states[i] for i in states], counts / count)


def _learn(asked: Sequence[tuple[Learnable, Floats]], model: Trainable, num_rows: int) -> float:
    """Leave the gradients of some rows at the adapter's weights; their loss, −Σ E[log p] / rows of
    the step.

    asked: of each row its states, and their weights (N,).
    """
    model.forget_prompts()
    opened = model.open_prompts([piece.prompt for one, _ in asked for piece in one.pieces])
    most, total = model.most_logits // model.vocabulary_size, 0.0
    for some in together(asked, [one.num_laws for one, _ in asked], most):
        joints = log_joints([one for one, _ in some], model, opened)
        weights = [
            torch.as_tensor(own, device=joint.device)
            for (_, own), joint in zip(some, joints, strict=True)
        ]
        loss = -torch.cat(weights).dot(torch.cat(joints)) / num_rows
        if loss.requires_grad:
            loss.backward()
        total += float(loss.detach())
    opened.backward()
    return total


# --- what a model scores --------------------------------------------------------------------------


def learnable(case: Case, name: str) -> Learnable:
    """All of the density of a row's states in which the model `name` has a part."""
    target, views = case.target, case.target.spelling.views(case.states)
    entries, learned = [], []
    for part in (*target.program.latents, *target.program.scored_texts):
        own = [i for i, term in enumerate(part.terms) if term.model == name]
        if own:
            entry = target.entry(part.name, views)
            entries.append(entry)
            learned += [entry.scored[i] for i in own]
    return Learnable(entries, len(views), learned)
