"""Contexts bound to a model and a data row: which tokens the model sees before a text.

Each literal run and each given is tokenised on its own, once, as it would be inside a longer text;
a latent contributes its own tokens; a derived text is tokenised as a given is, for each state, or
once where the row alone says what it is. Where a tokenizer puts a space in front of a prompt, the
first text of a context has it. The leading part that no latent touches is the prompt, shared by all
draws of the row. What of it no given touches either is the stem of the prompts of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lmppl import ir
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Tokens

# parts that rows share, but for rows that are shown as examples themselves
SAME = (ir.Literal, ir.WorkedRows, ir.WorkedValue)
MOST_CHARACTERS = 256  # that one token stands for: no vocabulary comes near it on the average


@dataclass(frozen=True)
class Fixed:
    """A run of text that does not depend on any latent."""

    text: str
    tokens: Tokens


Open = ir.LatentText | ir.DerivedText  # what a state says
BoundPart = Fixed | Open | ir.Join


@dataclass(frozen=True)
class BoundContext:
    """A prompt that all draws share, then pieces that depend on latents."""

    prompt: Tokens  # at least one token
    prompt_text: str
    tail: tuple[BoundPart, ...]
    space: Tokens  # what a Join adds

    @property
    def empty(self) -> bool:
        """Whether what follows is the beginning of a text."""
        return not self.prompt_text and not self.tail

    @property
    def latents(self) -> set[str]:
        """Latents that it shows, or that derived texts in it are read from."""
        own = {part.name for part in self.tail if isinstance(part, ir.LatentText)}
        return own.union(*(part.latents for part in self.tail if isinstance(part, ir.DerivedText)))

    @property
    def derived(self) -> list[str]:
        """Names of derived texts in it that hang on latents."""
        return [part.name for part in self.tail if isinstance(part, ir.DerivedText)]

    def suffix(self, texts: Mapping[str, str], tokens: Mapping[str, Tokens]) -> Tokens:
        """Tokens after the prompt, given the texts and tokens of latents and of derived texts."""
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
    """Whether a Join between two texts is a space: neither is empty or has whitespace at the
    border.
    """
    return bool(before) and bool(after) and not before[-1].isspace() and not after[0].isspace()


def _content(
    part: Fixed | Open, texts: Mapping[str, str], tokens: Mapping[str, Tokens]
) -> tuple[str, Tokens]:
    if isinstance(part, Fixed):
        return part.text, part.tokens
    return texts[part.name], tokens[part.name]


@dataclass(frozen=True)
class Piece:
    """A run of text that is still to be tokenised. markers: it is the program's, and may hold
    markers of the model.
    """

    text: str
    markers: bool
    template: bool = False  # a chat template has written it


@dataclass(frozen=True)
class Outline:
    """A context for one model, with what no row changes: where a literal is written one way only,
    it has its tokens.
    """

    context: ir.Context
    model: LanguageModel
    literals: tuple[Fixed | None, ...]  # of each part; None where a row says how it is written
    lead: int  # parts, literals and worked rows, that are in front of everything else
    space: Tokens
    trimmed: Sequence[tuple[bool, bool]] = ()  # by a chat template, as `Rendered` has it

    def bound(
        self,
        givens: Mapping[str, str],
        observed: Mapping[str, Fixed],
        worked: Mapping[str, Worked],
    ) -> BoundContext:
        """The context for one row. Literals may hold model markers; givens are plain text.

        givens: by name, and derived texts that the row settles. observed: latents whose value the
        row has. worked: what `examples` statements show, by name.
        """
        parts = self._parts(givens, observed, worked)
        split = next((i for i, one in enumerate(parts) if isinstance(one, Open)), None)
        split = len(parts) if split is None else _before_joins(parts, split)
        if self.context.worked:
            self._expect(parts)
        head = BoundContext((), "", tuple(parts[:split]), self.space).suffix({}, {})
        text = "".join(part.text for part in parts[:split] if isinstance(part, Fixed))
        return BoundContext(self._begun(head), text, tuple(parts[split:]), self.space)

    def untrimmed(self, givens: Mapping[str, str], worked: Mapping[str, Worked]) -> Iterator[str]:
        """Names of the row's values that have white space which the model's chat template would
        take away, if it were shown them.
        """
        values = [part for part in self.context.parts if not isinstance(part, ir.Literal)]
        for part, (before, after) in zip(values, self.trimmed, strict=False):
            value = part.value if isinstance(part, ir.Spaced) else part
            if not isinstance(value, ir.Given | ir.DerivedText | ir.WorkedValue):
                continue
            if isinstance(value, ir.DerivedText) and value.name not in givens:
                continue
            text = "".join(piece.text for piece in _pieces(value, givens, worked))
            if (before and text[:1].isspace()) or (after and text[-1:].isspace()):
                yield value.name

    def _begun(self, tokens: Tokens) -> Tokens:
        """A prompt as the model begins it; a chat template writes its own beginning."""
        return tokens if self.context.templated and tokens else self.model.begin(tokens)

    def _parts(
        self,
        givens: Mapping[str, str],
        observed: Mapping[str, Fixed],
        worked: Mapping[str, Worked],
    ) -> list[BoundPart]:
        """Parts with their tokens. Only what is in front of every latent can begin the prompt."""
        bound: list[BoundPart] = []
        opening = True
        for part, literal in zip(self.context.parts, self.literals, strict=True):
            if isinstance(part, ir.LatentText):
                bound.append(observed.get(part.name, part))
                opening = False
            elif isinstance(part, ir.DerivedText) and part.name not in givens:
                bound.append(part)
                opening = False
            elif isinstance(part, ir.Join):
                bound.append(part)
            else:
                one = literal or written(_pieces(part, givens, worked), self.model, opening=opening)
                bound.append(one)
                opening = opening and not one.text
        return bound

    def _expect(self, parts: Sequence[BoundPart]) -> None:
        """Tell the model what prompts begin with, whatever the row."""
        lead = [part for part in parts[: self.lead] if isinstance(part, Fixed)]
        self.model.expect(self._begun(tuple(token for one in lead for token in one.tokens)))


def outline(
    context: ir.Context, model: LanguageModel, trimmed: Sequence[tuple[bool, bool]] = ()
) -> Outline:
    """What no row changes of a context for one model, its turns written out. trimmed: of each value
    in turns, as `Rendered` has it. Raises LmpplError.
    """
    literals: list[Fixed | None] = []
    opening: bool | None = True  # None: a row says
    for part in context.parts:
        literal = None
        if isinstance(part, ir.Literal) and opening is not None:
            literal = written(_pieces(part, {}, {}), model, opening=opening)
        literals.append(literal)
        if isinstance(part, ir.LatentText) or (isinstance(part, ir.Literal) and part.text):
            opening = False
        elif not isinstance(part, ir.Literal | ir.Join) and opening:
            opening = None
    kinds = [isinstance(part, SAME) for part in context.parts]
    lead = kinds.index(False) if False in kinds else len(kinds)
    joins = any(isinstance(part, ir.Join) for part in context.parts)
    space = model.encode(" ", markers=False) if joins else ()
    found = Outline(context, model, tuple(literals), lead, space, trimmed)
    if not context.worked:
        found._expect([literal for literal in literals[:lead] if literal])
    return found


def _before_joins(parts: Sequence[BoundPart], place: int) -> int:
    """Where the joins in front of a latent begin: they depend on the latent's text."""
    while place and isinstance(parts[place - 1], ir.Join):
        place -= 1
    return place


@dataclass(frozen=True)
class Worked:
    """The worked rows that an `examples` statement draws for a data row."""

    examples: ir.Examples
    rows: Sequence[Mapping[str, str]]

    def pieces(self) -> list[Piece]:
        """Rows one after the other, by the template. Literals may hold model markers; values are
        plain text.
        """
        parts = self.examples.parts
        return [piece for row in self.rows for part in parts for piece in _pieces(part, row, {})]


def _pieces(
    part: ir.Part, givens: Mapping[str, str], worked: Mapping[str, Worked]
) -> Sequence[Piece]:
    """What a part is written from; nothing where it is no text of its own."""
    if isinstance(part, ir.Literal):
        return [Piece(part.text, markers=True, template=part.template)]
    if isinstance(part, ir.WorkedRows):
        return worked[part.name].pieces()
    if isinstance(part, ir.Spaced):
        (piece,) = _pieces(part.value, givens, worked)
        return [Piece(" " + piece.text, markers=False)]
    if isinstance(part, ir.WorkedValue):
        return [Piece(worked[part.examples].rows[part.row][part.name], markers=False)]
    return (
        [Piece(givens[part.name], markers=False)]
        if isinstance(part, ir.Given | ir.DerivedText)
        else []
    )


def written(pieces: Sequence[Piece], model: LanguageModel, *, opening: bool = False) -> Fixed:
    """Pieces one after the other, each tokenised on its own. opening: nothing is in front of them
    in a prompt.
    """
    tokens: list[int] = []
    for piece in pieces:
        if piece.template:
            tokens += model.encode_template(piece.text, opening=opening)
        else:
            tokens += encode(piece.text, model, markers=piece.markers, opening=opening)
        opening = opening and not piece.text
    return Fixed("".join(piece.text for piece in pieces), tuple(tokens))


def encode(text: str, model: LanguageModel, *, markers: bool, opening: bool = False) -> Tokens:
    """Tokens of a text. Raises LmpplError before they are made where they are more than the model
    could ever see.
    """
    if len(text) > MOST_CHARACTERS * model.window:
        raise LmpplError(run_findings.text_too_long(text, model.window, model.name))
    return model.encode(text, markers=markers, opening=opening)
