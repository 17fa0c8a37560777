"""A choice latent: one of few texts, by the model's probability of each, renormalised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl import ir
from lmppl.decoding import Rollout
from lmppl.density.binder import Binder
from lmppl.density.branches import is_never
from lmppl.density.context import Fixed, encode
from lmppl.density.folding import TENSORS
from lmppl.density.kinds.guards import (
    BoundGuard,
    bind_guard,
    is_observed,
    observe_absent,
    present,
    reads_of,
    where_present,
)
from lmppl.density.latent_draws import Drawer, Drawing, LatentDraws, Manner
from lmppl.density.scoring import Entry, Floats, evaluated
from lmppl.density.terms import BoundTerm
from lmppl.density.values import State
from lmppl.density.views import View
from lmppl.errors import Diagnostic
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Rows, Tokens, summed
from lmppl.source import Source

T = TypeVar("T")


@dataclass(frozen=True)
class BoundChoice:
    """A choice latent: its prior's term, and the tokens of each option."""

    latent: ir.ChoiceLatent
    terms: tuple[BoundTerm]
    options: tuple[Tokens, ...]
    guard: BoundGuard | None = None  # a state has the choice where it holds

    @property
    def name(self) -> str:
        """The latent's."""
        return self.latent.name

    @property
    def reads(self) -> set[str]:
        """Latents that its context shows, and its guard reads."""
        return self.terms[0].reads | reads_of(self.guard)

    @property
    def absent(self) -> int:
        """The value of a choice that is not there: behind the last option."""
        return len(self.options)

    def is_absent(self, value: Tokens | int) -> bool:
        """Whether a value is that of a choice which is not there."""
        return value == self.absent

    @property
    def longest(self) -> int:
        """Most tokens of a value."""
        return max(map(len, self.options), default=0)

    @property
    def num_decisions(self) -> int:
        """Most decisions that a value is drawn by: one, among the options."""
        return 1

    def by_kind(self, text: Callable[..., T], choice: Callable[[BoundChoice], T]) -> T:
        """What a caller does with a choice; it says it for every kind of latent."""
        return choice(self)

    def upper_bound(self, limits: dict[str, int]) -> float:
        """Probabilities of options add up to 1."""
        return 0.0

    def tokens(self, value: Tokens | int) -> Tokens:
        """Tokens of a value; none of a choice that is not there."""
        assert isinstance(value, int)
        return () if value == self.absent else self.options[value]

    def text(self, value: Tokens | int) -> str:
        """Text of a value; empty for a choice that is not there."""
        assert isinstance(value, int)
        return "" if value == self.absent else self.latent.options[value]

    def spelling(self, value: Tokens | int) -> tuple[Tokens, list[bool]]:
        """Tokens of a value that are scored: all are chosen."""
        tokens = self.tokens(value)
        return tokens, [True] * len(tokens)

    def legal(self, value: Tokens | int) -> bool:
        """Whether a value is one: every option is."""
        return True

    def sizes(self, values: Sequence[Tokens | int]) -> tuple[str, list[int]]:
        """Places of values among the options."""
        return f"option of {self.name}", [value for value in values if isinstance(value, int)]

    def value_of(self, text: str, tokens: Tokens) -> int:
        """The value that a draw had, by its text."""
        return self.latent.options.index(text)

    @property
    def count(self) -> float:
        """Most values that a state can give it."""
        return float(len(self.options))

    def every_value(self, there: bool = True) -> range:
        """Every value. there: whether there is a choice."""
        return range(self.absent) if there else range(self.absent, self.absent + 1)

    @property
    def alternatives(self) -> range:
        """Every value, where all are weighed at once."""
        return range(len(self.options) + (self.guard is not None))

    def few_values(self, most: int) -> range:
        """Every value: they are few."""
        return self.every_value()

    def by(self, term: BoundTerm) -> BoundChoice:
        """The same choice under another term."""
        return replace(self, terms=(term,))

    def law(self, views: Sequence[View]) -> Entry:
        """(N, options) log prior of every option; one more behind them, of there being none, where
        the choice has a guard.
        """
        if self.guard is None:
            return self._law(views)
        there = present(self.guard, views)
        entry = where_present(self.guard, views, self._law)
        return Entry(
            entry.scored, lambda scores, fold: fold.or_none(entry.fold(scores, fold), there)
        )

    def _law(self, views: Sequence[View]) -> Entry:
        targets = [(option, 0) for option in self.options] * len(views)
        owners = [i for i in range(len(views)) for _ in self.options]
        return Entry(
            [self.terms[0].scored(targets, owners, views)],
            lambda scores, fold: fold.normalised(scores[0], len(self.options)),
        )

    def entry(self, views: Sequence[View], legal: bool = True) -> Entry:
        """(N,) log prior of the values that states have. legal: False for that by a law that keeps
        all tokens.
        """
        law = self.law(views) if legal else self.by(self.terms[0].untruncated).law(views)
        rows, chosen = np.arange(len(views)), [view.choices[self.name] for view in views]
        return Entry(law.scored, lambda scores, fold: law.fold(scores, fold)[rows, chosen])

    # --- drawing ---------------------------------------------------------------------------------

    def drawing(
        self, drawer: Drawer, states: Sequence[State], uniforms: Floats, manner: Manner
    ) -> Drawing:
        """An option for every state, given the latents before it. uniforms: (N, 1)"""

        def conclude(_: Sequence[Rollout], laws: Sequence[Floats]) -> LatentDraws:
            (law,) = laws
            return _draws(law, drawn_options(law, uniforms[:, 0]).tolist())

        return Drawing((), [drawer.choice_law(self.name, states, manner.by)], conclude)

    def traced(
        self,
        drawer: Drawer,
        states: Sequence[State],
        temperatures: Sequence[float] = (1.0,),
        by: BoundTerm | None = None,
    ) -> LatentDraws:
        """What `drawing` would have said of the options that states have."""
        (law,) = evaluated([drawer.choice_law(self.name, states, by)])
        return _draws(law, [state[self.name] for state in states])

    # --- with gradients --------------------------------------------------------------------------

    def deciding(self, value: Tokens | int) -> list[Tokens]:
        """Rows of tokens that a model is asked about to tell how probable a value is: all options
        together; none where there is no choice.
        """
        return [] if value == self.absent else [*self.options]

    def decided(
        self,
        values: Sequence[Tokens | int],
        rows: Rows,
        logits: torch.Tensor,
        closer: int | None = None,
        kept: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(N, 1) log q of the chosen option among all, with gradients; nothing closes it.

        rows: `deciding` of each value behind its context; logits: (N · options, S, V) before their
        tokens. kept: of texts alone.
        """
        there = [i for i, value in enumerate(values) if value != self.absent]
        law = torch.log_softmax(summed(logits, rows).view(len(there), -1), -1)
        chosen = torch.tensor([values[i] for i in there], device=law.device)[:, None]
        return TENSORS.placed(there, law.gather(1, chosen), len(values)), None


def _draws(law: Floats, options: Sequence[Tokens | int]) -> LatentDraws:
    """Options of log laws (N, options), as draws: one decision each. Where none is possible, the
    last is taken for certain, and the state that has it is impossible.
    """
    none = np.isneginf(law).all(1, keepdims=True)
    rows = [law[i, [option]] for i, option in enumerate(options)]
    chances = np.where(none, 0.0, law)
    return LatentDraws(
        options, rows, [chances[i, [option]][:, None] for i, option in enumerate(options)]
    )


def drawn_options(law: Floats, uniforms: Floats) -> NDArray[np.int64]:
    """Options drawn from log laws (N, options), one for each uniform (N,) in [0, 1). (N,)"""
    return np.minimum((np.exp(law).cumsum(1) <= uniforms[:, None]).sum(1), law.shape[1] - 1)


# --- binding --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """Tokens of each option under the model, and what is wrong with them: no row changes it."""

    tokens: tuple[Tokens, ...]
    findings: tuple[Diagnostic, ...]


def settle_choice(
    latent: ir.ChoiceLatent, models: Mapping[str, LanguageModel], source: Source
) -> Options:
    """The options under the model; findings where they are not told apart."""
    model = models[latent.term.model]
    tokens = tuple(encode(option, model, markers=True) for option in latent.options)
    return Options(tokens, tuple(_option_findings(latent, tokens, source)))


def bind_choice(binder: Binder, latent: ir.ChoiceLatent) -> BoundChoice:
    """The latent under its model, and its value where the row has one."""
    options: Options = binder.settled[latent.name]
    binder.findings.extend(options.findings)
    if is_never(latent.guard):
        observe_absent(binder, latent, len(options.tokens))
    elif is_observed(binder, latent):
        _observe(binder, latent, options.tokens, binder.row.observed[latent.shown])
    guard = bind_guard(binder, latent)
    return BoundChoice(latent, (binder.term(latent.term),), options.tokens, guard)


def _observe(
    binder: Binder, latent: ir.ChoiceLatent, options: Sequence[Tokens], value: str
) -> None:
    """Take the row's value of the latent."""
    if value not in latent.options:
        binder.findings.append(
            run_findings.observed_not_an_option(latent, value, binder.program.source)
        )
        return
    index = latent.options.index(value)
    binder.observed[latent.name] = Fixed(value, options[index]), index


def _option_findings(
    latent: ir.ChoiceLatent, options: Sequence[Tokens], source: Source
) -> Iterator[Diagnostic]:
    for i, tokens in enumerate(options):
        if not tokens:
            yield run_findings.option_not_tokenised(latent, latent.options[i], source)
        for j, other in enumerate(options):
            if i != j and tokens and other[: len(tokens)] == tokens:
                yield run_findings.option_prefix(
                    latent, latent.options[i], latent.options[j], source
                )
