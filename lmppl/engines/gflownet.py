"""GFlowNet amortisation: the program's language model, with an adapter, trained to draw from the posterior.

Loss and behaviour are options; what is learned serves all rows of the program (Hu et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

from lmppl import run_findings
from lmppl.engines.amortised import learning
from lmppl.engines.amortised.buffer import SAMPLING
from lmppl.engines.amortised.objectives import Shape
from lmppl.engines.amortised.recipe import Common, Recipe
from lmppl.engines.contract import Engine, Learned, Lesson
from lmppl.errors import LmpplError

LOSSES = ("vargrad", "tb", "subtb")


@dataclass(frozen=True)
class Options(Common):
    """Options of `gflownet`."""

    objective: str = "vargrad"  # vargrad, tb or subtb
    decay: float = 1.0  # λ of subtb
    prefixes: int = 0  # of each draw that subtb rewards, others every step; 0: all of them
    huber: float = 5.0  # nats: residuals beyond it count linearly
    tempered: float = 0.25  # share of the draws of a step made at `temperature`
    temperature: float = 1.5  # of those draws, token by token
    min_p: float = 0.0  # they leave out tokens less probable than this times the likeliest
    hurry: bool = True  # every other one of them in a hurry to end
    replay: float = 0.25  # share of the draws of a step taken from the buffer
    buffer: int = 64  # states kept a row
    buffer_by: str = "uniform"  # how they are taken: uniform, reward or recency
    seed_from: str = ""  # an engine whose draws, or `rows` whose values, are learned first, by maximum likelihood
    seed_draws: int = 0  # of that engine, a row and chain; 0: as many as the run asks for
    imitation: int = 50  # steps of that
    first_beta: float = 1.0  # below 1: begin at the prior's own power, and go on as the residual's variance goes down
    first_epsilon: float = -6.0  # log of what forbidden texts keep of their density, at first …
    last_epsilon: float = -14.0  # … and at last


def recipe(options: Options) -> Recipe:
    """What these options ask for. Raises LmpplError."""
    for name, known in (("objective", LOSSES), ("buffer_by", SAMPLING)):
        if vars(options)[name] not in known:
            raise LmpplError(run_findings.bad_option("gflownet", name, " or ".join(known), vars(options)[name]))
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


def learn(lesson: Lesson) -> Learned:
    """Train or read the policy."""
    return learning.learn(lesson, recipe(lesson.options))


ENGINE = Engine(
    "gflownet",
    "a policy trained on all rows, by VarGrad, trajectory or subtrajectory balance",
    Options,
    learning.cannot,
    learning.run_alone(recipe, "gflownet"),
    learn,
)
