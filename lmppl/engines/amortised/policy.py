"""The policy q: the program's language model with an adapter, conditioned on the `guide` contexts.

It draws every latent in program order, texts token by token under the masks of their constraints,
choices among their options, so its log q is exact: the sum over decisions. Latents that no training
row left free are drawn from their prior, by the model without its adapter. It knows targets and
adapters, no losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.decoding import Randomness
from lmppl.density import BoundTerm, Drawing, Floats, Manner, State, Target, drawn, prepare
from lmppl.lm import Adapter, OpenPrompts, Rows, Tokens, Trainable

Key = tuple[int, int]  # (chain, draw)


@dataclass(frozen=True)
class Drawn:
    """N draws of all latents. log_q: per latent and draw, of every decision, at temperature 1, in
    nats.
    """

    states: list[State]
    log_q: dict[str, list[Floats]]  # texts (S,), choices (1,)

    @property
    def total(self) -> Floats:
        """(N,) log q of whole states."""
        return np.sum([[row.sum() for row in rows] for rows in self.log_q.values()], axis=0)


@dataclass(frozen=True)
class DrawRequest:
    """One state a key of one target. component: (N,) which temperature of the ladder draws each,
    the first where None.

    The ladder's first temperature is 1, and log q is at that all the same.
    """

    target: Target
    keys: Sequence[Key]
    randomness: Randomness
    ladder: Sequence[float] = (1.0,)
    component: NDArray[np.int64] | None = None

    def uniforms(self, purpose: int, size: int) -> Floats:
        """(N, size)"""
        return np.stack([self.randomness.uniforms(*key, purpose, size) for key in self.keys])


@dataclass(frozen=True)
class Wanted:
    """States of one target whose decisions are wanted.

    closer: the token whose probability of coming next, at every prefix of the text, is wanted as
    well.
    """

    target: Target
    states: Sequence[State]
    closer: int | None = None

    def values(self, name: str) -> list[Tokens | int]:
        """(N,) of one latent."""
        return [state[name] for state in self.states]


@dataclass(frozen=True)
class Decisions:
    """log q of N states with gradients, decisions side by side, 0 where a state has fewer. Nats."""

    log_q: torch.Tensor  # (N, S)
    # (N, S + 1) of the closing token at each prefix of the text; 0 behind its end
    log_stop: torch.Tensor | None


@dataclass(frozen=True)
class Policy:
    """q of every target of one program. trained: latents that the adapter draws; the others come
    from their prior. adapted: False for the same decisions by the model as it was loaded.
    """

    adapter: Adapter
    trained: frozenset[str]
    adapted: bool = True

    @property
    def model(self) -> Trainable:
        """What draws the trained latents."""
        return self.adapter.model if self.adapted else self.adapter.base

    def term(self, target: Target, name: str) -> BoundTerm | None:
        """What draws a latent; None for its prior."""
        return replace(target.guide(name), model=self.model) if name in self.trained else None

    # --- without gradients -----------------------------------------------------------------------

    def prepare(self, targets: Sequence[Target]) -> None:
        """Run the prompts of some rows side by side: the policy's and those of the density."""
        self.model.prepare([prompt for target in targets for prompt in self._prompts(target)])
        prepare(targets)

    def draw(self, target: Target, keys: Sequence[Key], randomness: Randomness) -> Drawn:
        """One state a key."""
        return self.draw_all([DrawRequest(target, keys, randomness)])[0]

    def draw_all(self, requests: Sequence[DrawRequest]) -> list[Drawn]:
        """Draws of several targets, their texts in as few passes as the targets' batches allow."""
        result = [Drawn([{} for _ in request.keys], {}) for request in requests]
        most = max((request.target.batch_size for request in requests), default=1)
        for place in range(max((len(r.target.latents) for r in requests), default=0)):
            now = [
                (request, some)
                for request, some in zip(requests, result, strict=True)
                if place < len(request.target.latents)
            ]
            drawings = [self._drawing(request, place, some.states) for request, some in now]
            for (request, some), draws in zip(now, drawn(drawings, most), strict=True):
                name = request.target.latents[place].name
                some.log_q[name] = draws.at_one
                for state, value in zip(some.states, draws.values, strict=True):
                    state[name] = value  # type: ignore[index]
        return result

    def _drawing(self, request: DrawRequest, place: int, states: Sequence[State]) -> Drawing:
        """The next latent of every state of a target."""
        target = request.target
        latent = target.latent(target.latents[place].name)
        manner = Manner(request.ladder, request.component, self.term(target, latent.name))
        uniforms = request.uniforms(place, latent.num_decisions)
        return latent.drawing(target, states, uniforms, manner)

    def trace(self, target: Target, states: Sequence[State]) -> Drawn:
        """log q of states that something else has drawn, by the code that draws."""
        latents = [target.latent(latent.name) for latent in target.latents]
        traced = {
            latent.name: latent.traced(target, states, by=self.term(target, latent.name))
            for latent in latents
        }
        return Drawn(list(states), {name: draws.at_one for name, draws in traced.items()})

    # --- with gradients --------------------------------------------------------------------------

    def open(self, targets: Sequence[Target]) -> OpenPrompts:
        """Run the prompts of some rows with gradients, once for all that is drawn and scored until
        forgotten.
        """
        self.model.forget_prompts()
        return self.model.open_prompts(
            [prompt for target in targets for prompt in self._prompts(target)]
        )

    def num_prompt_tokens(self, target: Target) -> int:
        """How many tokens of prompts `open` runs for a row by itself, stems left out."""
        return self.model.num_open_tokens(self._prompts(target))

    def _prompts(self, target: Target) -> list[Tokens]:
        return [
            target.guide(latent.name).context.prompt
            for latent in target.latents
            if latent.name in self.trained
        ]

    def decisions(self, wanted: Sequence[Wanted], opened: OpenPrompts) -> list[Decisions]:
        """log q of states, those of several targets in one pass for each latent in turn."""
        columns: list[list[torch.Tensor]] = [[] for _ in wanted]
        stops: list[torch.Tensor | None] = [None] * len(wanted)
        for place in range(max(len(one.target.latents) for one in wanted)):
            now = [
                (i, one.target.latents[place].name)
                for i, one in enumerate(wanted)
                if place < len(one.target.latents)
            ]
            found = [
                (i, name, self._rows(wanted[i], name)) for i, name in now if name in self.trained
            ]
            asked = [(i, name, rows) for i, name, rows in found if rows.tokens]
            # first: a pass without the adapter behind one with it would take its gradients away
            kept = {i: wanted[i].target.kept(name, wanted[i].states) for i, name, _ in asked}
            laws = opened.laws([rows for *_, rows in asked]) if asked else []
            for (i, name, own), logits in zip(asked, laws, strict=True):
                latent, values = wanted[i].target.latent(name), wanted[i].values(name)
                scores, stop = latent.decided(values, own, logits, wanted[i].closer, kept[i])
                columns[i].append(scores)
                stops[i] = stop if stop is not None else stops[i]
        nothing = [torch.zeros(len(one.states), 0, device=self.model.device) for one in wanted]
        return [
            Decisions(torch.cat([none, *some], 1), stop)
            for none, some, stop in zip(nothing, columns, stops, strict=True)
        ]

    def num_laws(self, wanted: Wanted) -> int:
        """How many laws `decisions` has at most at a time for these states."""
        names = [latent.name for latent in wanted.target.latents if latent.name in self.trained]
        rows = [self._rows(wanted, name) for name in names]
        return max((some.num_laws for some in rows if some.tokens), default=0)

    def _rows(self, wanted: Wanted, name: str) -> Rows:
        """The tokens that decide on a latent, behind what stands before them; none of states that
        have it not.
        """
        target = wanted.target
        term = self.term(target, name)
        assert term is not None
        suffixes, latent = target.suffixes(term, wanted.states), target.latent(name)
        pairs = [
            (suffix, tokens)
            for suffix, value in zip(suffixes, wanted.values(name), strict=True)
            for tokens in latent.deciding(value)
        ]
        return Rows(term.context.prompt, [a + b for a, b in pairs], [len(a) for a, _ in pairs])
