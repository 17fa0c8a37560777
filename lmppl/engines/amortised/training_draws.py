"""What a policy learns from in one step: draws of its own, hot ones and earlier ones of each row,
and their rewards.

Everything random is keyed by (seed, row, draw, step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmppl.decoding import Hot, Purpose, Randomness
from lmppl.density import Floats, Target, prefix_log_density
from lmppl.engines.amortised.learner import Learner, Row
from lmppl.engines.amortised.policy import Drawn, DrawRequest
from lmppl.engines.amortised.recipe import Recipe
from lmppl.engines.amortised.reward import Rewarded, joined, rewards_of

FIRST_DRAW = 2**24  # draws while training are numbered from here, apart from those that are kept


@dataclass(frozen=True)
class Experience:
    """Draws of one row, and what is known of them. The first num_own came from the policy at
    temperature 1.
    """

    rewarded: Rewarded
    log_q: Floats  # (N,) when they were drawn; NaN for replayed ones
    num_own: int
    log_reference: Floats | None = None  # (N,)
    prefix_reward: Floats | None = None  # (N, T + 1)
    closer: int | None = None  # the token that stops a prefix, where it is not the end token


def stopping_text(target: Target) -> str:
    """The one text latent whose prefixes `subtb` looks at."""
    return target.texts[0].name


@dataclass(frozen=True)
class TrainingDraws:
    """How draws of a step come about. draws: of a row; index: of this process, whose draws differ
    from its peers'.
    """

    recipe: Recipe
    draws: int
    seed: int
    index: int

    def experiences(self, learner: Learner, rows: Sequence[Row]) -> dict[int, Experience]:
        """Of each row, draws with their rewards; or its seeds while they are imitated."""
        if self.recipe.imitates(learner.step):
            found = {number: self._seeds(learner, number) for number, _ in rows}
        else:
            replayed = {number: self._replayed(learner, number) for number, _ in rows}
            requests = [
                self._request(learner, number, target, len(replayed[number]))
                for number, target in rows
            ]
            drawn = learner.policy.draw_all(requests)
            targets = [target for _, target in rows]
            states = [new.states for new in drawn]
            rewarded = rewards_of([*zip(targets, states, strict=True)])
            found = {
                number: self._mixed(learner, number, request, new, worth, replayed[number])
                for (number, _), request, new, worth in zip(
                    rows, requests, drawn, rewarded, strict=True
                )
            }
        return {
            number: self._completed(learner, number, target, found[number])
            for number, target in rows
        }

    def _replayed(self, learner: Learner, number: int) -> list[int]:
        """Which states of a row's buffer are taken again."""
        count = self.draws
        first = FIRST_DRAW + self.index * count
        uniforms = Randomness(self.seed, number).uniforms(
            first, learner.step, Purpose.TRAINING, count
        )
        share = min(count - 1, round(self.recipe.replay * count))  # one draw at least is new
        return learner.buffer.sample(number, uniforms[:share], self.recipe.buffer_by)

    def _request(self, learner: Learner, number: int, target: Target, replayed: int) -> DrawRequest:
        """New draws of a row: some at temperature 1, then the hot ones."""
        count = self.draws
        fresh = count - replayed
        own = fresh - min(fresh, round(self.recipe.tempered * count))
        component = np.maximum(0, np.arange(fresh) - own + 1)
        # the last in turn hot, and hot and hurried; or all hot
        kinds = 1 + component % 2 if self.recipe.hurry else 1
        component = np.where(component > 0, kinds, 0)
        hot, min_p = self.recipe.temperature, self.recipe.min_p
        ladder = (1.0, Hot(hot, min_p), Hot(hot, min_p, hurried=True))
        first = FIRST_DRAW + self.index * count
        keys = [(first + k, learner.step) for k in range(fresh)]
        return DrawRequest(target, keys, Randomness(self.seed, number), ladder, component)

    def _mixed(
        self,
        learner: Learner,
        number: int,
        request: DrawRequest,
        drawn: Drawn,
        rewarded: Rewarded,
        replayed: Sequence[int],
    ) -> Experience:
        """New draws, kept in the buffer, and those that are taken again."""
        assert request.component is not None
        useful = (request.component == 0) | (
            rewarded.broken == 0
        )  # hot draws are there to find what is allowed
        kept = np.flatnonzero(useful).tolist()
        rewarded, fresh = rewarded.rows(kept), len(kept)
        if self.recipe.replay > 0:
            old = learner.buffer.rows[number].rows(replayed) if replayed else None
            learner.buffer = learner.buffer.add(number, rewarded)
            if old is not None:
                rewarded = joined([rewarded, old])
        # of replayed draws nobody asks what log q was
        log_q = np.concatenate([drawn.total[kept], np.full(len(rewarded.states) - fresh, np.nan)])
        return Experience(rewarded, log_q, int((request.component == 0).sum()))

    def _seeds(self, learner: Learner, number: int) -> Experience:
        rewarded = learner.seeds[number]
        uniforms = Randomness(self.seed, number).uniforms(
            FIRST_DRAW, learner.step, Purpose.TRAINING, self.draws
        )
        count = len(rewarded.states)
        places = (
            (uniforms * count).astype(int).tolist() if count > self.draws else list(range(count))
        )
        return Experience(
            rewarded.rows(places), np.full(len(places), np.nan), 0
        )  # to imitate, no log q is asked for

    def _completed(
        self, learner: Learner, number: int, target: Target, experience: Experience
    ) -> Experience:
        """With what the objective asks for besides rewards."""
        states = experience.rewarded.states
        if self.recipe.objective == "ppo":
            reference = replace(learner.policy, adapted=False).trace(target, states)
            return replace(experience, log_reference=reference.total)
        if self.recipe.objective == "subtb":
            text = stopping_text(target)
            others = tuple(latent.name for latent in target.latents if latent.name != text)
            lengths = self._lengths(
                learner.step, number, [len(target.tokens(text, s[text])) for s in states]
            )
            found = prefix_log_density(target, text, states, others, lengths)
            width = 1 + max(len(prefixes.total) for prefixes in found)
            rewards = np.full((len(states), width), -np.inf)
            for i, prefixes in enumerate(found):
                rewards[i, : len(prefixes.total)] = prefixes.total
            return replace(experience, prefix_reward=rewards, closer=found[0].closing)
        return experience

    def _lengths(self, step: int, number: int, tokens: Sequence[int]) -> list[set[int]] | None:
        """Lengths of the prefixes of each draw that `subtb` looks at, others every step; None for
        all of them.
        """
        if not self.recipe.prefixes:
            return None
        randomness, first = Randomness(self.seed, number), FIRST_DRAW + self.index * self.draws
        orders = [
            np.argsort(randomness.uniforms(first + k, step, Purpose.STOPS, t + 1))
            for k, t in enumerate(tokens)
        ]
        return [set(order[: self.recipe.prefixes].tolist()) for order in orders]
