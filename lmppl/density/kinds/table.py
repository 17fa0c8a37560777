"""Which room binds which kind of the IR. A new kind is a line here and a room of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lmppl import ir
from lmppl.density.binder import Binder
from lmppl.density.kinds.choice import BoundChoice, bind_choice, settle_choice
from lmppl.density.kinds.expression import BoundExpression, bind_expression
from lmppl.density.kinds.mixture import BoundMixture, bind_mixture
from lmppl.density.kinds.observation import BoundObservation, bind_observation
from lmppl.density.kinds.text import BoundText, bind_text
from lmppl.lm import LanguageModel
from lmppl.source import Source

BoundLatent = BoundText | BoundChoice
BoundScoredText = BoundObservation | BoundMixture
BoundFactor = BoundScoredText | BoundExpression

BINDERS: dict[type, Callable[[Binder, Any], Any]] = {
    ir.TextLatent: bind_text,
    ir.ChoiceLatent: bind_choice,
    ir.Observation: bind_observation,
    ir.Mixture: bind_mixture,
    ir.Constraint: bind_expression,
    ir.Score: bind_expression,
}

# what a kind makes of a part and its models once, for all rows; most make nothing
SETTLERS: dict[type, Callable[[Any, Mapping[str, LanguageModel], Source], Any]] = {
    ir.ChoiceLatent: settle_choice,
}
