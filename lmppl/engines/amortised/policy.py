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

from lmppl import ir
from lmppl.decoding import FREE, Randomness, Rolling, Rollout, roll_out
from lmppl.density import (
    BoundTerm,
    BoundText,
    Floats,
    State,
    Target,
    drawn_options,
    evaluated,
    prepare,
)
from lmppl.lm import Adapter, OpenPrompts, Rows, Tokens, Trainable, summed

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
class Asked:
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
        return self.draw_all([Asked(target, keys, randomness)])[0]

    def draw_all(self, asked: Sequence[Asked]) -> list[Drawn]:
        """What is asked of several targets, their texts in as few passes as the targets' batches
        allow.
        """
        drawn = [Drawn([{} for _ in one.keys], {}) for one in asked]
        for purpose in range(max((len(one.target.latents) for one in asked), default=0)):
            texts: list[tuple[Drawn, str, list[Rolling]]] = []
            choices: list[tuple[Asked, Drawn, str]] = []
            for one, found in zip(asked, drawn, strict=True):
                if purpose >= len(one.target.latents):
                    continue
                latent = one.target.latents[purpose]
                if isinstance(latent, ir.ChoiceLatent):
                    choices.append((one, found, latent.name))
                else:
                    texts.append(
                        (found, latent.name, self._rollings(one, purpose, latent, found.states))
                    )
            self._choose(purpose, choices)
            most = max((one.target.batch_size for one in asked), default=1)
            rollouts = iter(roll_out([rolling for *_, some in texts for rolling in some], most))
            for found, name, some in texts:
                rollout = Rollout.joined([next(rollouts) for _ in some])
                found.log_q[name] = _at_one(rollout)
                _set(found.states, name, rollout.tokens)
        return drawn

    def _choose(self, purpose: int, choices: Sequence[tuple[Asked, Drawn, str]]) -> None:
        """Draw a choice latent of every target, for each of its states."""
        laws = evaluated([
            one.target.choice_law(name, drawn.states, self.term(one.target, name)) for one, drawn,
            name in choices
        ])  # fmt: skip
        for (one, drawn, name), law in zip(choices, laws, strict=True):
            values = drawn_options(law, one.uniforms(purpose, 1)[:, 0]).tolist()
            drawn.log_q[name] = [law[i, [value]] for i, value in enumerate(values)]
            _set(drawn.states, name, values)

    def _rollings(
        self, asked: Asked, purpose: int, latent: ir.TextLatent, states: Sequence[State]
    ) -> list[Rolling]:
        count = len(asked.keys)
        return asked.target.rollings(
            latent.name,
            states,
            temperatures=asked.ladder,
            component=np.zeros(count, dtype=np.int64)
            if asked.component is None
            else asked.component,
            uniforms=asked.uniforms(purpose, latent.maximum),
            by=self.term(asked.target, latent.name),
        )

    def trace(self, target: Target, states: Sequence[State]) -> Drawn:
        """log q of states that something else has drawn, by the code that draws."""
        log_q: dict[str, list[Floats]] = {}
        for latent in target.latents:
            name, by = latent.name, self.term(target, latent.name)
            if isinstance(latent, ir.ChoiceLatent):
                law = target.choice_log_probs(name, states, by)
                log_q[name] = [law[i, [int(state[name])]] for i, state in enumerate(states)]  # type: ignore[arg-type]
            else:
                log_q[name] = _at_one(target.trace(name, states, (1.0,), by))
        return Drawn(list(states), log_q)

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
        for turn in range(max(len(one.target.latents) for one in wanted)):
            asked = [
                (i, one.target.latents[turn])
                for i, one in enumerate(wanted)
                if turn < len(one.target.latents)
            ]
            asked = [(i, latent) for i, latent in asked if latent.name in self.trained]
            rows = [self._rows(wanted[i], latent) for i, latent in asked]
            laws = opened.laws(rows) if rows else []
            for (i, latent), own, logits in zip(asked, rows, laws, strict=True):
                if isinstance(latent, ir.ChoiceLatent):
                    columns[i].append(self._choice(wanted[i], latent, own, logits))
                    continue
                scores, stop = self._text(wanted[i], latent, logits)
                columns[i].append(scores)
                stops[i] = stop if stop is not None else stops[i]
        return [
            Decisions(torch.cat(some, 1), stop) for some, stop in zip(columns, stops, strict=True)
        ]

    def num_laws(self, wanted: Wanted) -> int:
        """How many laws `decisions` has at most at a time for these states."""
        latents = [latent for latent in wanted.target.latents if latent.name in self.trained]
        return max(self._rows(wanted, latent).num_laws for latent in latents)

    def _rows(self, wanted: Wanted, latent: ir.Latent) -> Rows:
        """The tokens that decide on a latent, of a choice those of every option, behind what stands
        before them.
        """
        target, states = wanted.target, wanted.states
        term = self.term(target, latent.name)
        assert term is not None
        suffixes = target.suffixes(term, states)
        if isinstance(latent, ir.ChoiceLatent):
            options = target.choice_latent(latent.name).options
            pairs = [(suffix, option) for suffix in suffixes for option in options]
        else:
            pairs = list(zip(suffixes, _scored(wanted, latent.name), strict=True))
        return Rows(term.context.prompt, [a + b for a, b in pairs], [len(a) for a, _ in pairs])

    def _text(
        self, wanted: Wanted, latent: ir.TextLatent, logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N, S) log q of every scored position, and (N, T + 1) of the closing token at every
        prefix.
        """
        target, name = wanted.target, latent.name
        bound, scored = target.text_latent(name), _scored(wanted, name)
        logits = _masked(logits, bound, scored)  # (N, S, V)
        total = torch.logsumexp(logits, -1)
        index = torch.zeros(logits.shape[:2], dtype=torch.long)
        real = torch.zeros(logits.shape[:2], dtype=torch.bool)
        for i, tokens in enumerate(scored):
            index[i, : len(tokens)], real[i, : len(tokens)] = (
                torch.tensor(tokens, dtype=torch.long),
                True,
            )
        due = torch.full_like(index, FREE)
        for row, state in zip(due, wanted.states, strict=True):
            settled = bound.stopping.due_when_scored(target.tokens(name, state[name]))
            row[: len(settled)] = torch.from_numpy(settled)
        index, real, due = (part.to(logits.device) for part in (index, real, due))
        scores = _settled(_at(logits, index) - total, due, index).masked_fill(~real, 0.0)
        if wanted.closer is None:
            return scores, None
        closing = torch.full_like(index, wanted.closer)
        stop = _settled(_at(logits, closing) - total, due, closing).masked_fill(~real, 0.0)
        return scores, torch.nn.functional.pad(
            stop, (0, 1)
        )  # a text that is cut or closed needs no end token

    def _choice(
        self, wanted: Wanted, latent: ir.ChoiceLatent, rows: Rows, logits: torch.Tensor
    ) -> torch.Tensor:
        """(N, 1) log q of the chosen option among all."""
        scores = summed(logits, rows)
        law = torch.log_softmax(scores.view(len(wanted.states), -1), -1)
        values = [state[latent.name] for state in wanted.states]
        chosen = torch.tensor(values, device=law.device)
        return law.gather(1, chosen[:, None])


def _scored(wanted: Wanted, name: str) -> list[Tokens]:
    """The tokens of a text that are scored, its end's as well."""
    stopping = wanted.target.text_latent(name).stopping
    return [stopping.scored(wanted.target.tokens(name, state[name])) for state in wanted.states]


def _set(states: Sequence[State], name: str, values: Sequence[Tokens | int]) -> None:
    for state, value in zip(states, values, strict=True):
        state[name] = value  # type: ignore[index]


def _at_one(rollout: Rollout) -> list[Floats]:
    """Per row (S,) log q at the first temperature, 1."""
    return [row[:, 0] for row in rollout.log_proposal]


def _at(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Logits (…, V) at tokens (…,)."""
    return logits.gather(-1, index[..., None])[..., 0]


def _settled(scores: torch.Tensor, due: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log q of tokens (N, S), with no gradient where a tool writes, and a point mass there on what
    is due.
    """
    certain = torch.where(due == tokens, 0.0, -torch.inf).to(scores.dtype)
    return torch.where(due == FREE, scores, certain)


def _masked(logits: torch.Tensor, bound: BoundText, scored: Sequence[Tokens]) -> torch.Tensor:
    """Logits (N, S, V) without the tokens that cannot come next, as a rollout leaves them out."""
    if not bound.stopping.end_allowed:
        never = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        never[bound.stopping.end] = True
        logits = logits.masked_fill(never, -torch.inf)
    if bound.masks is None:
        return logits
    return logits.masked_fill(
        ~torch.from_numpy(_allowed(bound, scored, logits.shape)).to(logits.device), -torch.inf
    )


def _allowed(bound: BoundText, scored: Sequence[Tokens], shape: Sequence[int]) -> NDArray[np.bool_]:
    """(N, S, V) which tokens the constraints leave open before each scored token; all where they
    leave none.
    """
    assert bound.masks is not None
    allowed = np.ones(tuple(shape), dtype=bool)
    for row, tokens in zip(allowed, scored, strict=True):
        here = bound.masks.along(tokens).numpy()
        if not bound.stopping.end_allowed:
            here[:, bound.stopping.end] = False
        row[: len(tokens)] = here | ~here.any(1, keepdims=True)
    return allowed
