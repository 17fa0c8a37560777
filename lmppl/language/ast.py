"""The syntax tree: what was written and where. Nodes have no behaviour; a text knows its pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lmppl.language.templates import Misplaced, Placeholder, body, cut_up
from lmppl.source import Span


@dataclass(frozen=True)
class Name:
    """An identifier."""

    text: str
    span: Span


@dataclass(frozen=True)
class Text:
    """A text in double quotes, or in three over several lines: what it means, and as it was
    written, quotes included.
    """

    value: str
    raw: str
    span: Span

    @cached_property
    def template(self) -> tuple[Sequence[str | Placeholder], Sequence[Misplaced]]:
        """Its pieces, where it is a template. A long one takes its time: it is cut up once."""
        return cut_up(body(self.raw, self.span.start))


@dataclass(frozen=True)
class Number:
    """A number, with its sign where it stands alone in a power or an option."""

    value: float
    raw: str
    span: Span


@dataclass(frozen=True)
class Pattern:
    """A regular expression between slashes: `text` is what stands between them."""

    text: str
    raw: str
    span: Span


@dataclass(frozen=True)
class Call:
    """function(argument, …)."""

    function: Name
    arguments: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Unary:
    """`-` or `not`."""

    operator: str
    operand: Expression
    span: Span


@dataclass(frozen=True)
class Binary:
    """An operator between two expressions, by its spelling."""

    operator: str
    left: Expression
    right: Expression
    span: Span


Expression = Name | Text | Number | Pattern | Call | Unary | Binary
Item = Name | Text


@dataclass(frozen=True)
class Turn:
    """role item: what one side of a conversation says."""

    role: Name
    item: Item
    span: Span


Shown = Item | Turn  # in a context


@dataclass(frozen=True)
class Term:
    """MODEL(item, …)^power."""

    model: Name
    items: tuple[Shown, ...]
    power: Expression | None
    span: Span


@dataclass(frozen=True)
class Environment:
    """env "NAME": what a variable of the environment holds. word: as it is written, in place of
    `env`.
    """

    word: str
    name: Text
    span: Span

    @property
    def raw(self) -> str:
        return f"{self.word} {self.name.raw}"


@dataclass(frozen=True)
class Option:
    """name = value."""

    name: Name
    value: Expression | Environment
    span: Span


@dataclass(frozen=True)
class Lm:
    """lm NAME = "identifier" (option, …)."""

    name: Name
    identifier: Text
    options: tuple[Option, ...]
    span: Span


@dataclass(frozen=True)
class Given:
    """given NAME, …."""

    names: tuple[Name, ...]
    span: Span


@dataclass(frozen=True)
class Param:
    """param NAME = expression."""

    name: Name
    value: Expression
    span: Span


@dataclass(frozen=True)
class TextConstant:
    """text NAME = text, or text NAME = from "file"."""

    name: Name
    text: Text | None  # as it is written out
    path: Text | None  # of the file that holds it
    span: Span


@dataclass(frozen=True)
class Use:
    """use NAME, … from "file.py"."""

    names: tuple[Name, ...]
    path: Text
    span: Span


@dataclass(frozen=True)
class Examples:
    """examples NAME = count from "file.jsonl" as "template" [seed number], or … as turns."""

    name: Name
    count: Number | Name
    path: Text
    items: tuple[Shown, ...]
    seed: Number | Name | None
    span: Span


@dataclass(frozen=True)
class Choices:
    """in [text, …]."""

    options: tuple[Text, ...]
    span: Span


@dataclass(frozen=True)
class Tool:
    """NAME (option, …), behind `with`."""

    name: Name
    options: tuple[Option, ...]
    span: Span


@dataclass(frozen=True)
class Tools:
    """with tool, …."""

    tools: tuple[Tool, ...]
    span: Span


@dataclass(frozen=True)
class Sample:
    """NAME ~ term * … [with tools] [until text] [max number tokens] [in choices] [when guard]."""

    name: Name
    terms: tuple[Term, ...]
    tools: Tools | None
    until: Text | None
    maximum: Number | None
    choices: Choices | None
    span: Span
    guard: Expression | None = None  # behind `when`


@dataclass(frozen=True)
class Observe:
    """observe target | item, …, or observe target ~ term * …, or … ~ mix(weight * term, …)."""

    target: Item
    items: tuple[Shown, ...] | None  # the short form
    terms: tuple[Term, ...]  # the long form
    span: Span
    weights: tuple[Number | Name | None, ...] = ()  # of a mixture, one a term; None: not written
    guard: Expression | None = None


@dataclass(frozen=True)
class Constrain:
    """constrain expression [when guard]."""

    expression: Expression
    span: Span
    guard: Expression | None = None


@dataclass(frozen=True)
class Factor:
    """factor expression [when guard]."""

    expression: Expression
    span: Span
    guard: Expression | None = None


@dataclass(frozen=True)
class Derive:
    """derive NAME = expression."""

    name: Name
    expression: Expression
    span: Span


@dataclass(frozen=True)
class Statistic:
    """statistic NAME = expression [when guard]."""

    name: Name
    expression: Expression
    span: Span
    guard: Expression | None = None


@dataclass(frozen=True)
class Guide:
    """guide NAME | item, …."""

    latent: Name
    items: tuple[Shown, ...]
    span: Span


@dataclass(frozen=True)
class Predict:
    """predict NAME."""

    latent: Name
    span: Span


@dataclass(frozen=True)
class Infer:
    """infer ENGINE (option, …)."""

    engine: Name
    options: tuple[Option, ...]
    span: Span


@dataclass(frozen=True)
class Learn:
    """learn NAME, …."""

    models: tuple[Name, ...]
    span: Span


Statement = (
    Lm | Given | Param | TextConstant | Use | Examples | Sample | Observe | Constrain | Factor
    | Derive | Statistic | Guide | Predict | Infer | Learn
)  # fmt: skip


Guarded = Sample | Observe | Constrain | Factor | Statistic  # what may have a `when`


@dataclass(frozen=True)
class Program:
    """Statements in order. Those that could not be read are left out."""

    statements: tuple[Statement, ...]
