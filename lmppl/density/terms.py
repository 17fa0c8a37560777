"""One language model's part in a density: a power of its law, behind a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmppl import ir
from lmppl.density.context import BoundContext
from lmppl.density.scoring import Scored
from lmppl.density.views import View
from lmppl.lm import LanguageModel, Row, Tokens


@dataclass(frozen=True)
class BoundTerm:
    """power · log p_model(· | context), ready to be evaluated."""

    model: LanguageModel
    context: BoundContext
    power: float

    @property
    def reads(self) -> set[str]:
        """Latents that the context shows."""
        return {part.name for part in self.context.tail if isinstance(part, ir.LatentText)}

    def suffixes(self, views: Sequence[View]) -> list[Tokens]:
        """Per view, the tokens of the context that follow its prompt."""
        return [self.context.suffix(view.texts, view.tokens) for view in views]

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
