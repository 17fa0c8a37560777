"""What a learning engine is told: options that all share, and the recipe that an engine makes of
its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lmppl.engines.amortised.objectives import Shape
from lmppl.settings import Count, PartShare, Positive, Size, SomeShare, Whole


@dataclass(frozen=True)
class Common:
    """Options of every learning engine."""

    steps: Count = 200  # optimiser steps
    draws: Size = 16  # of each row, a step
    rows: Size = 4  # data rows a step
    learning_rate: SomeShare = 1e-3  # after a short warm-up; goes down to 0
    rank: Size = 16  # of the adapter
    alpha: Size = 32  # the adapter's scale is alpha / rank
    targets: str = "all-linear"  # layers that are adapted, by name
    clip_gradient: Positive = 1.0  # largest norm of a gradient
    held_out: PartShare = 0.0  # share of the rows that are not trained on, to stop early
    patience: Count = 4  # looks at held-out rows without progress before training stops
    look_every: Count = 25  # steps between looks at held-out rows
    save_every: Count = 25  # steps between checkpoints
    micro_batch: Whole = 0  # draws in one pass with gradients; 0: all, halved where memory runs out
    start_from: str = ""  # a folder whose adapter is where training begins
    tracker: str = ""  # tensorboard, or another that Accelerate knows
    weighted: bool = True  # false: draws of equal mass, as they come from the policy


@dataclass(frozen=True)
class Recipe:
    """How to learn. Shares are of the draws of a step; what is left is drawn from the policy
    itself.
    """

    objective: str = "vargrad"  # a name of objectives.OBJECTIVES
    shape: Shape = field(default_factory=Shape)
    prefixes: int = 0  # of each draw that `subtb` looks at, others every step; 0: all
    tempered: float = 0.0  # share drawn at `temperature`
    temperature: float = 1.5
    min_p: float = 0.0  # hot draws leave out tokens less probable than this times the likeliest
    hurry: bool = True  # every other one of them in a hurry to end
    replay: float = 0.0  # share taken from the buffer
    buffer: int = 64  # states kept a row
    buffer_by: str = "uniform"  # uniform, reward or recency
    epochs: int = 1  # passes over the draws of a step
    imitation: int = 0  # first steps that learn the buffer's seeds by maximum likelihood
    first_beta: float = 1.0  # where log γ_β begins
    steady: float = 4.0  # nats²: variance of log γ − log q below which β goes up
    first_epsilon: float = -6.0  # log ε at the first step …
    last_epsilon: float = -14.0  # … and at the last

    def imitates(self, step: int) -> bool:
        """Whether a step learns from given states and draws none."""
        return step < self.imitation or self.objective == "sft"

    def log_epsilon(self, step: int, steps: int) -> float:
        """log ε of one of so many steps: down in even steps."""
        return self.first_epsilon + step / max(1, steps - 1) * (
            self.last_epsilon - self.first_epsilon
        )


DRAWING = ("weighted",)  # options that say how to draw, and leave training as it is
