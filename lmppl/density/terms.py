"""One language model's part in a density: a power of its law, behind a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lmppl.density.context import BoundContext, encode
from lmppl.density.scoring import Scored
from lmppl.density.views import View
from lmppl.lm import LanguageModel, Row, Tokens, untruncated


@dataclass(frozen=True)
class BoundTerm:
    """power · log p_model(· | context), ready to be evaluated."""

    model: LanguageModel
    context: BoundContext
    power: float

    @property
    def reads(self) -> set[str]:
        """Latents that the context shows, or that derived texts in it are read from."""
        return self.context.latents

    @property
    def untruncated(self) -> BoundTerm:
        """The same term under a local law that keeps all tokens."""
        model = untruncated(self.model)
        return self if model is self.model else replace(self, model=model)

    def suffixes(self, views: Sequence[View]) -> list[Tokens]:
        """Per view, the tokens of the context that follow its prompt. Raises LmpplError."""
        return [self._suffix(view) for view in views]

    def _suffix(self, view: View) -> Tokens:
        names = self.context.derived
        if not names:
            return self.context.suffix(view.texts, view.tokens)
        derived = {name: view.derived(name) for name in names}
        tokens = {name: encode(text, self.model, markers=False) for name, text in derived.items()}
        return self.context.suffix({**view.texts, **derived}, {**view.tokens, **tokens})

    def scored(
        self, targets: Sequence[Row], owners: Sequence[int], views: Sequence[View]
    ) -> Scored:
        """What the model is to score of N states, spelled out in views.

        targets: (R,) tokens behind the context, and how many of them are not scored. owners: (R,)
        the state that each belongs to.
        """
        suffixes = self.suffixes(views)
        rows = [
            (suffixes[owner] + tokens, len(suffixes[owner]) + start)
            for owner, (tokens, start) in zip(owners, targets, strict=True)
        ]
        return Scored(self.model, self.context.prompt, rows, owners)
