"""What prompts and streams need of the model that owns them: passes, counted, and the laws that
logits mean.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from lmppl import ir
from lmppl.lm.protocol import Cost
from lmppl.lm.transformers.cache import EmptyCache


class Network(Protocol):
    """A causal network whose passes are counted. Knows token ids, no texts."""

    name: str  # in findings
    model: PreTrainedModel
    device: torch.device
    cost: Cost
    empty: EmptyCache
    vocabulary_size: int
    window: int  # tokens of the longest sequence
    ends: tuple[int, ...]
    end: int  # the first of them stands for every token that ends a text
    local_law: ir.LocalLaw | None  # what becomes of its laws; None where nothing does
    pads: bool  # whether rows of unequal length may be padded in front

    @property
    def most_logits(self) -> int:
        """Numbers in the logits of one pass."""
        ...

    def run(self, **arguments: Any) -> Any:
        """One pass of the network, counted."""
        ...

    def run_step(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step of static shapes, counted: logits, and the keys and values of the new tokens."""
        ...

    def log_law(self, logits: torch.Tensor) -> torch.Tensor:
        """Log probabilities of logits (…, V) in nats, with all end tokens as one."""
        ...
