"""Contexts bound to a model and a data row: which tokens the model sees before a text.

Each literal run and each given is tokenised on its own, once; a latent contributes its own tokens.
The leading part that no latent touches is the prompt, shared by all draws of the row. What of it no given touches
either is the stem of the prompts of all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lmppl import ir
from lmppl.lm.protocol import LanguageModel, Tokens


@dataclass(frozen=True)
class Fixed:
    """A run of text that does not depend on any latent."""

    text: str
    tokens: Tokens


@dataclass(frozen=True)
class BoundContext:
    """A prompt that all draws share, then pieces that depend on latents."""

    prompt: Tokens  # at least one token
    prompt_text: str
    tail: tuple[Fixed | ir.LatentText | ir.Join, ...]
    space: Tokens  # what a Join adds

    def suffix(self, texts: Mapping[str, str], tokens: Mapping[str, Tokens]) -> Tokens:
        """Tokens after the prompt, given the latents' texts and tokens."""
        result: list[int] = []
        before, join = self.prompt_text, False
        for part in self.tail:
            if isinstance(part, ir.Join):
                join = True
                continue
            text, piece = _content(part, texts, tokens)
            if join and needs_space(before, text):
                result += self.space
            result += piece
            before, join = text or before, join and not text
        return tuple(result)


def needs_space(before: str, after: str) -> bool:
    """Whether a Join between two texts is a space: neither is empty or has whitespace at the border."""
    return bool(before) and bool(after) and not before[-1].isspace() and not after[0].isspace()


def _content(part: Fixed | ir.LatentText, texts: Mapping[str, str], tokens: Mapping[str, Tokens]) -> tuple[str, Tokens]:
    if isinstance(part, Fixed):
        return part.text, part.tokens
    return texts[part.name], tokens[part.name]


def bind_context(
    context: ir.Context,
    model: LanguageModel,
    givens: Mapping[str, str],
    observed: Mapping[str, Fixed],
    worked: Mapping[str, Fixed] | None = None,
) -> BoundContext:
    """A context for one model and one row. Literals may hold model markers; givens are plain text.

    observed: latents whose value the row has. worked: what `examples` statements show, by name.
    """
    known = {**observed, **(worked or {})}
    parts = [_bind_part(part, model, givens, known) for part in context.parts]
    space = model.encode(" ", markers=False)
    split = next((i for i, part in enumerate(parts) if isinstance(part, ir.LatentText)), len(parts))
    while split and split < len(parts) and isinstance(parts[split - 1], ir.Join):
        split -= 1  # a join before a latent depends on the latent's text
    own = next((i for i, part in enumerate(context.parts) if not isinstance(part, ir.Literal | ir.WorkedRows)), split)
    stem, head = (BoundContext((), "", tuple(parts[:end]), space).suffix({}, {}) for end in (min(own, split), split))
    model.expect(model.begin(stem))
    text = "".join(part.text for part in parts[:split] if isinstance(part, Fixed))
    return BoundContext(model.begin(head), text, tuple(parts[split:]), space)


def _bind_part(
    part: ir.Part, model: LanguageModel, givens: Mapping[str, str], known: Mapping[str, Fixed]
) -> Fixed | ir.LatentText | ir.Join:
    if isinstance(part, ir.Literal):
        return Fixed(part.text, model.encode(part.text, markers=True))
    if isinstance(part, ir.Given):
        return Fixed(givens[part.name], model.encode(givens[part.name], markers=False))
    if isinstance(part, ir.WorkedRows):
        return known[part.name]
    if isinstance(part, ir.LatentText) and part.name in known:
        return known[part.name]
    return part


def bind_worked(examples: ir.Examples, rows: Sequence[Mapping[str, str]], model: LanguageModel) -> Fixed:
    """Worked rows one after the other. Literals may hold model markers; values are plain text."""
    parts = [_bind_part(part, model, row, {}) for row in rows for part in examples.parts]
    fixed = [part for part in parts if isinstance(part, Fixed)]
    return Fixed("".join(part.text for part in fixed), tuple(token for part in fixed for token in part.tokens))
