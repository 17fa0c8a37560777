"""The contract between the language and the engines: latents, factors and what they read.

Pure values. Knows no syntax (beyond spans to point at), no tokens and no torch. Powers are numbers:
params have been substituted by the time a program is in this form.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import ClassVar

from lmppl.settings import MOST, Count, PartShare, SomeShare, Temperature
from lmppl.source import Source, Span

# --- contexts: what a language model is conditioned on --------------------------------------------


@dataclass(frozen=True)
class Literal:
    """Text of the program itself; model markers such as <|im_start|> in it are honoured."""

    text: str
    template: bool = False  # a chat template has written it, around what the program says


@dataclass(frozen=True)
class Given:
    """The value of a given in the data row: always plain text, never a marker or a template."""

    name: str


@dataclass(frozen=True)
class LatentText:
    """The tokens of an earlier latent, never re-tokenised."""

    name: str


@dataclass(frozen=True)
class DerivedText:
    """What a `derive` statement names, as a text: plain text, as a given is. Nothing where it is
    absent.
    """

    name: str
    latents: frozenset[str]  # that it is read from


@dataclass(frozen=True)
class WorkedRows:
    """The worked rows that an `examples` statement draws for the data row, one after the other."""

    name: str


@dataclass(frozen=True)
class Join:
    """One space where neither the text so far nor the next part has whitespace at the border.

    Nothing where either side is empty.
    """


@dataclass(frozen=True)
class WorkedValue:
    """A column of one of the worked rows that an `examples` statement draws, in a turn of its
    own.
    """

    examples: str
    row: int  # among those that are shown
    name: str  # of the column


@dataclass(frozen=True)
class Spaced:
    """A value with a space before it that a chat template writes: both are tokenised as one."""

    value: Given | WorkedValue


Named = Given | LatentText | DerivedText | WorkedRows
Part = Literal | Named | Join | WorkedValue | Spaced


ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says."""

    role: str  # one of ROLES
    parts: tuple[Part, ...]
    span: Span


@dataclass(frozen=True)
class Context:
    """What a language model sees before a text: parts in order, joined as they are; or turns of a
    conversation, which the model's own template writes, and worked rows, which are turns as well.

    templated: the template has written the parts.
    """

    shown: tuple[Part | Turn, ...]
    span: Span
    templated: bool = False

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What is shown, in turns or not."""
        several = (one.parts if isinstance(one, Turn) else (one,) for one in self.shown)
        return tuple(part for parts in several for part in parts)

    @property
    def turns(self) -> tuple[Turn | WorkedRows, ...]:
        """Of a conversation that no template has written yet; none of another context."""
        if not any(isinstance(one, Turn) for one in self.shown):
            return ()
        return tuple(one for one in self.shown if isinstance(one, Turn | WorkedRows))

    @property
    def latents(self) -> frozenset[str]:
        """Latents that it shows, and those that derived texts in it are read from."""
        own = (part.name for part in self.parts if isinstance(part, LatentText))
        derived = (part.latents for part in self.parts if isinstance(part, DerivedText))
        return frozenset(own).union(*derived)

    @property
    def worked(self) -> frozenset[str]:
        rows = {part.name for part in self.parts if isinstance(part, WorkedRows)}
        return frozenset(rows | {p.examples for p in self.parts if isinstance(p, WorkedValue)})

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of what it shows, in its order; repeats are kept."""
        return tuple(part.name for part in self.parts if isinstance(part, Named))

    @property
    def givens(self) -> frozenset[str]:
        return frozenset(part.name for part in self.parts if isinstance(part, Given))


@dataclass(frozen=True)
class LanguageTerm:
    """power · log p_model(tokens | context)."""

    model: str
    context: Context
    power: float
    span: Span


# --- expressions ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    """A literal, or a param's value."""

    value: float | str | bool
    span: Span


@dataclass(frozen=True)
class Pattern:
    """A regular expression literal."""

    text: str
    span: Span


@dataclass(frozen=True)
class Read:
    """The value of a given or a latent."""

    name: str
    span: Span


@dataclass(frozen=True)
class Apply:
    """An operator or function of `functions.FUNCTIONS`, or a helper named by `use`.

    Operators go by their spelling ("+", "<=", "and", "not"); unary minus is "negate".
    """

    function: str
    arguments: tuple[Expression, ...]
    span: Span


Expression = Constant | Pattern | Read | Apply
ARMS = "arms"  # the function that gives the one of its arguments that is there; nobody writes it


def reads(expression: Expression) -> Iterator[str]:
    """Names that an expression reads, with repeats."""
    if isinstance(expression, Read):
        yield expression.name
    elif isinstance(expression, Apply):
        for argument in expression.arguments:
            yield from reads(argument)


@dataclass(frozen=True)
class Guard:
    """What stands behind `when`: a latent or a term is there where this is true.

    It reads givens and choices only, so that it is known before what it guards.
    """

    expression: Expression
    written: str  # as the program has it, in one line

    @property
    def reads(self) -> tuple[str, ...]:
        """Names that it reads, with repeats."""
        return tuple(reads(self.expression))


def guarded(guard: Guard | None) -> tuple[str, ...]:
    """Names that a guard reads, with repeats; none where there is no guard."""
    return () if guard is None else guard.reads


def _weights(terms: tuple[LanguageTerm, ...]) -> tuple[float, ...] | None:
    """Of the law that a product of terms is: one model at power 1. None where it is none."""
    return (1.0,) if len(terms) == 1 and terms[0].power == 1 else None


# --- latents --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tool:
    """What writes into a text behind its trigger: the calculator, or a Python function that `use`
    names.
    """

    name: str
    trigger: str
    options: tuple[tuple[str, float], ...]  # besides the trigger
    span: Span


@dataclass(frozen=True)
class TextLatent:
    """A token sequence drawn by a stopping process; its prior is the product of `terms`."""

    name: str
    terms: tuple[LanguageTerm, ...]
    until: str | None
    maximum: int  # tokens
    span: Span
    tools: tuple[Tool, ...] = ()
    guard: Guard | None = None
    arm_of: str = ""  # the name that it shares with other latents, whose guards exclude its own
    kind: ClassVar[str] = "text"

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of givens, worked rows and earlier latents in its contexts and its guard; repeats
        are kept.
        """
        shown = tuple(name for term in self.terms for name in term.context.reads)
        return (*shown, *guarded(self.guard))

    @property
    def shown(self) -> str:
        """Its name as it was written."""
        return self.arm_of or self.name

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Of a law that texts can be drawn from: one model at power 1. None where it is none."""
        return _weights(self.terms)

    @property
    def total_power(self) -> float:
        """Σ of the terms' powers."""
        return sum(term.power for term in self.terms)


@dataclass(frozen=True)
class ChoiceLatent:
    """One of `options`; its prior is the model's probability of each, renormalised."""

    name: str
    term: LanguageTerm  # power is 1
    options: tuple[str, ...]
    span: Span
    guard: Guard | None = None
    arm_of: str = ""
    kind: ClassVar[str] = "choice"

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of givens, worked rows and earlier latents in its context and its guard; repeats
        are kept.
        """
        return (*self.term.context.reads, *guarded(self.guard))

    @property
    def shown(self) -> str:
        """Its name as it was written."""
        return self.arm_of or self.name

    @property
    def terms(self) -> tuple[LanguageTerm]:
        """Its one term, as a text latent has them."""
        return (self.term,)

    @property
    def total_power(self) -> float:
        """1: probabilities of options are renormalised."""
        return 1.0


Latent = TextLatent | ChoiceLatent

# --- factors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoredText:
    """What factors have in common that score a text which the row or the program fixes."""

    name: str
    target: Literal | Given
    terms: tuple[LanguageTerm, ...]
    span: Span
    guard: Guard | None = field(default=None, kw_only=True)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of givens, worked rows and latents in its contexts, of its text and in its guard;
        repeats are kept.
        """
        target = (self.target.name,) if isinstance(self.target, Given) else ()
        shown = tuple(name for term in self.terms for name in term.context.reads)
        return (*shown, *target, *guarded(self.guard))


@dataclass(frozen=True)
class Observation(ScoredText):
    """Σ power · log p(tokens of target | context), with no end token."""

    kind: ClassVar[str] = "observation"

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Of a law that the text can be drawn from: one model at power 1. None where it is none."""
        return _weights(self.terms)


@dataclass(frozen=True)
class Mixture(ScoredText):
    """log Σ weight · p(tokens of target | context), with no end token. Powers are 1."""

    weights: tuple[float, ...] = ()  # one a term; they add up to 1
    kind: ClassVar[str] = "observation"


@dataclass(frozen=True)
class Expressed:
    """What factors have in common that are an expression."""

    name: str
    expression: Expression
    span: Span
    guard: Guard | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Names that the expression and the guard read, with repeats."""
        return (*reads(self.expression), *guarded(self.guard))


@dataclass(frozen=True)
class Constraint(Expressed):
    """0 where the expression is true, −∞ where it is false."""

    kind: ClassVar[str] = "constraint"
    hard: ClassVar[bool] = True


@dataclass(frozen=True)
class Score(Expressed):
    """`factor e`: adds the number e to the log density."""

    kind: ClassVar[str] = "score"
    hard: ClassVar[bool] = False


Factor = Observation | Mixture | Constraint | Score


# --- declarations ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LocalLaw:
    """What becomes of every next-token law of a model, in this order; what is left is normalised
    after each.
    """

    temperature: Temperature = 1.0  # logits are divided by it
    top_k: Count = MOST  # so many of the likeliest tokens are left
    top_p: SomeShare = 1.0  # as many of the likeliest as it takes to hold this probability
    min_p: PartShare = 0.0  # those of at least this share of the likeliest one's probability

    @property
    def truncates(self) -> bool:
        """Whether some tokens may have probability 0 by it."""
        return self != LocalLaw(self.temperature)

    @property
    def untruncated(self) -> LocalLaw | None:
        """The law without its truncations; None where nothing is left of it."""
        return None if self.temperature == 1 else LocalLaw(self.temperature)

    @property
    def changes(self) -> Mapping[str, float]:
        """Its options that change anything, by name."""
        plain = asdict(LocalLaw())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}

    def __str__(self) -> str:
        return ", ".join(f"{name} = {value:g}" for name, value in self.changes.items())


@dataclass(frozen=True)
class ModelDeclaration:
    """`lm NAME = "identifier" (revision = …, dtype = …, adapter = …, temperature = …)`."""

    name: str
    identifier: str
    span: Span
    revision: str | None = None
    dtype: str | None = None  # "float32", "bfloat16"
    # a PEFT folder, relative to the program; of a served model, the name it is served by
    adapter: str | None = None
    learned: str | None = None  # a PEFT folder on top of it, which `lmppl em` has fitted
    law: LocalLaw | None = None  # None where its laws stay as they are
    template: str | None = None  # a file of Jinja, relative to the program, in place of its own
    variables: tuple[tuple[str, str | float | bool], ...] = ()  # that its chat template reads
    tokenizer: str | None = None  # of a served model: a folder relative to the program, or a hub id
    key: str | None = None  # the variable of the environment that holds a server's key
    patience: float | None = None  # seconds for which a run waits for a server that is silent

    @property
    def talk(self) -> tuple[object, ...]:
        """What it asks for of how conversations are written."""
        return (self.template, *self.variables)


@dataclass(frozen=True)
class Helper:
    """A Python function named by `use`, run only when a density is evaluated, or as a tool when a
    text is drawn.
    """

    name: str
    path: str  # absolute
    span: Span


@dataclass(frozen=True)
class NamedText:
    """A text that the program names. Contexts and expressions hold what it means, not its name."""

    name: str
    text: str
    path: str | None  # of the file that holds it; absolute
    span: Span


@dataclass(frozen=True)
class Examples:
    """Rows of a data file that contexts show: `count` of them, in an order that the seed gives, by
    a template.

    A given in `parts` is a column of the file. A data row never sees a row that has its own givens.
    turns: of a conversation, where a row is shown as these; `parts` are what is shown in them.
    """

    name: str
    count: int
    path: str  # absolute
    parts: tuple[Part, ...]
    seed: int
    span: Span
    turns: tuple[Turn, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.name for part in self.parts if isinstance(part, Given)))


@dataclass(frozen=True)
class Guide:
    """What an amortised or prompted sampler of a latent is conditioned on."""

    latent: str
    context: Context
    span: Span


@dataclass(frozen=True)
class Derived:
    """`derive NAME = expression`: a text, a number or a truth that is known once what it is read
    from is. It adds nothing to the density.
    """

    name: str
    expression: Expression
    span: Span
    kind: ClassVar[str] = "derived"

    @property
    def reads(self) -> tuple[str, ...]:
        """Names that the expression reads, with repeats."""
        return tuple(reads(self.expression))


@dataclass(frozen=True)
class Statistic:
    """A number of every draw that the user wants to see: it adds nothing to the density."""

    name: str
    expression: Expression
    span: Span
    guard: Guard | None = None  # a draw where it does not hold has no such number


@dataclass(frozen=True)
class EngineChoice:
    """`infer engine(k = v, …)`."""

    engine: str
    options: tuple[tuple[str, float | str | bool], ...]
    span: Span


@dataclass(frozen=True)
class Program:
    """A program as the density and the engines see it. Latents and factors stand in program
    order.
    """

    source: Source
    models: tuple[ModelDeclaration, ...]
    givens: tuple[str, ...]
    params: tuple[tuple[str, float], ...]
    latents: tuple[Latent, ...]
    factors: tuple[Factor, ...]
    guides: tuple[Guide, ...] = ()
    predictions: tuple[str, ...] = ()
    helpers: tuple[Helper, ...] = ()
    engine: EngineChoice | None = None
    statistics: tuple[Statistic, ...] = ()
    examples: tuple[Examples, ...] = ()
    learned: tuple[str, ...] = ()  # models that expectation-maximisation fits
    derived: tuple[Derived, ...] = ()
    folder: str = field(default=".")  # where relative paths of the program start
    named_texts: tuple[NamedText, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the latents as they were written, in program order."""
        return tuple(dict.fromkeys(latent.shown for latent in self.latents))

    def latent(self, name: str) -> Latent:
        return next(latent for latent in self.latents if latent.name == name)

    @property
    def talking(self) -> frozenset[str]:
        """Names of the models that are shown conversations."""
        terms = [term for one in (*self.latents, *self.scored_texts) for term in one.terms]
        names = {term.model for term in terms if term.context.turns}
        guided = (guide.latent for guide in self.guides if guide.context.turns)
        return frozenset(names | {self.latent(name).terms[0].model for name in guided})

    def scope(self, factor: Factor) -> frozenset[str]:
        """Names of the latents that a factor reads, by itself or through derived names."""
        return self.latents_behind(factor.reads)

    def latents_behind(self, names: Iterable[str]) -> frozenset[str]:
        """Latents among some names, and those that the derived ones are read from."""
        return frozenset(latent.name for latent in self.latents) & self.sources(names)

    def sources(self, names: Iterable[str]) -> frozenset[str]:
        """Names of the program itself that some names stand for: a derived one stands for those
        that it is read from.
        """
        return frozenset().union(*(self._sources.get(name, {name}) for name in names))

    @cached_property
    def _sources(self) -> Mapping[str, frozenset[str]]:
        """What every derived name is read from in the end."""
        found: dict[str, frozenset[str]] = {}
        for derived in self.derived:
            read = (found.get(name, {name}) for name in derived.reads)
            found[derived.name] = frozenset().union(*read)
        return found

    def expanded(self, expression: Expression, but: Collection[str] = ()) -> Expression:
        """An expression with what derived names stand for in their place. but: names that are left
        as they are.
        """
        if isinstance(expression, Apply):
            arguments = tuple(self.expanded(argument, but) for argument in expression.arguments)
            return replace(expression, arguments=arguments)
        if isinstance(expression, Read) and expression.name not in but:
            whole = (d.expression for d in self.derived if d.name == expression.name)
            return next((self.expanded(one, but) for one in whole), expression)
        return expression

    @property
    def guarded(self) -> frozenset[str]:
        """Latents that need not be there."""
        return frozenset(latent.name for latent in self.latents if latent.guard is not None)

    # --- by kind ---------------------------------------------------------------------------------

    @property
    def texts(self) -> tuple[TextLatent, ...]:
        """Text latents, in program order."""
        return tuple(latent for latent in self.latents if isinstance(latent, TextLatent))

    @property
    def choices(self) -> tuple[ChoiceLatent, ...]:
        """Choice latents, in program order."""
        return tuple(latent for latent in self.latents if isinstance(latent, ChoiceLatent))

    @property
    def scored_texts(self) -> tuple[Observation | Mixture, ...]:
        """Factors that score a text, in program order."""
        return tuple(f for f in self.factors if isinstance(f, ScoredText))

    @property
    def expressions(self) -> tuple[Constraint | Score, ...]:
        """Factors that are an expression, in program order."""
        return tuple(f for f in self.factors if isinstance(f, Constraint | Score))

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """Factors that are 0 or −∞, in program order."""
        return tuple(f for f in self.factors if isinstance(f, Constraint))
