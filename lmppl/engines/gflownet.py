"""GFlowNet amortisation: the program's language model, with an adapter, trained to draw from the
posterior.

Its loss and its training draws are options; what is learned serves all rows of the program (Hu et
al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lmppl.engines.amortised import SAMPLING, Common, Recipe, Shape, learning
from lmppl.engines.contract import Engine, Learned, TrainingJob
from lmppl.engines.table import needs
from lmppl.settings import (
    NotPositive,
    OneOf,
    PartShare,
    Positive,
    Range,
    Size,
    SomeShare,
    Temperature,
    Whole,
)

LOSSES = ("vargrad", "tb", "subtb")


@dataclass(frozen=True)
class Options(Common):
    """Options of `gflownet`."""

    objective: Annotated[str, OneOf(LOSSES)] = "vargrad"  # the loss
    decay: Annotated[float, Range(0, 2, open_low=True)] = 1.0  # λ of subtb
    prefixes: Whole = 0  # of each draw that subtb rewards, others every step; 0: all of them
    huber: Positive = 5.0  # nats: residuals beyond it count linearly
    tempered: PartShare = 0.25  # share of the draws of a step made at `temperature`
    temperature: Temperature = 1.5  # of those draws, token by token
    min_p: PartShare = 0.0  # they leave out tokens less probable than this times the likeliest
    hurry: bool = True  # every other one of them in a hurry to end
    replay: PartShare = 0.25  # share of the draws of a step taken from the buffer
    buffer: Size = 64  # states kept a row
    buffer_by: Annotated[str, OneOf(SAMPLING)] = "uniform"  # how they are taken
    # an engine whose draws, or `rows` whose values, are learned first, by maximum likelihood
    seed_from: str = ""
    seed_draws: Whole = 0  # of that engine, a row and chain; 0: as many as the run asks for
    imitation: Whole = 50  # steps of that
    # below 1: begin at the prior's own power, and go on as the residual varies less
    first_beta: SomeShare = 1.0
    # log of what forbidden texts keep of their density, at first …
    first_epsilon: NotPositive = -6.0
    last_epsilon: NotPositive = -14.0  # … and at last

    def conflict(self) -> tuple[str, str] | None:
        """An option that does not go with the others, and what does."""
        if self.replay + self.tempered > 1:
            return "replay", f"at most {1 - self.tempered:g} beside `tempered` = {self.tempered:g}"
        return None


def recipe(options: Options) -> Recipe:
    """What these options ask for."""
    return Recipe(
        options.objective,
        Shape(huber=options.huber, decay=options.decay),
        options.prefixes,
        options.tempered,
        options.temperature,
        options.min_p,
        options.hurry,
        options.replay,
        options.buffer,
        options.buffer_by,
        imitation=options.imitation if options.seed_from else 0,
        first_beta=options.first_beta,
        first_epsilon=options.first_epsilon,
        last_epsilon=options.last_epsilon,
    )


def learn(job: TrainingJob) -> Learned:
    """Train or read the policy."""
    return learning.learn(job, recipe(job.options))


ENGINE = Engine(
    "gflownet",
    "a policy trained on all rows, by VarGrad, trajectory or subtrajectory balance",
    Options,
    learning.cannot,
    learning.run_alone(recipe, "gflownet"),
    learn,
    needs("gflownet"),
)
