"""Training a policy on the rows of a program: one optimiser step after another, each a function of
its number.

Everything random is keyed by (seed, row, draw, step), so a run that is taken up from a checkpoint
goes on as it would have. A row's prompt is run once a step, with gradients, and shared by its draws
and the pass that learns from them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lmppl.decoding import Randomness
from lmppl.engines.amortised.buffer import Buffer
from lmppl.engines.amortised.gradients import Gradients, Opened
from lmppl.engines.amortised.learner import Learner, Row, tokens_of
from lmppl.engines.amortised.policy import DrawRequest, Policy
from lmppl.engines.amortised.processes import Processes
from lmppl.engines.amortised.recipe import Common, Recipe
from lmppl.engines.amortised.reward import rewards_of
from lmppl.engines.amortised.training_draws import Experience, TrainingDraws
from lmppl.engines.weights import effective_sample_size
from lmppl.errors import LmpplError, error
from lmppl.lm import OPEN_TOKENS, OpenPrompts, together

# draws for held-out rows are numbered from here, apart from those that are kept or trained on
HELD_OUT = 2**25
EPOCHS = 2**31  # the row number that the order of rows is keyed by
WARM = 10  # steps in which the learning rate goes up
EVIDENCE_RATE = 0.1  # learning rate of log evidences, nats a step


@dataclass(frozen=True)
class Report:
    """What a step found; variances and sizes are of draws from the policy itself. Nats."""

    step: int
    loss: float
    variance: float  # of log γ − log q
    ess: float  # share of the draws that importance weights leave
    forbidden: float  # share of draws that a constraint forbids
    beta: float
    tokens_per_second: float


@dataclass(frozen=True)
class Task:
    """What a policy is trained for. Raises LmpplError where a loss stops being a number."""

    rows: Sequence[Row]
    options: Common
    recipe: Recipe
    seed: int
    processes: Processes

    @property
    def training_draws(self) -> TrainingDraws:
        """What makes a step's draws."""
        return TrainingDraws(self.recipe, self.options.draws, self.seed, self.processes.index)

    @property
    def gradients(self) -> Gradients:
        """What learns from them."""
        numbers = [number for number, _ in self.rows]
        return Gradients(self.recipe, numbers, self.options.steps, self.options.micro_batch)

    # --- the loop --------------------------------------------------------------------------------

    def train(
        self,
        learner: Learner,
        *,
        report: Callable[[Report], None],
        keep: Callable[[Learner], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Go on from the learner's step to the last; the policy ends as the best that held-out rows
        have seen.

        keep: called where the learner's state is to be kept.
        """
        training, held_out = self.split()
        while learner.step < self.options.steps and not learner.finished and not stopped():
            report(self.step(learner, training))
            learner.step += 1
            last = learner.step == self.options.steps
            if held_out and (learner.step % self.options.look_every == 0 or last):
                self.look(learner, held_out)
            if learner.step % self.options.save_every == 0 and not last:
                keep(learner)
        keep(learner)
        learner.policy.adapter.put(learner.best_weights)

    def split(self) -> tuple[list[Row], list[Row]]:
        """Rows to train on, and rows held out."""
        count = int(self.options.held_out * len(self.rows))
        order = np.argsort(Randomness(self.seed, EPOCHS).uniforms(1, 0, 0, len(self.rows)))
        held = set(order[:count].tolist())
        rows = list(self.rows)
        return [r for i, r in enumerate(rows) if i not in held], [
            r for i, r in enumerate(rows) if i in held
        ]

    def step(self, learner: Learner, rows: Sequence[Row]) -> Report:
        """One step on some rows."""
        started, before = time.perf_counter(), tokens_of(learner)
        if learner.step < self.recipe.imitation:
            rows = [row for row in rows if row[0] in learner.seeds]
        chosen = self._chosen(rows, learner.step)
        experiences: dict[int, Experience] = {}
        gradients = self.gradients
        losses: list[float] = []
        for _ in range(1 if learner.step < self.recipe.imitation else self.recipe.epochs):
            learner.optimiser.zero_grad()
            losses = []
            for group, opened in self._ready(learner, chosen, experiences):
                losses += gradients.leave(
                    learner, group, Opened(opened, experiences), 1 / len(chosen)
                )
                opened.backward()
            self._update(learner, losses)
        learner.policy.adapter.model.forget_prompts()
        return self._reported(learner, experiences, losses, tokens_of(learner) - before, started)

    def _chosen(self, rows: Sequence[Row], step: int) -> list[Row]:
        """The rows of a step that are this process's: rows come in a new order every time round."""
        count = min(self.options.rows, len(rows))
        places = []
        for i in range(step * count, (step + 1) * count):
            order = np.argsort(
                Randomness(self.seed, EPOCHS).uniforms(0, i // len(rows), 0, len(rows))
            )
            places.append(int(order[i % len(rows)]))
        return [rows[place] for place in self.processes.share(places)]

    def _ready(
        self, learner: Learner, rows: Sequence[Row], experiences: dict[int, Experience]
    ) -> Iterator[tuple[Sequence[Row], OpenPrompts]]:
        """Groups of rows with prompts open and draws made, which are added; half as many where
        memory runs out.
        """
        waiting = _groups(learner.policy, rows)
        while waiting:
            group, *waiting = waiting
            try:
                opened = self._opened(learner, group, experiences)
            except torch.OutOfMemoryError:
                if len(group) == 1:
                    raise
                half = len(group) // 2
                waiting = [group[:half], group[half:], *waiting]
            else:
                yield group, opened

    def _opened(
        self, learner: Learner, rows: Sequence[Row], experiences: dict[int, Experience]
    ) -> OpenPrompts:
        """The prompts of some rows with gradients; draws of those that have none yet are added."""
        opened = learner.policy.open([target for _, target in rows])
        fresh = [row for row in dict(rows).items() if row[0] not in experiences]
        experiences |= self.training_draws.experiences(learner, fresh)
        return opened

    def _update(self, learner: Learner, losses: Sequence[float]) -> None:
        parameters = list(learner.policy.adapter.parameters.values())
        self.processes.average([*parameters, learner.log_evidence])
        learner.log_evidence.data = self.processes.agree(learner.log_evidence.data)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.clip_gradient)
        if self.processes.any(not (np.isfinite(losses).all() and bool(norm.isfinite()))):
            message = f"the loss of step {learner.step + 1} or its gradient is no number"
            help = (
                "the last checkpoint is as it was; take a lower learning_rate, or a larger "
                "number of draws"
            )
            raise LmpplError(
                error("diverged", message, found=f"{losses}, norm {float(norm)}", help=help)
            )
        rate = self._rate(learner.step)
        for group, scale in zip(
            learner.optimiser.param_groups, (self.options.learning_rate, EVIDENCE_RATE), strict=True
        ):
            group["lr"] = scale * rate
        learner.optimiser.step()

    def _rate(self, step: int) -> float:
        """Share of the learning rate: up over some steps, then down to 0."""
        warm = min(WARM, max(1, self.options.steps // 10))
        if step < warm:
            return (step + 1) / warm
        return max(0.0, (self.options.steps - step) / max(1, self.options.steps - warm)) ** 0.5

    # --- numbers ---------------------------------------------------------------------------------

    def _reported(
        self,
        learner: Learner,
        experiences: Mapping[int, Experience],
        losses: Sequence[float],
        tokens: int,
        started: float,
    ) -> Report:
        epsilon = self.recipe.log_epsilon(learner.step, self.options.steps)
        variances, sizes, forbidden = [], [], []
        for experience in experiences.values():
            own = experience.rewarded.rows(range(experience.num_own))
            if experience.num_own > 1:
                residual = (
                    own.log_reward(learner.beta, epsilon) - experience.log_q[: experience.num_own]
                )
                variances.append(float(residual.var()))
                sizes.append(effective_sample_size(residual) / len(residual))
                forbidden.append(float((own.broken > 0).mean()))
        variance = float(np.mean(variances)) if variances else np.nan
        report = Report(
            learner.step + 1,
            float(np.mean(losses)),
            variance,
            float(np.mean(sizes)) if sizes else np.nan,
            float(np.mean(forbidden)) if forbidden else np.nan,
            learner.beta,
            tokens / max(1e-9, time.perf_counter() - started),
        )
        if learner.beta < 1:
            # β is one for all
            steady = float(self.processes.agree(torch.tensor(variance))) < self.recipe.steady
            floor = self.recipe.first_beta + (1 - self.recipe.first_beta) * learner.step / (
                0.6 * self.options.steps
            )
            learner.beta = min(1.0, max(floor, learner.beta + (0.05 if steady else 0.0)))
        return report

    def look(self, learner: Learner, rows: Sequence[Row]) -> float:
        """Mean variance of log γ − log q on held-out rows; training is over where it stops going
        down.
        """
        variances = []
        epsilon = self.recipe.log_epsilon(learner.step, self.options.steps)
        keys = [(HELD_OUT + k, 0) for k in range(self.options.draws)]
        found = learner.policy.draw_all(
            [DrawRequest(target, keys, Randomness(self.seed, number)) for number, target in rows]
        )
        rewarded = rewards_of(
            [(target, drawn.states) for (_, target), drawn in zip(rows, found, strict=True)]
        )
        for one, drawn in zip(rewarded, found, strict=True):
            variances.append(float((one.log_reward(1.0, epsilon) - drawn.total).var()))
        learner.policy.adapter.model.forget_prompts()
        mean = float(np.mean(variances))
        if mean < learner.best:
            learner.best, learner.idle, learner.best_weights = (
                mean,
                0,
                learner.policy.adapter.weights(),
            )
        else:
            learner.idle += 1
        learner.finished = learner.idle >= self.options.patience
        return mean


def _groups(policy: Policy, rows: Sequence[Row]) -> list[list[Row]]:
    """Rows whose prompts are open at the same time."""
    return list(
        together(rows, [policy.num_prompt_tokens(target) for _, target in rows], OPEN_TOKENS)
    )


def learner_of(policy: Policy, task: Task) -> Learner:
    """A learner before its first step."""
    log_evidence = torch.nn.Parameter(torch.full((len(task.rows),), torch.nan, dtype=torch.float64))
    groups = [{"params": list(policy.adapter.parameters.values())}, {"params": [log_evidence]}]
    optimiser = torch.optim.AdamW(
        groups, lr=task.options.learning_rate, weight_decay=0.0, foreach=False
    )
    return Learner(
        policy, optimiser, log_evidence, Buffer(task.recipe.buffer), beta=task.recipe.first_beta
    )
