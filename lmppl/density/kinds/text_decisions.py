"""Log q of the tokens of texts from a model's logits, with gradients, as a rollout draws them.

Tokens that cannot come next are left out of the law, and where a tool writes, it is a point mass.
Knows token ids, how texts stop and which masks they have.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmppl.decoding import FREE, Masks, Stopping, possible_law
from lmppl.lm import Tokens, padded


def text_decisions(
    stopping: Stopping,
    masks: Masks | None,
    texts: Sequence[Tokens],
    logits: torch.Tensor,
    closer: int | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(N, S) log q of every scored position of N texts, 0 behind the last, and (N, S + 1) of the
    token `closer` at every prefix; None where there is none.

    logits: (N, S, V) before each scored token.
    """
    scored = [stopping.scored(tokens) for tokens in texts]
    logits = _masked(stopping, masks, scored, logits)
    total = torch.logsumexp(logits, -1)
    index, real = padded(scored, logits.shape[1])
    due = torch.full_like(index, FREE)
    for row, tokens in zip(due, texts, strict=True):
        settled = stopping.due_when_scored(tokens)
        row[: len(settled)] = torch.from_numpy(settled)
    index, real, due = (part.to(logits.device) for part in (index, real, due))
    scores = _settled(_at(logits, index) - total, due, index).masked_fill(~real, 0.0)
    if closer is None:
        return scores, None
    closing = torch.full_like(index, closer)
    stop = _settled(_at(logits, closing) - total, due, closing).masked_fill(~real, 0.0)
    # a text that is cut or closed needs no end token
    return scores, torch.nn.functional.pad(stop, (0, 1))


def _at(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Logits (…, V) at tokens (…,)."""
    return logits.gather(-1, index[..., None])[..., 0]


def _settled(scores: torch.Tensor, due: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log q of tokens (N, S), with no gradient where a tool writes, and a point mass there on what
    is due.
    """
    certain = torch.where(due == tokens, 0.0, -torch.inf).to(scores.dtype)
    return torch.where(due == FREE, scores, certain)


def _masked(
    stopping: Stopping, masks: Masks | None, scored: Sequence[Tokens], logits: torch.Tensor
) -> torch.Tensor:
    """Logits (N, S, V) without the tokens that cannot come next, as a rollout leaves them out."""
    allowed = None if masks is None else _allowed(masks, scored, logits.shape).flatten(0, 1)
    return possible_law(logits.flatten(0, 1), stopping, allowed).view(logits.shape)


def _allowed(masks: Masks, scored: Sequence[Tokens], shape: Sequence[int]) -> torch.Tensor:
    """(N, S, V) which tokens the constraints leave open before each scored token."""
    allowed = torch.ones(tuple(shape), dtype=torch.bool)
    for row, tokens in zip(allowed, scored, strict=True):
        row[: len(tokens)] = masks.along(tokens)
    return allowed
