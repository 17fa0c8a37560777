"""What changes while a policy is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from lmppl.density import Target
from lmppl.engines.amortised.buffer import Buffer
from lmppl.engines.amortised.policy import Policy
from lmppl.engines.amortised.reward import Rewarded

Row = tuple[int, Target]  # (number in the data, its target)


@dataclass
class Learner:
    """All that changes while a policy is trained."""

    policy: Policy
    optimiser: torch.optim.Optimizer
    log_evidence: torch.nn.Parameter  # (rows,) NaN until a row was seen; used by `tb`
    buffer: Buffer
    seeds: dict[int, Rewarded] = field(default_factory=dict)  # given states, by row number
    step: int = 0
    beta: float = 1.0
    best: float = np.inf  # least variance of held-out rows …
    best_weights: dict[str, torch.Tensor] = field(
        default_factory=dict
    )  # … and the adapter's then; none before a look
    idle: int = 0  # looks without progress
    # tokens that the policy's model has decoded and scored until the last checkpoint, in all runs
    spent: int = 0
    cost: dict[str, float] = field(
        default_factory=dict
    )  # of training until the last checkpoint, in all runs
    finished: bool = False

    @contextmanager
    def at_best(self) -> Iterator[None]:
        """Within it, the policy is the best that held-out rows have seen; where none are held out,
        the last.
        """
        last = self.policy.adapter.weights()
        self.policy.adapter.put(self.best_weights)
        try:
            yield
        finally:
            self.policy.adapter.put(last)


def tokens_of(learner: Learner) -> int:
    """What the policy's model has decoded and scored in this process."""
    cost = learner.policy.adapter.base.cost
    return cost.tokens_decoded + cost.tokens_scored
