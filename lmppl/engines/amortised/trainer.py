"""Training a policy on the rows of a program: one optimiser step after another, each a function of its number.

Everything random is keyed by (seed, row, draw, step), so a run that is taken up from a checkpoint goes on as it would
have. A row's prompt is run once a step, with gradients, and shared by its draws and the pass that learns from them.
Where one pass is too large for memory it is cut: gradients of log q come first, then pass by pass the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from lmppl import ir
from lmppl.engines.amortised.buffer import Buffer
from lmppl.engines.amortised.objectives import OBJECTIVES, Batch
from lmppl.engines.amortised.policy import Asked, Decisions, Drawn, Policy
from lmppl.engines.amortised.processes import Processes
from lmppl.engines.amortised.recipe import Common, Recipe
from lmppl.engines.amortised.reward import Judged, joined, judge
from lmppl.engines.weights import effective_sample_size
from lmppl.errors import LmpplError, error
from lmppl.laws import Hot
from lmppl.prefix_rewards import prefix_log_density
from lmppl.randomness import Randomness
from lmppl.target import Floats, Target

FIRST_DRAW = 2**24  # draws while training are numbered from here, apart from those that are kept
HELD_OUT = 2**25
EPOCHS = 2**31  # the row number that the order of rows is keyed by
BEHAVIOUR = 6_000_000  # purpose number of what draws are made at, apart from the tokens'
STOPS = 6_000_001  # … and of the prefixes that `subtb` looks at
WARM = 10  # steps in which the learning rate goes up
EVIDENCE_RATE = 0.1  # learning rate of log evidences, nats a step

Row = tuple[int, Target]  # (number in the data, its target)


@dataclass
class Learner:
    """All that changes while a policy is trained."""

    policy: Policy
    optimiser: torch.optim.Optimizer
    log_evidence: torch.nn.Parameter  # (rows,) NaN until a row was seen; used by `tb`
    buffer: Buffer
    seeds: dict[int, Judged] = field(default_factory=dict)  # given states, by row number
    step: int = 0
    beta: float = 1.0
    best: float = np.inf  # least variance of held-out rows …
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)  # … and the adapter's then; none before a look
    idle: int = 0  # looks without progress
    spent: int = 0  # tokens that the policy's model has decoded and scored until the last checkpoint, in all runs
    finished: bool = False

    @contextmanager
    def at_best(self) -> Iterator[None]:
        """Within it, the policy is the best that held-out rows have seen; where none are held out, the last."""
        last = self.policy.adapter.weights()
        self.policy.adapter.put(self.best_weights)
        try:
            yield
        finally:
            self.policy.adapter.put(last)


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

    # --- the loop --------------------------------------------------------------------------------

    def train(
        self,
        learner: Learner,
        *,
        report: Callable[[Report], None],
        keep: Callable[[Learner], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Go on from the learner's step to the last; the policy ends as the best that held-out rows have seen.

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
        return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]

    def step(self, learner: Learner, rows: Sequence[Row]) -> Report:
        """One step on some rows."""
        started, before = time.perf_counter(), tokens_of(learner)
        if learner.step < self.recipe.imitation:
            rows = [row for row in rows if row[0] in learner.seeds]
        chosen = self._chosen(rows, learner.step)
        experiences: dict[int, Experience] = {}
        losses: list[float] = []
        for _ in range(1 if learner.step < self.recipe.imitation else self.recipe.epochs):
            learner.optimiser.zero_grad()
            losses = []
            for group, opened in self._ready(learner, chosen, experiences):
                for number, target in group:
                    seen = experiences[number]
                    losses.append(self._learn(learner, number, target, seen, opened, 1 / len(chosen)))
                for prompt in opened.values():
                    prompt.backward()
            self._update(learner, losses)
        learner.policy.adapter.model.forget_prompts()
        return self._reported(learner, experiences, losses, tokens_of(learner) - before, started)

    def _chosen(self, rows: Sequence[Row], step: int) -> list[Row]:
        """The rows of a step that are this process's: rows come in a new order every time round."""
        count = min(self.options.rows, len(rows))
        places = []
        for i in range(step * count, (step + 1) * count):
            order = np.argsort(Randomness(self.seed, EPOCHS).uniforms(0, i // len(rows), 0, len(rows)))
            places.append(int(order[i % len(rows)]))
        return [rows[place] for place in self.processes.share(places)]

    def _ready(
        self, learner: Learner, rows: Sequence[Row], experiences: dict[int, Experience]
    ) -> Iterator[tuple[Sequence[Row], Mapping]]:
        """Groups of rows with prompts open and draws made, which are added; half as many where memory runs out."""
        waiting = self._groups(rows, self._imitates(learner.step))
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

    def _opened(self, learner: Learner, rows: Sequence[Row], experiences: dict[int, Experience]) -> Mapping:
        """The prompts of some rows with gradients; draws of those that have none yet are added."""
        opened = learner.policy.open([target for _, target in rows])
        fresh = [row for row in dict(rows).items() if row[0] not in experiences]
        experiences |= self._experiences(learner, fresh)
        return opened

    def _imitates(self, step: int) -> bool:
        """Whether a step learns from given states and draws none."""
        return step < self.recipe.imitation or self.recipe.objective == "sft"

    def _groups(self, rows: Sequence[Row], alone: bool) -> list[Sequence[Row]]:
        """Rows whose prompts are open and whose draws grow at the same time: as many as one batch takes, or one."""
        most = 1 if alone else min((target.batch_size for _, target in rows), default=1)
        size = max(1, most // self.options.draws)
        return [rows[i : i + size] for i in range(0, len(rows), size)]

    def _update(self, learner: Learner, losses: Sequence[float]) -> None:
        parameters = list(learner.policy.adapter.parameters.values())
        self.processes.average([*parameters, learner.log_evidence])
        learner.log_evidence.data = self.processes.agree(learner.log_evidence.data)
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.clip_gradient)
        if self.processes.any(not (np.isfinite(losses).all() and bool(norm.isfinite()))):
            message = f"the loss of step {learner.step + 1} or its gradient is no number"
            help = "the last checkpoint is as it was; take a lower learning_rate, or a larger number of draws"
            raise LmpplError(error("diverged", message, found=f"{losses}, norm {float(norm)}", help=help))
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

    # --- draws -----------------------------------------------------------------------------------

    def _experiences(self, learner: Learner, rows: Sequence[Row]) -> dict[int, Experience]:
        """Of each row, draws by the behaviour, judged; or its seeds while they are imitated."""
        if self._imitates(learner.step):
            found = {number: self._seeds(learner, number) for number, _ in rows}
        else:
            replayed = {number: self._replayed(learner, number) for number, _ in rows}
            asked = [self._asked(learner, number, target, len(replayed[number])) for number, target in rows]
            drawn = learner.policy.draw_all(asked)
            found = {
                row[0]: self._judged(learner, row, one, new, replayed[row[0]])
                for row, one, new in zip(rows, asked, drawn, strict=True)
            }
        return {number: self._completed(learner, number, target, found[number]) for number, target in rows}

    def _replayed(self, learner: Learner, number: int) -> list[int]:
        """Which states of a row's buffer are taken again."""
        count = self.options.draws
        first = FIRST_DRAW + self.processes.index * count
        uniforms = Randomness(self.seed, number).uniforms(first, learner.step, BEHAVIOUR, count)
        share = min(count - 1, round(self.recipe.replay * count))  # one draw at least is new
        return learner.buffer.sample(number, uniforms[:share], self.recipe.buffer_by)

    def _asked(self, learner: Learner, number: int, target: Target, replayed: int) -> Asked:
        """New draws of a row: some at temperature 1, then the hot ones."""
        count = self.options.draws
        fresh = count - replayed
        own = fresh - min(fresh, round(self.recipe.tempered * count))
        component = np.maximum(0, np.arange(fresh) - own + 1)
        kinds = 1 + component % 2 if self.recipe.hurry else 1  # the last in turn hot, and hot and hurried; or all hot
        component = np.where(component > 0, kinds, 0)
        hot, min_p = self.recipe.temperature, self.recipe.min_p
        ladder = (1.0, Hot(hot, min_p), Hot(hot, min_p, hurried=True))
        first = FIRST_DRAW + self.processes.index * count
        keys = [(first + k, learner.step) for k in range(fresh)]
        return Asked(target, keys, Randomness(self.seed, number), ladder, component)

    def _judged(self, learner: Learner, row: Row, asked: Asked, drawn: Drawn, replayed: Sequence[int]) -> Experience:
        """New draws, kept in the buffer, and those that are taken again."""
        number, target = row
        assert asked.component is not None
        judged = judge(target, drawn.states)
        useful = (asked.component == 0) | (judged.broken == 0)  # hot draws are there to find what is allowed
        kept = np.flatnonzero(useful).tolist()
        judged, fresh = judged.rows(kept), len(kept)
        if self.recipe.replay > 0:
            old = learner.buffer.rows[number].rows(replayed) if replayed else None
            learner.buffer = learner.buffer.add(number, judged)
            if old is not None:
                judged = joined([judged, old])
        # of replayed draws nobody asks what log q was
        log_q = np.concatenate([drawn.total[kept], np.full(len(judged.states) - fresh, np.nan)])
        return Experience(judged, log_q, int((asked.component == 0).sum()))

    def _seeds(self, learner: Learner, number: int) -> Experience:
        judged = learner.seeds[number]
        uniforms = Randomness(self.seed, number).uniforms(FIRST_DRAW, learner.step, BEHAVIOUR, self.options.draws)
        count = len(judged.states)
        places = (uniforms * count).astype(int).tolist() if count > self.options.draws else list(range(count))
        return Experience(judged.rows(places), np.full(len(places), np.nan), 0)  # to imitate, no log q is asked for

    def _completed(self, learner: Learner, number: int, target: Target, experience: Experience) -> Experience:
        """With what the objective asks for besides rewards."""
        states = experience.judged.states
        if self.recipe.objective == "ppo":
            reference = replace(
                learner.policy, adapter=replace(learner.policy.adapter, model=learner.policy.adapter.base)
            )
            return replace(experience, log_reference=reference.trace(target, states).total)
        if self.recipe.objective == "subtb":
            text = stopping_text(target)
            others = tuple(latent.name for latent in target.latents if latent.name != text)
            lengths = self._lengths(learner.step, number, [len(target.tokens(text, s[text])) for s in states])
            found = prefix_log_density(target, text, states, others, lengths)
            width = 1 + max(len(prefixes.total) for prefixes in found)
            rewards = np.full((len(states), width), -np.inf)
            for i, prefixes in enumerate(found):
                rewards[i, : len(prefixes.total)] = prefixes.total
            return replace(experience, prefix_reward=rewards, closer=found[0].closing)
        return experience

    def _lengths(self, step: int, number: int, tokens: Sequence[int]) -> list[set[int]] | None:
        """Lengths of the prefixes of each draw that `subtb` looks at, others every step; None for all of them."""
        if not self.recipe.prefixes:
            return None
        randomness, first = Randomness(self.seed, number), FIRST_DRAW + self.processes.index * self.options.draws
        orders = [np.argsort(randomness.uniforms(first + k, step, STOPS, t + 1)) for k, t in enumerate(tokens)]
        return [set(order[: self.recipe.prefixes].tolist()) for order in orders]

    # --- gradients -------------------------------------------------------------------------------

    def _learn(
        self, learner: Learner, number: int, target: Target, experience: Experience, opened: Mapping, share: float
    ) -> float:
        """Leave a row's gradients at the parameters, and its loss."""
        size = min(self.options.micro_batch or len(experience.judged.states), len(experience.judged.states))
        learner.policy.adapter.switch.turn(True)  # PEFT's weights take no gradients while they are off
        learned = [*learner.policy.adapter.parameters.values(), learner.log_evidence]
        learned += [leaf for prompt in opened.values() for leaf in prompt.leaves]  # other rows may have left some there
        before = [None if value.grad is None else value.grad.clone() for value in learned]
        while True:
            try:
                return self._backward(learner, number, target, experience, opened, share, size)
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
            size = -(-size // 2)
            for value, gradient in zip(learned, before, strict=True):  # of the pass that was cut short
                value.grad = None if gradient is None else gradient.clone()

    def _backward(
        self, learner: Learner, number: int, target: Target, seen: Experience, opened: Mapping, share: float, size: int
    ) -> float:
        states = seen.judged.states
        parts = [list(range(i, min(i + size, len(states)))) for i in range(0, len(states), size)]

        def decisions(part: Sequence[int]) -> Decisions:
            chosen = [states[i] for i in part]
            closer = None
            if seen.prefix_reward is not None:
                bound = target.text_latent(stopping_text(target))
                closer = bound.stopping.end if seen.closer is None else seen.closer
            return learner.policy.decisions(target, chosen, opened, closer)

        if len(parts) == 1:
            loss = self._loss(learner, number, target, seen, decisions(parts[0]))
            (share * loss).backward()
            return float(loss.detach())
        with torch.no_grad():
            whole = _side_by_side([decisions(part) for part in parts])
        leaves = Decisions(*(None if x is None else x.requires_grad_() for x in (whole.log_q, whole.log_stop)))  # type: ignore[arg-type]
        loss = self._loss(learner, number, target, seen, leaves)
        (share * loss).backward()
        for part in parts:
            own = decisions(part)
            pairs = [(own.log_q, leaves.log_q), (own.log_stop, leaves.log_stop)]
            known = [(x, leaf.grad[part][:, : x.shape[1]]) for x, leaf in pairs
                     if x is not None and leaf is not None and leaf.grad is not None]  # fmt: skip
            torch.autograd.backward([x for x, _ in known], [gradient for _, gradient in known])
        return float(loss.detach())

    def _loss(self, learner: Learner, number: int, target: Target, seen: Experience, found: Decisions) -> torch.Tensor:
        log_q = found.log_q.double()
        device = log_q.device
        beta, epsilon = learner.beta, self.log_epsilon(learner.step)
        reward = torch.as_tensor(seen.judged.log_reward(beta, epsilon), device=device)
        batch = Batch(reward, log_q, torch.as_tensor(seen.log_q, device=device))
        if self._imitates(learner.step):
            return OBJECTIVES["sft"](batch, self.recipe.shape)
        if self.recipe.objective == "tb":
            place = [row for row, _ in self.rows].index(number)
            if torch.isnan(learner.log_evidence.data[place]):
                learner.log_evidence.data[place] = float((reward - batch.drawn_log_q).nanmean())
            batch = replace(batch, log_evidence=learner.log_evidence[place])
        if seen.log_reference is not None:
            batch = replace(batch, log_reference=torch.as_tensor(seen.log_reference, device=device))
        if seen.prefix_reward is not None:
            batch = _with_prefixes(batch, target, seen, found)
        return OBJECTIVES[self.recipe.objective](batch, self.recipe.shape)

    def log_epsilon(self, step: int) -> float:
        """log ε of a step: down in even steps."""
        progress = step / max(1, self.options.steps - 1)
        return self.recipe.first_epsilon + progress * (self.recipe.last_epsilon - self.recipe.first_epsilon)

    # --- numbers ---------------------------------------------------------------------------------

    def _reported(
        self,
        learner: Learner,
        experiences: Mapping[int, Experience],
        losses: Sequence[float],
        tokens: int,
        started: float,
    ) -> Report:
        epsilon = self.log_epsilon(learner.step)
        variances, sizes, forbidden = [], [], []
        for experience in experiences.values():
            own = experience.judged.rows(range(experience.num_own))
            if experience.num_own > 1:
                residual = own.log_reward(learner.beta, epsilon) - experience.log_q[: experience.num_own]
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
            steady = float(self.processes.agree(torch.tensor(variance))) < self.recipe.steady  # β is one for all
            floor = self.recipe.first_beta + (1 - self.recipe.first_beta) * learner.step / (0.6 * self.options.steps)
            learner.beta = min(1.0, max(floor, learner.beta + (0.05 if steady else 0.0)))
        return report

    def look(self, learner: Learner, rows: Sequence[Row]) -> float:
        """Mean variance of log γ − log q on held-out rows; training is over where it stops going down."""
        variances = []
        keys = [(HELD_OUT + k, 0) for k in range(self.options.draws)]
        found = learner.policy.draw_all([Asked(target, keys, Randomness(self.seed, number)) for number, target in rows])
        for (_, target), drawn in zip(rows, found, strict=True):
            reward = judge(target, drawn.states).log_reward(1.0, self.log_epsilon(learner.step))
            variances.append(float((reward - drawn.total).var()))
        learner.policy.adapter.model.forget_prompts()
        mean = float(np.mean(variances))
        if mean < learner.best:
            learner.best, learner.idle, learner.best_weights = mean, 0, learner.policy.adapter.weights()
        else:
            learner.idle += 1
        learner.finished = learner.idle >= self.options.patience
        return mean


def tokens_of(learner: Learner) -> int:
    """What the policy's model has decoded and scored in this process."""
    cost = learner.policy.adapter.base.cost
    return cost.tokens_decoded + cost.tokens_scored


@dataclass(frozen=True)
class Experience:
    """Draws of one row, and what is known of them. The first num_own came from the policy at temperature 1."""

    judged: Judged
    log_q: Floats  # (N,) when they were drawn; NaN for replayed ones
    num_own: int
    log_reference: Floats | None = None  # (N,)
    prefix_reward: Floats | None = None  # (N, T + 1)
    closer: int | None = None  # the token that stops a prefix, where it is not the end token


def stopping_text(target: Target) -> str:
    """The one text latent whose prefixes `subtb` looks at."""
    return next(latent.name for latent in target.latents if isinstance(latent, ir.TextLatent))


def _with_prefixes(batch: Batch, target: Target, seen: Experience, found: Decisions) -> Batch:
    """A batch with flows at every prefix, all as wide as the longest text and its end."""
    assert seen.prefix_reward is not None
    assert found.log_stop is not None
    name = stopping_text(target)
    lengths = [len(target.tokens(name, state[name])) for state in seen.judged.states]
    width = max(lengths)
    tokens = torch.nn.functional.pad(found.log_q, (0, max(0, width - found.log_q.shape[1])))[:, :width].double()
    within = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    tokens = tokens * within.to(tokens.device)
    log_stop = torch.nn.functional.pad(found.log_stop, (0, max(0, width + 1 - found.log_stop.shape[1])))
    reward = torch.as_tensor(seen.prefix_reward[:, : width + 1], device=tokens.device)
    return replace(batch, prefix_reward=reward, log_stop=log_stop[:, : width + 1].double(), prefix_log_q=tokens)


def _side_by_side(parts: Sequence[Decisions]) -> Decisions:
    """Decisions of several parts as one, padded with 0 to the widest."""

    def stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        width = max(tensor.shape[1] for tensor in tensors)
        return torch.cat([torch.nn.functional.pad(tensor, (0, width - tensor.shape[1])) for tensor in tensors])

    stops = [part.log_stop for part in parts if part.log_stop is not None]
    return Decisions(stacked([part.log_q for part in parts]), stacked(stops) if stops else None)


def learner_of(policy: Policy, task: Task) -> Learner:
    """A learner before its first step."""
    log_evidence = torch.nn.Parameter(torch.full((len(task.rows),), torch.nan, dtype=torch.float64))
    groups = [{"params": list(policy.adapter.parameters.values())}, {"params": [log_evidence]}]
    optimiser = torch.optim.AdamW(groups, lr=task.options.learning_rate, weight_decay=0.0, foreach=False)
    return Learner(policy, optimiser, log_evidence, Buffer(task.recipe.buffer), beta=task.recipe.first_beta)
