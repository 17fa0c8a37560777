"""Latents and observations bound to models and one data row: what a target is made of."""

from __future__ import annotations

from dataclasses import dataclass

from lmppl import ir
from lmppl.context import BoundContext
from lmppl.lm.protocol import LanguageModel, Tokens
from lmppl.masks import Masks
from lmppl.stopping import Stopping


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
