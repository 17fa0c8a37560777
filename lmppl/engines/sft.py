"""The policy of `gflownet` trained by maximum likelihood on rows that have the latent's text: a
baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmppl.engines.amortised import Common, Recipe, learning
from lmppl.engines.contract import Engine, Learned, TrainingJob
from lmppl.engines.table import needs


@dataclass(frozen=True)
class Options(Common):
    """Options of `sft`."""


def recipe(options: Options) -> Recipe:
    """Nothing but imitation."""
    return Recipe("sft")


def learn(job: TrainingJob) -> Learned:
    """Train or read the policy."""
    return learning.learn(job, recipe(job.options))


SUMMARY = "the same policy tuned on rows that have the text: a baseline"
ENGINE = Engine(
    "sft",
    SUMMARY,
    Options,
    learning.cannot,
    learning.run_alone(recipe, "sft"),
    learn,
    needs("sft"),
    imitates=True,
)
