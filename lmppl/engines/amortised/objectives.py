"""Losses over one structure: N draws of one row, what the program says of them, and log q with
gradients.

All act on sums over decisions, in nats. At the minimum of `vargrad`, `tb` and `subtb`, 0, q is the
posterior; `ppo` and `sft` are the baselines of Hu et al. (2024). Knows tensors only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Batch:
    """N draws of one row."""

    log_reward: torch.Tensor  # (N,) log γ of the whole draw
    log_q: torch.Tensor  # (N, S) of every decision, with gradients, 0 where there is none
    drawn_log_q: torch.Tensor  # (N,) of the whole draw when it was drawn
    log_evidence: torch.Tensor | None = None  # (), learned: for `tb`
    # (N,) of the whole draw, without the adapter: for `ppo`
    log_reference: torch.Tensor | None = None
    # (N, T + 1) log γ stopped at each prefix, -inf where it cannot
    prefix_reward: torch.Tensor | None = None
    log_stop: torch.Tensor | None = None  # (N, T + 1) log q of stopping there, with gradients
    prefix_log_q: torch.Tensor | None = None  # (N, T) of the text's tokens alone, with gradients


@dataclass(frozen=True)
class Shape:
    """Numbers that losses are given besides draws."""

    huber: float = 5.0  # nats: residuals beyond it count linearly
    decay: float = 1.0  # λ of `subtb`
    clip: float = 0.2  # of the ratio, for `ppo`
    penalty: float = 0.1  # on the divergence from the model without adapter, for `ppo`


Loss = Callable[[Batch, Shape], torch.Tensor]


def vargrad(batch: Batch, shape: Shape) -> torch.Tensor:
    """Mean square of log γ − log q around its mean over the row's draws (Richter et al. 2020)."""
    residual = batch.log_reward - batch.log_q.sum(1)
    return _huber(residual - residual.mean(), shape.huber).mean()


def tb(batch: Batch, shape: Shape) -> torch.Tensor:
    """Trajectory balance with a learned log evidence a row (Malkin et al. 2022)."""
    assert batch.log_evidence is not None
    return _huber(batch.log_evidence + batch.log_q.sum(1) - batch.log_reward, shape.huber).mean()


def subtb(batch: Batch, shape: Shape) -> torch.Tensor:
    """Subtrajectory balance with the stop's flow (Madan et al. 2023; Hu et al. 2024, eq. 3).

    D_t = log γ(z_1:t ⊤) − log q(⊤ | z_1:t) − Σ_{s ≤ t} log q(z_s) is the log flow of the root,
    whatever t is, once q is right. Prefixes that cannot stop are left out; the whole draw's
    residual is one more, and its mean over the draws stands for the root.
    """
    assert batch.prefix_reward is not None
    assert batch.log_stop is not None
    assert batch.prefix_log_q is not None
    before = torch.nn.functional.pad(batch.prefix_log_q.cumsum(1), (1, 0))  # (N, T + 1)
    valid = torch.isfinite(batch.prefix_reward) & torch.isfinite(batch.log_stop)
    flow = (
        torch.where(valid, batch.prefix_reward, 0.0)
        - torch.where(valid, batch.log_stop, 0.0)
        - before
    )
    whole = batch.log_reward - batch.log_q.sum(1)
    flow = torch.cat([flow, whole[:, None], whole.mean().expand(len(whole), 1)], 1)  # (N, T + 3)
    valid = torch.nn.functional.pad(valid, (0, 2), value=True)
    place = valid.cumsum(1)  # pairs are as far apart as there are stops between them
    weight = shape.decay ** (place[:, None, :] - place[:, :, None] - 1).clamp(min=0)
    pairs = (valid[:, :, None] & valid[:, None, :]).triu(1) * weight
    square = _huber(flow[:, None, :] - flow[:, :, None], shape.huber)
    return ((pairs * square).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).mean()


def ppo(batch: Batch, shape: Shape) -> torch.Tensor:
    """Clipped policy gradient on log γ, penalised by the divergence from the model (Schulman et al.
    2017).
    """
    assert batch.log_reference is not None
    reward = batch.log_reward - shape.penalty * (batch.drawn_log_q - batch.log_reference)
    advantage = (reward - reward.mean()) / (reward.std() + 1e-6)
    ratio = (batch.log_q.sum(1) - batch.drawn_log_q).exp()
    clipped = ratio.clamp(1 - shape.clip, 1 + shape.clip)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def sft(batch: Batch, shape: Shape) -> torch.Tensor:
    """Negative log likelihood of given draws."""
    return -batch.log_q.sum(1).mean()


OBJECTIVES: dict[str, Loss] = {"vargrad": vargrad, "tb": tb, "subtb": subtb, "ppo": ppo, "sft": sft}


def _huber(residual: torch.Tensor, width: float) -> torch.Tensor:
    """residual² up to the width, then linear with the same slope."""
    size = residual.abs()
    return torch.where(size <= width, residual**2, width * (2 * size - width))
