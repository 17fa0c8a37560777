"""The M-step: an adapter of one model, fitted to weighted draws of the latents by maximum
likelihood.

What is made larger is Σ over rows of E[log p(z, y)], the expectation under the E-step's draws; only
terms of the model that is learned depend on its weights. Where the expectation is exact, its
gradient at the weights of the E-step is that of the log evidence (Fisher's identity; Dempster,
Laird and Rubin 1977). Knows targets and adapters, no engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmppl import ir
from lmppl.decoding import Purpose, Randomness
from lmppl.density import BoundTerm, Floats, State, Target
from lmppl.em.cases import Case
from lmppl.engines import resample
from lmppl.errors import LmpplError, error
from lmppl.lm import Row, Tokens
from lmppl.lm.transformers import (
    OPEN_TOKENS,
    Adapter,
    HuggingFaceModel,
    OpenPrompts,
    Rows,
    laws_with_gradient,
    num_own_tokens,
    open_prompts,
    summed,
    together,
)
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


@dataclass(frozen=True)
class Piece:
    """Texts that a model scores behind one prompt. options: rows a state, of which `chosen` (N,)
    are what it says.
    """

    prompt: Tokens
    rows: Sequence[Row]  # (R,), R = N · options
    owners: Sequence[int]  # (R / options,) the state that a row, or a group of options, belongs to
    options: int = 1
    chosen: Sequence[int] = ()


@dataclass(frozen=True)
class Scored:
    """All that a model scores of a row's states, and their weights."""

    pieces: Sequence[Piece]
    count: int
    weights: Floats  # (count,)

    @property
    def num_laws(self) -> int:
        """How many laws `log_joints` has at most at a time."""
        sizes = [
            len(piece.rows) * max(len(tokens) for tokens, _ in piece.rows) for piece in self.pieces
        ]
        return max(sizes, default=0)


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
        scored = [_scored(case, name) for case in some]
        tokens = [
            num_own_tokens(adapter.model, (piece.prompt for piece in one.pieces)) for one in scored
        ]
        loss = sum(
            _learn(group, adapter.model, len(chosen))
            for group in together(scored, tokens, OPEN_TOKENS)
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


def _scored(case: Case, name: str) -> Scored:
    found = [piece for piece in pieces(case.target, case.states, name) if piece.rows]
    return Scored(found, len(case.states), case.weights)


def _learn(rows: Sequence[Scored], model: HuggingFaceModel, num_rows: int) -> float:
    """Leave the gradients of some rows at the adapter's weights; their loss, −Σ E[log p] / rows of
    the step.
    """
    model.forget_prompts()
    opened = open_prompts(model, [piece.prompt for row in rows for piece in row.pieces])
    most, total = model.most_logits // model.vocabulary_size, 0.0
    for some in together(rows, [row.num_laws for row in rows], most):
        joints = log_joints(some, model, opened)
        weights = [
            torch.as_tensor(row.weights, device=joint.device)
            for row, joint in zip(some, joints, strict=True)
        ]
        loss = -torch.cat(weights).dot(torch.cat(joints)) / num_rows
        if loss.requires_grad:
            loss.backward()
        total += float(loss.detach())
    opened.backward()
    return total


def log_joints(
    rows: Sequence[Scored], model: HuggingFaceModel, opened: OpenPrompts
) -> list[torch.Tensor]:
    """Of every row, (N,) float64 log density of its states, as far as a model has a part in it,
    with gradients. Nats.

    model: what scores in its place. opened: the prompts, run with gradients. What rows score in the
    same turn goes through the model together.
    """
    totals = [torch.zeros(row.count, dtype=torch.float64, device=model.device) for row in rows]
    for turn in range(max((len(row.pieces) for row in rows), default=0)):
        asked = [(i, row.pieces[turn]) for i, row in enumerate(rows) if turn < len(row.pieces)]
        behind = [Rows(opened[piece.prompt], *zip(*piece.rows, strict=True)) for _, piece in asked]
        laws = laws_with_gradient(model, behind)
        for (i, piece), own, logits in zip(asked, behind, laws, strict=True):
            scores = summed(logits, own, model.ends).double()
            if piece.options > 1:
                law = torch.log_softmax(scores.view(-1, piece.options), -1)
                scores = law.gather(1, torch.tensor(piece.chosen, device=law.device)[:, None])[:, 0]
            totals[i] = totals[i].index_add(
                0, torch.tensor(piece.owners, device=scores.device), scores
            )
    return totals


# --- what a model scores --------------------------------------------------------------------------


def pieces(target: Target, states: Sequence[State], name: str) -> Iterator[Piece]:
    """Everything that the model `name` scores in the density of states: priors of latents, and
    observations.
    """
    for latent in target.program.latents:
        if isinstance(latent, ir.ChoiceLatent):
            if latent.term.model == name:
                yield _choice(target, states, latent.name)
        elif latent.terms[0].model == name:
            yield _text(target, states, latent.name)
    for factor in target.program.factors:
        if isinstance(factor, ir.Observation) and factor.terms[0].model == name:
            bound = target.observation(factor.name)
            yield _piece(
                target,
                states,
                bound.terms[0],
                [(i, (bound.tokens[0], 0)) for i in range(len(states))],
            )


def _text(target: Target, states: Sequence[State], name: str) -> Piece:
    bound = target.text_latent(name)
    values = [target.tokens(name, {**target.observed, **state}[name]) for state in states]
    parts = [(i, part) for i, value in enumerate(values) for part in bound.stopping.parts(value)]
    return _piece(target, states, bound.terms[0], parts)


def _choice(target: Target, states: Sequence[State], name: str) -> Piece:
    bound = target.choice_latent(name)
    options = [(i, (option, 0)) for i in range(len(states)) for option in bound.options]
    piece = _piece(target, states, bound.term, options)
    chosen = [{**target.observed, **state}[name] for state in states]
    assert all(isinstance(value, int) for value in chosen)
    return Piece(piece.prompt, piece.rows, range(len(states)), len(bound.options), chosen)  # type: ignore[arg-type]


def _piece(
    target: Target, states: Sequence[State], term: BoundTerm, scored: Sequence[tuple[int, Row]]
) -> Piece:
    """Scored tokens of states, (state, (tokens, how many of them are not scored)), behind a term's
    context.
    """
    suffixes = target.suffixes(term, states)
    scored = [(i, (tokens, start)) for i, (tokens, start) in scored if len(tokens) > start]
    rows = [(suffixes[i] + tokens, len(suffixes[i]) + start) for i, (tokens, start) in scored]
    return Piece(term.context.prompt, rows, [i for i, _ in scored])
