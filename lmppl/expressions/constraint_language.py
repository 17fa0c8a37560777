"""What a constraint demands of one text, as formal languages that every text meeting it belongs to.

A condition is necessary: texts outside its languages violate the constraint, texts inside may still
do so, and are judged at the end. Expressions over regular atoms (`matches`, `contains`,
`starts_with`, `ends_with`, `count`, `words`, `lines`, equality) are composed into one terminal with
`and`, `or` and `not`, exactly where they can be; grammars and schemas stand beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lmppl.expressions.functions import FILE_FUNCTIONS, FUNCTIONS, Value
from lmppl.expressions.grammars import BROKEN, HEADER, file_grammar, find_file, grammar_problem
from lmppl.expressions.patterns import read_pattern
from lmppl.expressions.values import read_number
from lmppl.ir import Apply, Constant, Constraint, Expression, Pattern, Program, Read

# names of terminals that every grammar below begins with: any bytes at all, and at least one
PRELUDE = HEADER + "ANY: ~/[a&&b]/\nSOME: ~/[a&&b]/ & ~/()/\n"
NEWLINE = "/\\n/"
# bytes that are in words, and that part them, in every reckoning
WORD, BLANK = (
    "/[!-~]/",
    "/[ \\t\\n\\r]/",
)
NEVER = "/[a&&b]/"  # no text at all
MOST_REPEATS = 200  # counts above this are judged at the end only
FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


@dataclass(frozen=True)
class Atom:
    """The text belongs to this llguidance grammar."""

    grammar: str


@dataclass(frozen=True)
class Every:
    """All of these."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Some:
    """At least one of these."""

    parts: tuple[Condition, ...]


Condition = Atom | Every | Some


@dataclass(frozen=True)
class Regular:
    """A terminal: `body` defines it; exact: it holds just the texts that meet the expression, no
    others.
    """

    body: str
    exact: bool = True


@dataclass(frozen=True)
class Reading:
    """What is known where an expression is read: the latent, other names' values, and where files
    start.
    """

    latent: str
    values: Mapping[str, Value] = field(default_factory=dict)
    folder: str = "."


def necessary(
    expressions: Iterable[Expression], reading: Reading, until: str | None = None
) -> Condition | None:
    """A necessary condition of all these expressions; None where nothing can be said before the
    text is over.
    """
    until = until if until and BROKEN not in until else None
    bodies: list[str] = [f"ANY {_quoted(until)} ANY"] if until else []
    parts: list[Condition] = []
    for expression in expressions:
        for conjunct in _conjuncts(expression):
            if (regular := _regular(conjunct, reading)) is not None:
                bodies.append(regular.body)
            elif (condition := _condition(conjunct, reading)) is not None:
                parts.append(condition)
    if len(bodies) > (until is not None):  # `until` alone needs no mask
        parts.insert(0, Atom(_grammar(bodies)))
    return None if not parts else parts[0] if len(parts) == 1 else Every(tuple(parts))


def whole_texts_only(
    program: Program, constraint: Constraint, readings: Sequence[Reading]
) -> list[str]:
    """Why parts of a constraint guide no text, in words; nothing where all of it does, or where it
    reads no text.

    readings: of each latent that it reads and that is drawn.
    """
    texts = {text.name for text in program.texts}
    if texts.isdisjoint(reading.latent for reading in readings):
        return []
    if len(readings) > 1:
        return [f"it reads {' and '.join(f'`{reading.latent}`' for reading in readings)} together"]
    whole = program.expanded(constraint.expression, readings[0].values)
    blind = [part for part in _conjuncts(whole) if necessary([part], readings[0]) is None]
    return list(dict.fromkeys(map(_why, blind)))


def _why(expression: Expression) -> str:
    """Why no automaton follows an expression."""
    parts = list(_parts(expression))
    if helpers := [
        part.function
        for part in parts
        if isinstance(part, Apply) and part.function not in FUNCTIONS
    ]:
        return f"`{helpers[0]}` is a Python function"
    patterns = [read_pattern(part.text) for part in parts if isinstance(part, Pattern)]
    return next((pattern.why for pattern in patterns if pattern.why), "no automaton follows it")


def _parts(expression: Expression) -> Iterable[Expression]:
    yield expression
    if isinstance(expression, Apply):
        for argument in expression.arguments:
            yield from _parts(argument)


def _grammar(bodies: Iterable[str]) -> str:
    return PRELUDE + "start: T\nT: " + " & ".join(f"({body})" for body in bodies) + "\n"


def _conjuncts(expression: Expression) -> Iterable[Expression]:
    if isinstance(expression, Apply) and expression.function == "and":
        for argument in expression.arguments:
            yield from _conjuncts(argument)
    else:
        yield expression


def _condition(expression: Expression, reading: Reading) -> Condition | None:
    """A condition with grammars or schemas in it."""
    if not isinstance(expression, Apply):
        return None
    if expression.function in FILE_FUNCTIONS and _is_latent(expression.arguments[0], reading):
        name = expression.arguments[1]
        assert isinstance(name, Constant)
        return Atom(
            file_grammar(expression.function, str(find_file(str(name.value), reading.folder)))
        )
    if expression.function in ("and", "or"):
        parts = [necessary([argument], reading) for argument in expression.arguments]
        known = tuple(part for part in parts if part is not None)
        if expression.function == "or":
            return Some(known) if len(known) == len(parts) else None
        return Every(known) if known else None
    return None


# --- regular expressions --------------------------------------------------------------------------


def _regular(expression: Expression, reading: Reading) -> Regular | None:
    if not isinstance(expression, Apply):
        return None
    if expression.function == "not":
        inner = _regular(expression.arguments[0], reading)
        return (
            Regular(f"~({inner.body})")
            if inner is not None and inner.exact
            else _negated(expression, reading)
        )
    if expression.function in ("and", "or"):
        return _connected(expression, reading)
    if expression.function in FLIPPED:
        left, right = expression.arguments
        return _compared(expression.function, left, right, reading)
    return _matched(expression, reading)


def _negated(expression: Apply, reading: Reading) -> Regular | None:
    """`not` of a comparison is the opposite comparison, which may say more."""
    inner = expression.arguments[0]
    if isinstance(inner, Apply) and inner.function in OPPOSITE:
        left, right = inner.arguments
        return _compared(OPPOSITE[inner.function], left, right, reading)
    return None


def _connected(expression: Apply, reading: Reading) -> Regular | None:
    left, right = (_regular(argument, reading) for argument in expression.arguments)
    if expression.function == "or":
        if left is None or right is None:
            return None
        return Regular(f"({left.body}) | ({right.body})", left.exact and right.exact)
    if left is None or right is None:
        known = left or right
        return Regular(known.body, exact=False) if known else None
    return Regular(f"({left.body}) & ({right.body})", left.exact and right.exact)


def _matched(expression: Apply, reading: Reading) -> Regular | None:
    """matches, contains, starts_with, ends_with."""
    if len(expression.arguments) != 2:
        return None
    subject, other = expression.arguments
    if expression.function == "matches" and isinstance(other, Pattern):
        return _pattern(other.text) if _is_latent(subject, reading) else None
    needle = _needle(subject, other, reading)
    if needle is None:
        return None
    shapes = {"contains": "ANY {} ANY", "starts_with": "{} ANY", "ends_with": "ANY {}"}
    shape = shapes.get(expression.function)
    return Regular(shape.format(needle)) if shape else None


def _pattern(pattern: str) -> Regular | None:
    body = read_pattern(pattern).terminal
    return None if body is None or grammar_problem(_grammar([body])) else Regular(body)


def _needle(subject: Expression, other: Expression, reading: Reading) -> str | None:
    """The terminal of a known text that is looked for in the latent, or in its lower-case form."""
    text = _known_text(other, reading)
    if text is None:
        return None
    if _is_latent(subject, reading):
        return _quoted(text)
    lowered = (
        isinstance(subject, Apply)
        and subject.function == "lower"
        and _is_latent(subject.arguments[0], reading)
    )
    return _any_case(text) if lowered and text.isascii() and text else None


def _any_case(text: str) -> str:
    """Every spelling whose lower case is this ASCII text; no spelling has one with capitals in
    it.
    """
    extra = {"k": "\u212a"}  # the Kelvin sign
    classes = []
    for place, character in enumerate(text):
        if character != character.lower():
            return NEVER
        # its lower case begins with i
        dotted = "\u0130" if character == "i" and place == len(text) - 1 else ""
        choices = {character, character.upper(), extra.get(character, ""), dotted} - {""}
        classes.append("(" + " | ".join(_quoted(choice) for choice in sorted(choices)) + ")")
    return " ".join(classes)


def _compared(
    operator: str, left: Expression, right: Expression, reading: Reading
) -> Regular | None:
    """Comparisons of the latent with a text, or of a count in it with a number."""
    if _number(left, reading) is not None or _known_text(left, reading) is not None:
        left, right, operator = right, left, FLIPPED[operator]
    if _is_latent(left, reading) and operator in ("==", "!="):
        text = _known_text(right, reading)
        return (
            None
            if text is None
            else Regular(_quoted(text) if operator == "==" else f"~({_quoted(text)})")
        )
    number = _number(right, reading)
    if not isinstance(left, Apply) or number is None or not abs(number) <= MOST_REPEATS:
        return None
    if left.function == "count":
        needle = _needle(left.arguments[0], left.arguments[1], reading)
        return _counted(operator, number, needle) if needle is not None and needle != '""' else None
    if left.function in ("words", "lines") and _is_latent(left.arguments[0], reading):
        return _measured(left.function, operator, number)
    return None


def _counted(operator: str, number: float, needle: str) -> Regular:
    """How often a text occurs, without overlap, against a number."""
    if operator in ("==", "!="):
        times = f"({_at_least(number, needle)}) & ~({_at_least(number + 1, needle)})"
        body = times if number == int(number) else NEVER
        return Regular(body if operator == "==" else f"~({body})")
    least = math.floor(number) + 1 if operator in (">", "<=") else math.ceil(number)
    body = _at_least(least, needle)
    return Regular(body if operator in (">=", ">") else f"~({body})")


def _at_least(times: float, needle: str) -> str:
    return "ANY" if times <= 0 else "ANY " + f"{needle} ANY " * int(times)


def _measured(function: str, operator: str, number: float) -> Regular | None:
    """At most so many words or lines: more are ruled out as soon as they are certain."""
    most = {"<": math.ceil(number) - 1, "<=": math.floor(number), "==": math.floor(number)}.get(
        operator
    )
    if most is None or most < 0:
        return None
    if function == "lines":
        return Regular(f"~({_at_least(most, NEWLINE)} SOME)" if most else '""', exact=False)
    many = f"ANY {WORD} ANY " + f"{BLANK} ANY {WORD} ANY " * int(most)
    return Regular(f"~({many})", exact=False)


# --- what is known --------------------------------------------------------------------------------


def _is_latent(expression: Expression, reading: Reading) -> bool:
    return isinstance(expression, Read) and expression.name == reading.latent


def _known_text(expression: Expression, reading: Reading) -> str | None:
    """A known text that stands for its own bytes alone: all broken bytes are read as U+FFFD, which
    none stands for.
    """
    value = _known(expression, reading)
    return value if isinstance(value, str) and BROKEN not in value else None


def _number(expression: Expression, reading: Reading) -> float | None:
    """A known number, or a known text that is one."""
    value = _known(expression, reading)
    if isinstance(value, str):
        number = read_number(value)
        return None if math.isnan(number) else number
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _known(expression: Expression, reading: Reading) -> Value | None:
    if isinstance(expression, Constant):
        return expression.value
    if isinstance(expression, Read) and expression.name != reading.latent:
        return reading.values.get(expression.name)
    return None


def _quoted(text: str) -> str:
    """A text as a string of the grammar language."""
    return json.dumps(text, ensure_ascii=False)
