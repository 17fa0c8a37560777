"""From states to what contexts show and expressions read: texts, tokens, options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmppl.density.kinds import BoundLatent
from lmppl.density.values import State
from lmppl.density.views import View
from lmppl.expressions import Absent, Environment, Helper, Value
from lmppl.ir import Expression
from lmppl.lm import LanguageModel, Tokens
from lmppl.source import Source


@dataclass(frozen=True)
class Spelling:
    """How states of one program and row are spelled out."""

    latents: Mapping[str, BoundLatent]
    observed: State  # values of the latents that the row observes
    givens: Mapping[str, Value]
    helpers: Mapping[str, Helper]
    models: Mapping[str, LanguageModel]  # the first one's tokens are what expressions count
    folder: str
    derived: Mapping[str, Expression]
    source: Source

    def view(self, state: State) -> View:
        """Texts and tokens of the latents that a state gives a value, and of those the row
        observes.
        """
        values = {**self.observed, **state}
        return self._spelled(values, self._texts(values))

    def views(self, states: Sequence[State]) -> list[View]:
        """Every state, spelled out."""
        return [self.view(state) for state in states]

    def views_along(self, name: str, state: State, values: Sequence[Tokens]) -> list[View]:
        """A state with each of some values of one text latent; the other latents are spelled
        once.
        """
        whole = {**self.observed, **state}
        texts, text_of = self._texts(whole), self.latents[name].text
        return [
            self._spelled({**whole, name: value}, {**texts, name: text_of(value)})
            for value in values
        ]

    def _texts(self, values: State) -> dict[str, str]:
        return {
            name: latent.text(values[name])
            for name, latent in self.latents.items()
            if name in values
        }

    def _spelled(self, values: State, texts: Mapping[str, str]) -> View:
        tokens = {name: self.latents[name].tokens(values[name]) for name in texts}
        choices = {name: value for name, value in values.items() if isinstance(value, int)}
        absent = frozenset(
            name for name, value in values.items() if self.latents[name].is_absent(value)
        )
        counts = {name: len(row) for name, row in tokens.items() if name not in absent}
        nothing = {
            name: Absent(f"`{self.latents[name].latent.shown}` is not there") for name in absent
        }
        shown = {**self.givens, **texts, **nothing}
        environment = Environment(
            shown,
            counts,
            self._count_tokens,
            self.helpers,
            self.folder,
            derived=self.derived,
        )
        return View(texts, tokens, choices, absent, environment, self.source)

    def _count_tokens(self, text: str) -> int:
        first = next(iter(self.models.values()))
        return len(first.encode(text, markers=False))
