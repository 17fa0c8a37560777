"""What a local law makes of next-token laws: a temperature, and a least score that tokens must
have.

Every truncation keeps the tokens down to some score, so that those of one score are kept together.
Which these are is a constant: gradients go through the scores of what is left. The order, and what
is kept, are those of transformers' logits processors.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Self

import torch

from lmppl import ir
from lmppl.lm.capabilities import Capabilities, capabilities_under
from lmppl.lm.protocol import LanguageModel

FEW = 256  # likeliest tokens that are sorted first: mostly they hold what is looked for


class UnderLaw:
    """What a model with whole laws has, to be asked for what a local law makes of them."""

    capabilities: Capabilities
    local_law: ir.LocalLaw | None = None
    _root: Self | None = None

    @property
    def root(self) -> Self:
        """What it shares weights and passes with: itself where it is under no local law."""
        return self._root or self

    def under(self, law: ir.LocalLaw | None) -> Self:
        """See Decoder. What a pass gives is the same, and so are prompts and steps."""
        if law == self.local_law:
            return self
        other = copy(self)
        other._root, other.local_law = self.root, law
        other.capabilities = capabilities_under(self.root.capabilities, law)
        return other


def untruncated(model: LanguageModel) -> LanguageModel:
    """A model under its own local law, but that it keeps all tokens."""
    law = model.local_law
    return model if law is None or not law.truncates else model.under(law.untruncated)


def shaped(scores: torch.Tensor, law: ir.LocalLaw) -> torch.Tensor:
    """Logits or log probabilities (…, V) as the law leaves them, not normalised: −inf for tokens
    that it cuts away. float32 or finer.
    """
    scores = scores / law.temperature if law.temperature != 1 else scores
    if not law.truncates:
        return scores
    return scores.masked_fill(scores < _least(scores.detach(), law), -torch.inf)


def _least(scores: torch.Tensor, law: ir.LocalLaw) -> torch.Tensor:
    """(…, 1) the lowest score that is kept."""
    least = scores.new_full((*scores.shape[:-1], 1), -torch.inf)
    if law.top_k < scores.shape[-1]:
        least = scores.topk(law.top_k).values[..., -1:]
    if law.top_p < 1:
        left = scores.masked_fill(scores < least, -torch.inf)
        least = torch.maximum(least, _last_inside(left, law.top_p))
    if law.min_p > 0:
        least = torch.maximum(least, scores.amax(-1, keepdim=True) + math.log(law.min_p))
    return least


def _last_inside(scores: torch.Tensor, top_p: float) -> torch.Tensor:
    """(…, 1) the score of the token with which the likeliest ones come to hold top_p."""
    total, size, count = torch.logsumexp(scores, -1, keepdim=True), scores.shape[-1], FEW
    while True:
        likeliest = scores.topk(min(count, size)).values  # the highest first
        mass = (likeliest - total).double().exp()
        inside = mass.cumsum(-1) - mass < top_p  # of those before it
        if count >= size or not bool(inside[..., -1].any()):
            return likeliest.gather(-1, inside.sum(-1, keepdim=True) - 1)
        count *= 8
