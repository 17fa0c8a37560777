"""A program bound to models and one data row: the log density, batched, and draws from its prior.

This is the only thing that engines see. It owns contexts, batching and prompts; it knows no syntax
and no engine. All log densities are in nats and summed in float64; -inf means impossible.

A state gives every latent its value: a text latent its tokens (without the end token), a choice
latent the index of its option. Latents that the row observes are fixed and are no part of what
engines move.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl import ir
from lmppl.decoding import (
    ABSENT,
    Again,
    Growth,
    LookAhead,
    Pasts,
    Plan,
    Rolling,
    Rollout,
    roll_out,
    trace,
)
from lmppl.density import drawing
from lmppl.density.kinds import (
    BoundChoice,
    BoundExpression,
    BoundFactor,
    BoundLatent,
    BoundScoredText,
    BoundText,
    present,
)
from lmppl.density.latent_draws import LatentDraws, Manner, drawn
from lmppl.density.learned_proposal import LearnedProposal
from lmppl.density.running_prior import Prefixes, running_prior
from lmppl.density.scoring import Entry, Floats, evaluated
from lmppl.density.spelling import Spelling
from lmppl.density.statistics import Number, number_of, value_of
from lmppl.density.terms import BoundTerm
from lmppl.density.values import Begun, Density, State
from lmppl.density.views import View
from lmppl.expressions import Helper, Value
from lmppl.lm import LanguageModel, Stream, Tokens


def log_densities(asked: Sequence[tuple[Target, Sequence[State]]]) -> list[Density]:
    """Of states of several targets; models are asked all of it at once."""
    begun = [target.begun(states) for target, states in asked]
    values = iter(evaluated([entry for one in begun for entry in one.entries]))
    return [one.conclude([*islice(values, len(one.entries))]) for one in begun]


def prepare(targets: Sequence[Target]) -> None:
    """Run the prompts that densities of some targets go through side by side."""
    terms = [term for target in targets for term in target.terms]
    for model in {id(term.model.root): term.model for term in terms}.values():
        model.prepare([t.context.prompt for t in terms if t.model.root is model.root])


class Target:
    """The log density that a program denotes for one row, and rollouts of its prior."""

    def __init__(
        self,
        program: ir.Program,
        latents: Sequence[BoundLatent],
        scored: Sequence[BoundScoredText],
        expressions: Sequence[BoundExpression],
        *,
        models: Mapping[str, LanguageModel],
        guides: Mapping[str, BoundTerm],
        givens: Mapping[str, Value],
        observed: Mapping[str, Tokens | int],
        helpers: Mapping[str, Helper],
        batch_size: int = 64,
    ) -> None:
        self.program = program
        self.models = models
        self.observed = dict(observed)
        self.batch_size = batch_size
        # lent by who runs an engine whose options ask for it
        self.proposal: LearnedProposal | None = None
        self._latents = {bound.name: bound for bound in latents}
        self._scored = {bound.name: bound for bound in scored}
        self._expressions = {bound.name: bound for bound in expressions}
        bound: dict[str, BoundFactor] = {**self._scored, **self._expressions}
        self._factors = {factor.name: bound[factor.name] for factor in program.factors}
        # what a density is the sum of: every latent's prior, then every factor
        self._entries: dict[str, BoundLatent | BoundFactor] = {**self._latents, **self._factors}
        self._limits = {latent.name: latent.maximum for latent in program.texts}
        self._guides = dict(guides)
        self.spelling = Spelling(
            self._latents,
            self.observed,
            dict(givens),
            dict(helpers),
            models,
            program.folder,
            {derived.name: derived.expression for derived in program.derived},
            program.source,
        )
        # latents to infer, in program order
        self.latents: tuple[ir.Latent, ...] = tuple(
            bound.latent for name, bound in self._latents.items() if name not in self.observed
        )
        self.texts = tuple(text for text in program.texts if text.name not in self.observed)
        self.choices = tuple(one for one in program.choices if one.name not in self.observed)

    # --- what there is ---------------------------------------------------------------------------

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Keys of a density's breakdown: every latent's prior, then every factor."""
        return tuple(self._entries)

    @property
    def terms(self) -> list[BoundTerm]:
        """Everything that a model scores: of priors, and of observations."""
        return [term for bound in self._entries.values() for term in bound.terms]

    def latent(self, name: str) -> BoundLatent:
        """A latent, bound."""
        return self._latents[name]

    def text_latent(self, name: str) -> BoundText:
        """A text latent, bound."""
        bound = self._latents[name]
        assert isinstance(bound, BoundText)
        return bound

    def scored_text(self, name: str) -> BoundScoredText:
        """A factor that scores a text, bound."""
        return self._scored[name]

    def choice_latent(self, name: str) -> BoundChoice:
        """A choice latent, bound."""
        bound = self._latents[name]
        assert isinstance(bound, BoundChoice)
        return bound

    def tokens(self, name: str, value: Tokens | int) -> Tokens:
        """Tokens of a latent's value."""
        return self._latents[name].tokens(value)

    def text(self, name: str, value: Tokens | int) -> str:
        """Text of a latent's value."""
        return self._latents[name].text(value)

    def is_there(self, name: str, states: Sequence[State]) -> NDArray[np.bool_]:
        """(N,) which states have a latent, given the latents before it, or a factor: all, where it
        has no guard.
        """
        guard = self._entries[name].guard
        views = [] if guard is None else self.spelling.views(states)
        return present(guard, views) if views else np.ones(len(states), dtype=bool)

    def every_value(self, name: str, state: State) -> Iterable[Tokens | int]:
        """Every value that a latent can have, given the latents before it."""
        return self._latents[name].every_value(bool(self.is_there(name, [state])[0]))

    def among(
        self, name: str, state: State, values: Sequence[Tokens | int]
    ) -> Iterable[Tokens | int]:
        """Those of a latent's values that a state can have: the one that is not there, or all."""
        there = bool(self.is_there(name, [state])[0])
        return values if there else self._latents[name].every_value(there)

    def beginning(self, name: str, state: State) -> Tokens:
        """What a text begins as, given the latents before it: empty, or the value that is not
        there.
        """
        return self._kept(name, [state])[0]

    def texts_of(self, state: State) -> dict[str, str | None]:
        """Texts of a state's latents; None of those that are not there, the row's own included."""
        return {
            name: None if bound.is_absent(value) else bound.text(value)
            for name, (bound, value) in self._drawn(state).items()
        }

    def tokens_of(self, state: State) -> dict[str, list[int]]:
        """Tokens of a state's latents; none of those that are not there."""
        return {name: [*bound.tokens(value)] for name, (bound, value) in self._drawn(state).items()}

    def _drawn(self, state: State) -> dict[str, tuple[BoundLatent, Tokens | int]]:
        """By names as they were written, latents that the row does not observe to be there, and
        what they are: of several arms, the one that is there.
        """
        found: dict[str, tuple[BoundLatent, Tokens | int]] = {}
        seen: set[str] = set()
        for name, bound in self._latents.items():
            value, shown = state.get(name, self.observed.get(name)), bound.latent.shown
            if value is None:
                continue
            if name not in state and not bound.is_absent(value):
                seen.add(shown)
            elif shown not in found or not bound.is_absent(value):
                found[shown] = bound, value
        return {name: one for name, one in found.items() if name not in seen}

    def state_of(
        self, texts: Mapping[str, str | None], tokens: Mapping[str, Sequence[int]]
    ) -> State:
        """The state that a draw was, by the latents' texts and tokens."""
        state: dict[str, Tokens | int] = {}
        for latent in self.latents:
            bound, text = self._latents[latent.name], texts[latent.shown]
            if text is None or not self.is_there(latent.name, [state])[0]:
                (state[latent.name],) = bound.every_value(there=False)
            else:
                state[latent.name] = bound.value_of(text, tuple(tokens[latent.shown]))
        return state

    def num_scored(self, name: str, tokens: Tokens) -> int:
        """|z|: positions of a text, the end token counted where it was drawn."""
        return len(self.text_latent(name).stopping.scored(tokens))

    @property
    def factor_upper_bound(self) -> float:
        """Upper bound of the sum of all factors but the priors of the latents to infer; inf where
        there is none.
        """
        return sum(factor.upper_bound(self._limits) for factor in self._factors.values())

    def upper_bound_of(self, factor_name: str) -> float:
        """Upper bound of one factor; inf where there is none."""
        return self._factors[factor_name].upper_bound(self._limits)

    def upper_bound_after(self, name: str) -> float:
        """Upper bound of the sum of all entries that a latent's value can change, its own prior
        left out.
        """
        affected = self.affected_by(name) - {name}
        bounds = [
            b.upper_bound(self._limits) for key, b in self._entries.items() if key in affected
        ]
        return sum(bounds)

    # --- the log density -------------------------------------------------------------------------

    def log_density(
        self, states: Sequence[State], known: Mapping[str, Floats] | None = None
    ) -> Density:
        """Log density of states, or where all lack the same latents, of what the others determine.
        known: breakdown entries the caller has, not computed again. (N,) each."""
        begun = self.begun(states, known)
        return begun.conclude(evaluated(begun.entries))

    def begun(self, states: Sequence[State], known: Mapping[str, Floats] | None = None) -> Begun:
        """The log density of states up to what models are asked for it."""
        views = self.spelling.views(states)
        given = {*self.observed, *(states[0] if states else self._latents)}
        asked = [
            *(bound for name, bound in self._latents.items() if name in given),
            *self._scored.values(),
        ]
        judged = [factor for factor in self._expressions.values() if factor.reads <= given]
        parts: dict[str, Floats] = dict(known or {})
        entries = {
            bound.name: bound.entry(views)
            for bound in asked
            if bound.reads <= given and bound.name not in parts
        }

        def conclude(answers: Sequence[Floats]) -> Density:
            parts.update(zip(entries, answers, strict=True))
            return self._concluded(parts, judged, views)

        return Begun(list(entries.values()), conclude)

    def _concluded(
        self,
        parts: dict[str, Floats],
        factors: Sequence[BoundExpression],
        views: Sequence[View],
    ) -> Density:
        """The density of what models have said; the expressions of the program are added."""
        possible = np.array(True)
        if factors:
            possible = np.all([values > -np.inf for values in parts.values()], axis=0)
        # constraints first: a score need not be defined where one fails
        for factor in sorted(factors, key=lambda factor: not factor.factor.hard):
            if factor.name not in parts:
                parts[factor.name] = _judged(factor, views, possible)
                possible &= parts[factor.name] > -np.inf
        ordered = {name: parts[name] for name in self.factor_names if name in parts}
        return Density(np.sum(list(ordered.values()), axis=0), ordered)

    def entry(self, name: str, views: Sequence[View]) -> Entry:
        """What models are asked for one part of the density, a latent's prior or a factor."""
        return {**self._latents, **self._scored}[name].entry(views)

    def affected_by(self, name: str) -> set[str]:
        """Breakdown entries that can change when this latent's value does."""
        return {name} | {key for key, bound in self._entries.items() if name in bound.reads}

    def prefixes(self, name: str, states: Sequence[State]) -> list[Prefixes]:
        """Running log prior of a text latent and of stopping, at every prefix, one pass a model."""
        return running_prior(self.text_latent(name), self.spelling.views(states))

    def log_prior(self, name: str, states: Sequence[State], *, legal: bool = True) -> Floats:
        """(N,) log prior of one latent's values, the prior's powers applied; later latents may be
        missing. legal: False scores texts that may not end so, or that local laws cut away, as
        well, in place of -inf."""
        views = self.spelling.views(states)
        return evaluated([self._latents[name].entry(views, legal)])[0]

    def choice_log_probs(
        self, name: str, states: Sequence[State], by: BoundTerm | None = None
    ) -> Floats:
        """(N, options) log prior of every option given the latents before it. by: the term in place
        of the prior's.
        """
        return evaluated([self.choice_law(name, states, by)])[0]

    def choice_law(self, name: str, states: Sequence[State], by: BoundTerm | None = None) -> Entry:
        """As `choice_log_probs`, but for what the model says."""
        bound = self.choice_latent(name)
        bound = bound if by is None else bound.by(by)
        return bound.law(self.spelling.views(states))

    def statistics(self, state: State) -> dict[str, float]:
        """The numbers that the program asks to see of a state; NaN where there is none."""
        return {name: found.value for name, found in self.numbers(state).items()}

    def numbers(self, state: State) -> dict[str, Number]:
        """The statistics of a state, with the reason where there is no number."""
        environment = self.spelling.view(state).environment
        return {s.name: number_of(s, environment) for s in self.program.statistics}

    def derived(self, state: State) -> dict[str, Value]:
        """What is derived from a state, by name."""
        environment = self.spelling.view(state).environment
        return {one.name: value_of(one.name, environment) for one in self.program.derived}

    # --- draws of a latent of any kind --------------------------------------------------------

    def draw(
        self, name: str, states: Sequence[State], uniforms: Floats, manner: Manner
    ) -> LatentDraws:
        """Values of a latent for every state, given the latents before it. uniforms:
        (N, num_decisions), as the latent says.
        """
        drawing = self.latent(name).drawing(self, states, uniforms, manner)
        return drawn([drawing], self.batch_size)[0]

    # --- rollouts --------------------------------------------------------------------------------

    def roll_out(self, name: str, states: Sequence[State], **how: Any) -> Rollout:
        """Draw a text latent for every state, given the latents before it. how: see `rollings`."""
        return self._run(self.rollings(name, states, **how))

    def rollings(
        self,
        name: str,
        states: Sequence[State],
        *,
        temperatures: Sequence[float],
        component: NDArray[np.int64],
        uniforms: Floats,
        kept: Sequence[Tokens] | None = None,
        forced: NDArray[np.int64] | None = None,
        least_gain: Floats | None = None,
        by: BoundTerm | None = None,
        masked: bool = True,
        top_p: float = 1.0,
        again: Again | None = None,
        pasts: Sequence[Pasts | None] | None = None,
    ) -> list[Rolling]:
        """What `roll_out` runs, one a batch, so that it can be run together with other targets'
        (rollout.roll_out).

        temperatures: (K,) of the proposals; component: (N,) which of them draws each row;
        uniforms: (N, maximum), by position in the text; kept: the beginning of each text, not drawn
        again; forced: (N, maximum), by position, tokens to append in place of drawn ones, FREE for
        none; least_gain: (N,) rows whose Σ (log prior − log q) falls below it are given up;
        by: the term that draws, in place of the prior's (log_prior is then its own), among the
        tokens that local laws of the prior keep;
        masked: draw under the latent's constraints, as far as they say what may come next;
        top_p: draw from this share of the law only, which breaks its support: for `prompting`
        alone; again: what a row, by number, goes on with that was given up; what comes back is its
        last text; pasts: (N,) what was run of each row's earlier texts; given, the rollout tells
        what it has run.
        """
        bound = self.text_latent(name)
        bound = bound if by is None else bound.by(by)
        text = replace(bound, masks=bound.masks if masked else None)
        plan = Plan(temperatures, component, uniforms, forced, least_gain, top_p)
        kept, size = self._kept(name, states, kept), self.batch_size
        return [*drawing.batched(text, self.spelling, states, kept, plan, size, again, pasts)]

    def trace(
        self,
        name: str,
        states: Sequence[State],
        temperatures: Sequence[float],
        by: BoundTerm | None = None,
    ) -> Rollout:
        """Per-token scores of texts as they are, under the laws that draw them, from one pass a
        model.
        """
        bound = self.text_latent(name)
        bound = bound if by is None else bound.by(by)
        powers = [term.power for term in bound.terms]
        texts: list[Any] = [state[name] for state in states]
        begin = drawing.beginnings(bound, self.spelling, states)
        return trace(begin, powers, bound.stopping, texts, temperatures)

    def roll_out_scored(
        self, name: str, component: int, states: Sequence[State], uniforms: Floats
    ) -> list[Tokens]:
        """Draw the text that a factor scores, under one of its terms at power 1, for every state:
        as many tokens as it has. (N, tokens)
        """
        text = drawing.endless(self._scored[name], component)
        plan = Plan((1.0,), np.zeros(len(states), dtype=np.int64), uniforms)
        nothing: list[Tokens] = [()] * len(states)
        rollings = drawing.batched(text, self.spelling, states, nothing, plan, self.batch_size)
        return self._run([*rollings]).tokens

    def _kept(
        self, name: str, states: Sequence[State], kept: Sequence[Tokens] | None = None
    ) -> list[Tokens]:
        """The beginnings of texts, by default empty ones; those that are not there are over."""
        kept, there = kept or [()] * len(states), self.is_there(name, states)
        return [text if here else ABSENT for text, here in zip(kept, there, strict=True)]

    def _run(self, rollings: Sequence[Rolling]) -> Rollout:
        return Rollout.joined(roll_out(rollings, self.batch_size))

    def grow(
        self,
        name: str,
        states: Sequence[State],
        temperature: float,
        ahead: LookAhead | None = None,
    ) -> Growth:
        """Texts of a latent, one a state, given the latents before it, to be grown token by token
        in one batch. ahead: what looks ahead of them, and learns from what it meets.
        """
        text, kept = self.text_latent(name), self._kept(name, states)
        return drawing.growth(text, self.spelling, states, kept, temperature, ahead)

    def next_log_probs(
        self, name: str, states: Sequence[State], prefixes: Sequence[Tokens]
    ) -> Floats:
        """(N, V) Σ aᵢ log pᵢ of the next token of a text latent after each prefix, nothing masked;
        what a tool writes there is the one token that may come, at 0."""
        text = replace(self.text_latent(name), masks=None)
        return drawing.next_log_probs(text, self.spelling, states, prefixes, self.batch_size)

    def guided_stream(self, name: str, state: State) -> Stream:
        """One row that a text latent's guide goes on with, to be pushed token by token."""
        text = replace(self.text_latent(name), terms=(self.guide(name),), masks=None)
        return drawing.stream(text, self.spelling, state)

    def kept(self, name: str, states: Sequence[State]) -> torch.Tensor | None:
        """(N, S, V) which tokens local laws keep at every scored position of the texts of a latent,
        those that the texts have among them; None where all are kept, or it is no text.
        """
        return drawing.kept(self._latents[name], self.spelling, states)

    def suffixes(self, term: BoundTerm, states: Sequence[State]) -> list[Tokens]:
        """Per state, the tokens of a term's context that follow its prompt."""
        return term.suffixes(self.spelling.views(states))

    def guide(self, name: str) -> BoundTerm:
        """The latent's `guide` context under its model; the context of its prior where it has
        none.
        """
        if name in self._guides:
            return self._guides[name]
        term = self._latents[name].terms[0]
        return BoundTerm(term.model, term.context, 1.0)

    # --- constraints -----------------------------------------------------------------------------

    def constraints_on(self, name: str) -> tuple[ir.Constraint, ...]:
        """Constraints that can be judged as soon as this latent is known, and not before."""
        order = [latent.name for latent in self.latents]
        known = {*order[: order.index(name) + 1], *self.observed}
        scopes = [(one, self.program.scope(one)) for one in self.program.constraints]
        return tuple(one for one, scope in scopes if name in scope and scope <= known)

    def holds(self, constraints: Sequence[ir.Constraint], state: State) -> bool:
        """Whether a state, whole as far as they read it, meets all of these constraints."""
        view = self.spelling.view(state)
        return all(self._expressions[c.name].value(view) == 0 for c in constraints)


def _judged(factor: BoundExpression, views: Sequence[View], possible: NDArray[np.bool_]) -> Floats:
    """Values of an expression's factor. States already known to be impossible are not evaluated:
    they get 0.
    """
    values = np.zeros(len(views))
    for i in np.flatnonzero(possible):
        values[i] = factor.value(views[int(i)])
    return values
