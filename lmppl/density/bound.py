"""Latents and factors bound to models and one data row: values, ready to be evaluated by a
target.
"""

from __future__ import annotations

from dataclasses import dataclass

from lmppl import ir
from lmppl.decoding import Masks, Stopping
from lmppl.density.context import BoundContext
from lmppl.lm import LanguageModel, Tokens


@dataclass(frozen=True)
class BoundTerm:
    """power · log p_model(· | context), ready to be evaluated."""

    model: LanguageModel
    context: BoundContext
    power: float


@dataclass(frozen=True)
class BoundText:
    """A text latent: its prior's terms, and when it ends."""

    latent: ir.TextLatent
    terms: tuple[BoundTerm, ...]
    stopping: Stopping
    masks: Masks | None = None  # which tokens its constraints leave open, where that can be told


@dataclass(frozen=True)
class BoundChoice:
    """A choice latent: its prior's term, and the tokens of each option."""

    latent: ir.ChoiceLatent
    term: BoundTerm
    options: tuple[Tokens, ...]


@dataclass(frozen=True)
class BoundObservation:
    """A text that the row or the program fixes, scored after contexts that may hold latents."""

    factor: ir.Observation
    tokens: tuple[Tokens, ...]  # per term, under that term's tokenizer
    terms: tuple[BoundTerm, ...]


BoundLatent = BoundText | BoundChoice
BoundFactor = BoundObservation | ir.Constraint | ir.Score
