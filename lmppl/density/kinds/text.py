"""A text latent: its prior is a product of powers of models' laws, run until the text stops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from lmppl import ir
from lmppl.decoding import ABSENT, FREE, LookAhead, Masks, Rollout, Stopping, tools_of
from lmppl.density.binder import Binder
from lmppl.density.branches import is_never, judged_by
from lmppl.density.context import Fixed
from lmppl.density.folding import TENSORS
from lmppl.density.kinds.guards import (
    BoundGuard,
    bind_guard,
    is_observed,
    observe_absent,
    present,
    reads_of,
)
from lmppl.density.kinds.listing import every_text, few_texts
from lmppl.density.kinds.text_decisions import text_decisions
from lmppl.density.latent_draws import Drawer, Drawing, LatentDraws, Manner
from lmppl.density.scoring import Entry, Floats
from lmppl.density.terms import BoundTerm
from lmppl.density.values import State
from lmppl.density.views import View
from lmppl.errors import LmpplError
from lmppl.expressions import Reading, necessary
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Rows, Tokens, is_decoder

T = TypeVar("T")
NO_LAWS = "the model draws texts by itself"
NO_BYTES = "the text of a token of this tokenizer depends on the tokens beside it"


@dataclass(frozen=True)
class BoundText:
    """A text latent: its prior's terms, and when it ends."""

    latent: ir.TextLatent
    terms: tuple[BoundTerm, ...]
    stopping: Stopping
    masks: Masks | None = None  # which tokens its constraints leave open, where that can be told
    guard: BoundGuard | None = None  # a state has the text where it holds

    @property
    def name(self) -> str:
        """The latent's."""
        return self.latent.name

    @property
    def looks_ahead(self) -> bool:
        """Whether there is a `look_ahead`."""
        return self.look_ahead() is not None

    def look_ahead(self) -> LookAhead | None:
        """What learns how probable it is that a text meets its constraints in the end; None where
        no automaton tells.
        """
        return None if self.masks is None else self.masks.look_ahead(self.stopping)

    @property
    def reads(self) -> set[str]:
        """Latents that its contexts show, and its guard reads."""
        return set().union(*(term.reads for term in self.terms), reads_of(self.guard))

    def is_absent(self, value: Tokens | int) -> bool:
        """Whether a value is that of a text which is not there."""
        return value == ABSENT

    @property
    def longest(self) -> int:
        """Most tokens of a value."""
        return self.latent.maximum

    @property
    def num_decisions(self) -> int:
        """Most decisions that a value is drawn by: its tokens."""
        return self.latent.maximum

    def by_kind(self, text: Callable[[BoundText], T], choice: Callable[..., T]) -> T:
        """What a caller does with a text; it says it for every kind of latent."""
        return text(self)

    def upper_bound(self, limits: dict[str, int]) -> float:
        """0 where no text can have a log prior above 0, else inf."""
        return 0.0 if all(term.power >= 0 for term in self.terms) else np.inf

    def tokens(self, value: Tokens | int) -> Tokens:
        """Tokens of a value; none of a text that is not there."""
        assert isinstance(value, tuple)
        return () if value == ABSENT else value

    def text(self, value: Tokens | int) -> str:
        """Text of a value."""
        return self.stopping.decode(self.tokens(value))

    def spelling(self, value: Tokens | int) -> tuple[Tokens, list[bool]]:
        """Tokens of a value that are scored, its end's as well, and which of them no tool wrote."""
        assert isinstance(value, tuple)
        free = self.stopping.due_when_scored(value) == FREE
        return self.stopping.scored(value), free.tolist()

    def legal(self, value: Tokens | int) -> bool:
        """Whether a text may end as it does."""
        assert isinstance(value, tuple)
        return self.stopping.legal(value)

    def sizes(self, values: Sequence[Tokens | int]) -> tuple[str, list[int]]:
        """Numbers of tokens; -1 where there is no text."""
        counts = [-1 if value == ABSENT else len(self.tokens(value)) for value in values]
        return f"tokens({self.name})", counts

    def value_of(self, text: str, tokens: Tokens) -> Tokens:
        """The value that a draw had, by its tokens."""
        return tokens

    @property
    def count(self) -> float:
        """Most values that a state can give it, illegal ones included; inf where it is no
        number.
        """
        size = float(self.terms[0].model.vocabulary_size)
        return sum(size**n for n in range(self.longest + 1)) if self.longest < 60 else np.inf

    def every_value(self, there: bool = True) -> Iterator[Tokens]:
        """Every legal text, whatever its probability. there: whether there is a text."""
        if not there:
            return iter([ABSENT])
        return every_text(self.stopping, self.terms[0].model.vocabulary_size)

    @property
    def alternatives(self) -> None:
        """Every value, where all are weighed at once: texts are too many."""
        return None

    def few_values(self, most: int) -> list[Tokens] | None:
        """Every legal text that masks allow; None where there are more than `most`, or no masks.

        None as well where too many prefixes have to be followed to tell.
        """
        return None if self.masks is None else few_texts(self.stopping, self.masks, most)

    @property
    def supports(self) -> tuple[BoundTerm, ...]:
        """At power 0, the terms of the prior that keep some tokens only: what draws the text in
        place of the prior draws among these.
        """
        laws = [(term, term.model.local_law) for term in self.terms]
        return tuple(replace(t, power=0.0) for t, law in laws if law is not None and law.truncates)

    def by(self, term: BoundTerm) -> BoundText:
        """The same text drawn by another term, among the tokens that the prior keeps."""
        others = [own for own in self.supports if replace(own, power=term.power) != term]
        return replace(self, terms=(term, *others))

    def entry(self, views: Sequence[View], legal: bool = True) -> Entry:
        """(N,) log prior. legal: -inf for texts that may not end as they do, or have a token that a
        local law cuts away; else these are scored as they are, by laws that keep all tokens.
        """
        tokens = [ABSENT if self.name in view.absent else view.tokens[self.name] for view in views]
        # a text that is there where there is none is impossible, and so is one that is missing
        there = np.array([row != ABSENT for row in tokens]) == present(self.guard, views)
        ended = np.array([not legal or self.stopping.legal(row) for row in tokens], dtype=bool)
        kept = there & ended
        parts = [
            (i, part)
            for i in np.flatnonzero(kept).tolist()
            for part in self.stopping.parts(tokens[i])
        ]
        owners, targets = [i for i, _ in parts], [part for _, part in parts]
        powers = [term.power for term in self.terms]
        terms = self.terms if legal else [term.untruncated for term in self.terms]
        return Entry(
            [term.scored(targets, owners, views) for term in terms],
            lambda scores, fold: fold.where(
                kept, fold.by_owner(owners, fold.sum_of(powers, scores), len(views))
            ),
        )

    # --- drawing ---------------------------------------------------------------------------------

    def drawing(
        self, drawer: Drawer, states: Sequence[State], uniforms: Floats, manner: Manner
    ) -> Drawing:
        """A text for every state, given the latents before it. uniforms: (N, num_decisions)"""
        rollings = drawer.rollings(
            self.name,
            states,
            temperatures=manner.temperatures,
            component=manner.components(len(states)),
            uniforms=uniforms,
            by=manner.by,
            masked=manner.masked,
            top_p=manner.top_p,
            pasts=[None] * len(states) if manner.remember else None,
        )
        return Drawing(rollings, (), lambda rollouts, _: _draws(Rollout.joined(rollouts)))

    def traced(
        self,
        drawer: Drawer,
        states: Sequence[State],
        temperatures: Sequence[float] = (1.0,),
        by: BoundTerm | None = None,
    ) -> LatentDraws:
        """What `drawing` would have said of the texts that states have."""
        return _draws(drawer.trace(self.name, states, temperatures, by))

    # --- with gradients --------------------------------------------------------------------------

    def deciding(self, value: Tokens | int) -> list[Tokens]:
        """Rows of tokens that a model is asked about to tell how probable a value is: its own;
        none where there is no text.
        """
        return [] if value == ABSENT else [self.stopping.scored(self.tokens(value))]

    def decided(
        self,
        values: Sequence[Tokens | int],
        rows: Rows,
        logits: torch.Tensor,
        closer: int | None = None,
        kept: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N, S) log q of every decision with gradients, and (N, S + 1) that of the token `closer`
        at every prefix.

        rows: `deciding` of each value behind its context; logits: (N, S, V) before their tokens.
        kept: (N, S, V) tokens that the prior keeps there; all where it is None.
        """
        there = [i for i, value in enumerate(values) if value != ABSENT]
        texts = [self.tokens(values[i]) for i in there]
        if kept is not None:
            logits = logits.masked_fill(~kept.to(logits.device), -torch.inf)
        scores, stop = text_decisions(self.stopping, self.masks, texts, logits, closer)
        if stop is not None:
            stop = TENSORS.placed(there, stop, len(values))
        return TENSORS.placed(there, scores, len(values)), stop


def _draws(rollout: Rollout) -> LatentDraws:
    return LatentDraws(rollout.tokens, rollout.log_prior, rollout.log_proposal, rollout)


# --- binding --------------------------------------------------------------------------------------


def bind_text(binder: Binder, latent: ir.TextLatent) -> BoundText:
    """The latent under its models; findings where it cannot end, and its value where the row has
    one.
    """
    terms = tuple(binder.term(term) for term in latent.terms)
    model, source, guard = terms[0].model, binder.program.source, bind_guard(binder, latent)
    if len({term.model.tokenizer_fingerprint for term in terms}) > 1:
        names = [term.model for term in latent.terms]
        binder.findings.append(run_findings.different_tokenizers(latent, names, source))
    if latent.until is not None and model.end in model.encode(latent.until, markers=True):
        binder.findings.append(run_findings.until_end_token(latent, source))
    elif latent.until is not None and not _can_complete(latent.until, model):
        binder.findings.append(run_findings.until_unreachable(latent, source))
    for tool in latent.tools:
        if not _can_complete(tool.trigger, model):
            binder.findings.append(run_findings.trigger_unreachable(latent, tool, source))
    encode = partial(model.encode, markers=False)
    tools = tools_of(latent, binder.helpers, source, encode, model.decode)
    stopping = Stopping(latent.until, latent.maximum, model.end, model.decode, tools)
    if is_never(latent.guard):
        observe_absent(binder, latent, ABSENT)
        return BoundText(latent, terms, stopping, guard=guard)
    if is_observed(binder, latent):
        _observe(binder, latent, model, stopping)
    return BoundText(latent, terms, stopping, _masks(binder, latent, model), guard)


def _can_complete(until: str, model: LanguageModel) -> bool:
    """False where the model's vocabulary cannot write the text at all: encoding does not survive
    decoding.
    """
    for text in (f"a{until}", until):
        with suppress(LmpplError):  # as where a table has no piece for the letter
            if until in model.decode(model.encode(text, markers=True)):
                return True
    return False


def _observe(
    binder: Binder, latent: ir.TextLatent, model: LanguageModel, stopping: Stopping
) -> None:
    """Take the row's value of the latent."""
    value = binder.row.observed[latent.shown]
    if stopping.tools is None or latent.shown in binder.tokens:
        tokens = binder.encode(latent.shown, value, model)
    else:
        tokens = stopping.tools.tokens_of(value)
    if not stopping.legal(tokens):
        binder.findings.append(
            run_findings.observed_impossible(latent, value, len(tokens), binder.program.source)
        )
    if latent.shown not in binder.tokens:
        binder.read_back(f"`{latent.shown}`", value, tokens, model, latent.span)
    binder.observed[latent.name] = Fixed(value, tokens), tokens


# --- masks ----------------------------------------------------------------------------------------


def _masks(binder: Binder, latent: ir.TextLatent, model: LanguageModel) -> Masks | None:
    """What the constraints on this text alone say of its next token; a finding where no text meets
    them.
    """
    program, observed = binder.program, binder.fixed
    reading = binder.reading(latent.name)
    own = [c for c in program.constraints if judged_by(program, c) - {*observed} == {latent.name}]
    own = [replace(c, expression=program.expanded(c.expression, reading.values)) for c in own]
    condition = necessary([c.expression for c in own], reading, latent.until)
    if condition is None or latent.name in observed:
        return None
    if model.token_bytes is None:
        blind = [c for c in own if necessary([c.expression], reading) is not None]
        binder.findings += [run_findings.unguided(c, NO_BYTES, program.source) for c in blind]
        return None
    masks = Masks(condition, model, latent.maximum)
    if masks.impossible:
        culprits = _culprits(own, reading, latent, model)
        binder.findings.append(run_findings.unsatisfiable(culprits, program.source))
    if not is_decoder(model):
        binder.findings += [run_findings.unguided(c, NO_LAWS, program.source) for c in own]
        return None
    return masks


def _culprits(
    constraints: Sequence[ir.Constraint],
    reading: Reading,
    latent: ir.TextLatent,
    model: LanguageModel,
) -> list[ir.Constraint]:
    """Constraints that no text meets by themselves; all of them where only their meeting is
    impossible.
    """
    alone = [(c, necessary([c.expression], reading, latent.until)) for c in constraints]
    masks = [
        (c, Masks(condition, model, latent.maximum))
        for c, condition in alone
        if condition is not None
    ]
    return [c for c, mask in masks if mask.impossible] or list(constraints)
