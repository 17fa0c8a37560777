"""The policy of `gflownet` trained by clipped policy gradient on the same reward: a baseline, which
seeks modes.

Its weights γ / q are right all the same; its draws by themselves are not the posterior's (Hu et al.
2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from lmppl.engines.amortised import Common, Recipe, Shape, learning
from lmppl.engines.contract import Engine, Learned, TrainingJob
from lmppl.engines.table import needs
from lmppl.settings import NotNegative, NotPositive, ProperShare, Size, Whole


@dataclass(frozen=True)
class Options(Common):
    """Options of `ppo`."""

    clip: ProperShare = 0.2  # of the ratio of new to old probability
    penalty: NotNegative = 0.1  # on the divergence from the model without adapter
    epochs: Size = 4  # passes over the draws of a step
    epsilon: NotPositive = -10.0  # log of what forbidden texts keep of their density
    # an engine whose draws, or `rows` whose values, are learned first, by maximum likelihood
    seed_from: str = ""
    seed_draws: Whole = 0  # of that engine, a row and chain; 0: as many as the run asks for
    imitation: Whole = 50  # steps of that


def recipe(options: Options) -> Recipe:
    """What these options ask for."""
    shape = Shape(clip=options.clip, penalty=options.penalty)
    return Recipe(
        "ppo",
        shape,
        epochs=options.epochs,
        imitation=options.imitation if options.seed_from else 0,
        first_epsilon=options.epsilon,
        last_epsilon=options.epsilon,
    )


def learn(job: TrainingJob) -> Learned:
    """Train or read the policy."""
    return learning.learn(job, recipe(job.options))


SUMMARY = "the same policy trained by clipped policy gradient: a baseline"
ENGINE = Engine(
    "ppo",
    SUMMARY,
    Options,
    learning.cannot,
    learning.run_alone(recipe, "ppo"),
    learn,
    needs("ppo"),
)
