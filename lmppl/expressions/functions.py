"""Operators and functions of expressions: their types, what they compute, and what range they can
have.

One table, `FUNCTIONS`; a new function is one entry there. Knows no syntax, models or torch. Texts
are data: nothing here interprets them beyond what its name says.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from lmppl.expressions import parts
from lmppl.expressions.values import Absent, Helper, read_number, text_cell, written
from lmppl.ir import ARMS, Apply, Constant, Expression, Pattern, Read
from lmppl.source import Span

Kind = Literal["text", "number", "boolean", "pattern", "any"]
Value = float | str | bool | Absent
Interval = tuple[float, float]

ANYTHING: Interval = (-math.inf, math.inf)
TRUTH: Interval = (0.0, 1.0)
SECONDS_PER_HELPER = 10.0  # a Python helper that runs longer is an error, not a hang


class EvaluationError(Exception):
    """An expression has no value here: what happened, where, and for which value."""

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.span = span


@dataclass(frozen=True)
class Function:
    """A function of expressions: argument kinds, result kind, implementation and range."""

    name: str
    parameters: tuple[Kind, ...]
    result: Kind
    compute: Callable[..., Any]
    interval: Callable[..., Interval] = lambda *arguments: ANYTHING


@dataclass(frozen=True)
class Environment:
    """What an expression is evaluated in: values by name, and what others are derived from these
    by.
    """

    values: Mapping[str, Value]
    token_counts: Mapping[str, int] = field(default_factory=dict)  # of latents, by name
    count_tokens: Callable[[str], int] = len  # of any other text
    helpers: Mapping[str, Helper] = field(default_factory=dict)
    folder: str = "."  # where files named by in_grammar and is_json start
    limits: bool = False  # log(0) is −∞ and exp(1000) is ∞, which are errors else
    derived: Mapping[str, Expression] = field(default_factory=dict)
    # values of derived names that have been asked for
    known: dict[str, Value] = field(default_factory=dict, compare=False, repr=False)

    def value(self, name: str) -> Value:
        """The value of a name. A derived one is computed once; no number is absent. Raises
        EvaluationError.
        """
        if name in self.values:
            return self.values[name]
        if name not in self.known:
            found = evaluate(self.derived[name], replace(self, limits=False))
            undefined = isinstance(found, float) and math.isnan(found)
            self.known[name] = Absent("it is no number") if undefined else found
        return self.known[name]


# --- what the functions compute -------------------------------------------------------------------


def _matches(text: str, pattern: str) -> bool:
    from lmppl.expressions.patterns import read_pattern

    return read_pattern(pattern).matches(text)


def _in_grammar(text: str, path: str) -> bool:
    return _accepts("in_grammar", text, path)


def _is_json(text: str, path: str) -> bool:
    return _accepts("is_json", text, path)


def _accepts(kind: str, text: str, path: str) -> bool:
    from lmppl.expressions.grammars import accepts

    return accepts(_file_grammar(kind, path), text)


@functools.lru_cache(maxsize=64)
def _file_grammar(kind: str, path: str) -> str:
    from lmppl.expressions.grammars import file_grammar

    return file_grammar(kind, path)


def as_number(value: Value) -> float:
    """Number written in a text; NaN where it is none, so that it is equal to nothing."""
    if isinstance(value, str):
        return read_number(value)
    if isinstance(value, Absent):
        return math.nan
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf if value > 0 else -math.inf


def same(left: Value, right: Value) -> bool:
    """Two texts are equal character by character. Where one side is a number or a truth, both are
    read as numbers, and a text that is none is equal to nothing."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    return as_number(left) == as_number(right)


def _power(base: float, exponent: float) -> float:
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError("a negative number to a fractional power")
    return result


# --- what range they can have ---------------------------------------------------------------------


def _corners(
    operation: Callable[[float, float], float],
) -> Callable[[Interval, Interval], Interval]:
    """Range of an operation that is monotone in each argument."""

    def interval(left: Interval, right: Interval) -> Interval:
        values = [operation(a, b) for a in left for b in right]
        return (min(values), max(values)) if not any(map(math.isnan, values)) else ANYTHING

    return interval


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b  # 0 · ∞ is 0 for ranges


def _divide_range(left: Interval, right: Interval) -> Interval:
    if right[0] <= 0 <= right[1]:
        return ANYTHING
    return _corners(_times)(left, (1 / right[1], 1 / right[0]))


def _power_range(base: Interval, exponent: Interval) -> Interval:
    if exponent[0] == exponent[1] and exponent[0] % 2 == 0 and exponent[0] > 0:
        low, high = _abs_range(base)
        return _raised(low, exponent[0]), _raised(high, exponent[0])
    return (0.0, math.inf) if base[0] > 0 else ANYTHING


def _raised(base: float, exponent: float) -> float:
    try:
        return base**exponent
    except OverflowError:
        return math.inf


def _abs_range(value: Interval) -> Interval:
    low, high = value
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _increasing(operation: Callable[[float], float]) -> Callable[[Interval], Interval]:
    def interval(value: Interval) -> Interval:
        return operation(value[0]), operation(value[1])

    return interval


def _exp(value: float) -> float:
    return math.inf if value > 700 else math.exp(value)


def _log_range(value: Interval) -> Interval:
    return tuple(-math.inf if end <= 0 else math.log(end) for end in value)  # type: ignore[return-value]


def _sqrt_range(value: Interval) -> Interval:
    return math.sqrt(max(value[0], 0.0)), math.sqrt(max(value[1], 0.0))


def _not(value: Interval) -> Interval:
    return 1 - value[1], 1 - value[0]


def _less(left: Interval, right: Interval) -> Interval:
    return float(left[1] < right[0]), float(left[0] < right[1])


def _less_or_equal(left: Interval, right: Interval) -> Interval:
    return float(left[1] <= right[0]), float(left[0] <= right[1])


def _equal(left: Interval, right: Interval) -> Interval:
    certain = left[0] == left[1] == right[0] == right[1]
    return float(certain), float(left[0] <= right[1] and right[0] <= left[1])


def _truth(*arguments: Interval) -> Interval:
    return TRUTH


def _amount(*arguments: Interval) -> Interval:
    return 0.0, math.inf


def _present(value: Value) -> bool:
    return not isinstance(value, Absent)


_TEXT: tuple[Kind, ...] = ("text",)
_TWO_TEXTS: tuple[Kind, ...] = ("text", "text")
_NUMBER: tuple[Kind, ...] = ("number",)
_TWO_NUMBERS: tuple[Kind, ...] = ("number", "number")

_TABLE = [
    Function("contains", _TWO_TEXTS, "boolean", lambda text, part: part in text, _truth),
    Function(
        "starts_with", _TWO_TEXTS, "boolean", lambda text, part: text.startswith(part), _truth
    ),
    Function("ends_with", _TWO_TEXTS, "boolean", lambda text, part: text.endswith(part), _truth),
    Function("matches", ("text", "pattern"), "boolean", _matches, _truth),
    Function("in_grammar", _TWO_TEXTS, "boolean", _in_grammar, _truth),
    Function("is_json", _TWO_TEXTS, "boolean", _is_json, _truth),
    Function("count", _TWO_TEXTS, "number", lambda text, part: text.count(part), _amount),
    Function("words", _TEXT, "number", lambda text: len(text.split()), _amount),
    Function("chars", _TEXT, "number", len, _amount),
    Function("lines", _TEXT, "number", lambda text: len(text.splitlines()), _amount),
    Function("tokens", _TEXT, "number", len, _amount),  # evaluated through Environment.token_counts
    Function("number", ("any",), "number", as_number),
    Function("lower", _TEXT, "text", str.lower),
    Function("strip", _TEXT, "text", str.strip),
    Function("after", _TWO_TEXTS, "text", parts.after),
    Function("before", _TWO_TEXTS, "text", parts.before),
    Function("between", ("text", "text", "text"), "text", parts.between),
    Function("group", ("text", "pattern"), "text", parts.group),
    Function("line", ("text", "number"), "text", parts.line),
    Function("field", _TWO_TEXTS, "any", parts.field),
    Function("present", ("any",), "boolean", _present, _truth),
    Function("abs", _NUMBER, "number", abs, _abs_range),
    Function("exp", _NUMBER, "number", math.exp, _increasing(_exp)),
    Function("log", _NUMBER, "number", math.log, _log_range),
    Function("sqrt", _NUMBER, "number", math.sqrt, _sqrt_range),
    Function("min", _TWO_NUMBERS, "number", min, _corners(min)),
    Function("max", _TWO_NUMBERS, "number", max, _corners(max)),
    Function("+", _TWO_NUMBERS, "number", lambda a, b: a + b, _corners(lambda a, b: a + b)),
    Function("-", _TWO_NUMBERS, "number", lambda a, b: a - b, _corners(lambda a, b: a - b)),
    Function("*", _TWO_NUMBERS, "number", lambda a, b: a * b, _corners(_times)),
    Function("/", _TWO_NUMBERS, "number", lambda a, b: a / b, _divide_range),
    Function("^", _TWO_NUMBERS, "number", _power, _power_range),
    Function("negate", _NUMBER, "number", lambda a: -a, lambda a: (-a[1], -a[0])),
    Function("==", ("any", "any"), "boolean", same, _equal),
    Function(
        "!=",
        ("any", "any"),
        "boolean",
        lambda a, b: not same(a, b),
        lambda a, b: _not(_equal(a, b)),
    ),
    Function("<", _TWO_NUMBERS, "boolean", lambda a, b: a < b, _less),
    Function("<=", _TWO_NUMBERS, "boolean", lambda a, b: a <= b, _less_or_equal),
    Function(">", _TWO_NUMBERS, "boolean", lambda a, b: a > b, lambda a, b: _less(b, a)),
    Function(">=", _TWO_NUMBERS, "boolean", lambda a, b: a >= b, lambda a, b: _less_or_equal(b, a)),
    Function("and", ("boolean", "boolean"), "boolean", lambda a, b: a and b, _corners(min)),
    Function("or", ("boolean", "boolean"), "boolean", lambda a, b: a or b, _corners(max)),
    Function("not", ("boolean",), "boolean", lambda a: not a, _not),
]
FUNCTIONS: dict[str, Function] = {function.name: function for function in _TABLE}
LIMITS: dict[str, Callable[..., float]] = {
    "log": lambda value: -math.inf if value == 0 else math.log(value),
    "exp": lambda value: math.inf if value > math.log(sys.float_info.max) else math.exp(value),
}
FILE_FUNCTIONS = ("in_grammar", "is_json")  # their second argument is a path beside the program
# what may be absent though its arguments are not; so may what a helper returns
PARTIAL = ("after", "before", "between", "group", "line", "field")


def interval(
    expression: Expression, token_limits: Mapping[str, int], absent: Collection[str] = ()
) -> Interval:
    """Lowest and highest value an expression can have, where it has one; true is 1 and false is 0.

    token_limits: most tokens each latent can have. absent: names that may have no value. Texts,
    givens and helpers can be anything.
    Derived names are to be expanded before: of what is absent, nothing is true.
    """
    if isinstance(expression, Constant):
        value = expression.value
        return ANYTHING if isinstance(value, str) else (float(value), float(value))
    if not isinstance(expression, Apply) or expression.function not in FUNCTIONS:
        return ANYTHING
    first = expression.arguments[0]
    if expression.function == "tokens" and isinstance(first, Read) and first.name in token_limits:
        return 0.0, float(token_limits[first.name])
    ranges = [interval(argument, token_limits, absent) for argument in expression.arguments]
    function = FUNCTIONS[expression.function]
    low, high = function.interval(*ranges)
    return (0.0 if _judges(function) and _may_be_absent(expression, absent) else low), high


def _judges(function: Function) -> bool:
    """Whether it tells something of values, which is false of what is absent."""
    return function.result == "boolean" and function.name not in ("and", "or", "not")


def _may_be_absent(expression: Expression, absent: Collection[str]) -> bool:
    """Whether something in an expression may be absent."""
    if not isinstance(expression, Apply):
        return isinstance(expression, Read) and expression.name in absent
    if expression.function in PARTIAL or expression.function not in FUNCTIONS:
        return True
    return any(_may_be_absent(argument, absent) for argument in expression.arguments)


# --- evaluation -----------------------------------------------------------------------------------


def evaluate(expression: Expression, environment: Environment) -> Value:
    """Value of an expression. `and` and `or` stop early. Raises EvaluationError."""
    if isinstance(expression, Constant):
        return expression.value
    if isinstance(expression, Pattern):
        return expression.text
    if isinstance(expression, Read):
        return environment.value(expression.name)
    if expression.function in ("and", "or"):
        return _connect(expression, environment)
    if expression.function == ARMS:
        found = [evaluate(argument, environment) for argument in expression.arguments]
        return next((value for value in found if not isinstance(value, Absent)), found[0])
    if expression.function == "tokens":
        return _count_tokens(expression.arguments[0], environment)
    arguments = [evaluate(argument, environment) for argument in expression.arguments]
    if expression.function in FUNCTIONS:
        return _call(expression, arguments, environment)
    return _help(expression, arguments, environment)


def _connect(expression: Apply, environment: Environment) -> bool:
    left, right = expression.arguments
    if truth(evaluate(left, environment), expression) is (expression.function == "or"):
        return expression.function == "or"
    return truth(evaluate(right, environment), expression)


def _count_tokens(argument: Expression, environment: Environment) -> Value:
    if isinstance(argument, Apply) and argument.function == ARMS:
        found = [_count_tokens(one, environment) for one in argument.arguments]
        return next((value for value in found if not isinstance(value, Absent)), found[0])
    if isinstance(argument, Read) and argument.name in environment.token_counts:
        return environment.token_counts[argument.name]
    value = evaluate(argument, environment)
    return value if isinstance(value, Absent) else environment.count_tokens(written(value))


def _call(expression: Apply, arguments: list[Value], environment: Environment) -> Value:
    function = FUNCTIONS[expression.function]
    absent = _absent(arguments)
    if absent is not None and function.name != "not":
        return False if _judges(function) else absent
    if function.name in FILE_FUNCTIONS:
        from lmppl.expressions.grammars import find_file

        arguments = [arguments[0], str(find_file(str(arguments[1]), environment.folder))]
    converted = [
        _convert(value, kind, expression)
        for value, kind in zip(arguments, function.parameters, strict=True)
    ]
    try:
        compute = (
            LIMITS.get(function.name, function.compute) if environment.limits else function.compute
        )
        return compute(*converted)
    except TimeoutError:
        from lmppl.expressions.patterns import SECONDS_PER_MATCH

        raise EvaluationError(
            f"the pattern took more than {SECONDS_PER_MATCH:g} s on {_show(arguments)}",
            expression.span,
        ) from None
    except (ArithmeticError, ValueError, OSError, TypeError) as reason:
        raise EvaluationError(
            f"`{function.name}` failed on {_show(arguments)}: {reason}", expression.span
        ) from None


def _absent(arguments: Sequence[Value]) -> Absent | None:
    """The first of some values that is absent."""
    return next((value for value in arguments if isinstance(value, Absent)), None)


def _convert(value: Value, kind: Kind, expression: Apply) -> Value:
    """A given is a text and may be meant as a number or a truth: read it as what the function
    takes. In arithmetic, a truth is 0 or 1.
    """
    if kind == "text" and not isinstance(value, str | Absent):
        return written(value)
    if kind == "number" and isinstance(value, str):
        return number(value, expression)
    if kind == "number" and isinstance(value, bool):
        return int(value)
    return truth(value, expression) if kind == "boolean" else value


def number(value: Value, expression: Expression) -> float:
    """A value as a number. Raises EvaluationError where it is a text that is none, or absent."""
    if isinstance(value, Absent):
        raise EvaluationError(
            f"here stands a number, and it is absent: {value.reason}", expression.span
        )
    found = as_number(value)
    if isinstance(value, str) and math.isnan(found):
        what = f"`{expression.function}` needs" if isinstance(expression, Apply) else "here stands"
        raise EvaluationError(f"{what} a number, found the text {value!r:.80}", expression.span)
    return found


def truth(value: Value, expression: Expression) -> bool:
    """A value as a truth: a number is true unless it is 0, and nothing is true of what is absent.
    Raises EvaluationError where it is a text and no number.
    """
    return not isinstance(value, Absent) and bool(number(value, expression))


def call_helper(name: str, function: Helper, arguments: Sequence[Value], span: Span) -> object:
    """What a user's function returns, whatever that is. Raises EvaluationError."""
    try:
        return _within(SECONDS_PER_HELPER, function, arguments)
    except _Unfinished:
        raise EvaluationError(
            f"`{name}` took more than {SECONDS_PER_HELPER:g} s on {_show(arguments)}", span
        ) from None
    except (
        Exception
    ) as reason:  # whatever a user's function raises is the user's to see, with its place
        raise EvaluationError(
            f"`{name}` raised {type(reason).__name__}: {reason} on {_show(arguments)}", span
        ) from None


def _help(expression: Apply, arguments: list[Value], environment: Environment) -> Value:
    name = expression.function
    if (absent := _absent(arguments)) is not None:
        return absent
    result = call_helper(name, environment.helpers[name], arguments, expression.span)
    if isinstance(result, bool | int | float):
        return result
    if isinstance(result, str) and isinstance(text_cell(str(result)), str):
        return str(result)
    if result is None:
        return Absent(f"`{name}` returned None")
    raise EvaluationError(
        f"`{name}` must return a text, a number or a bool, or None where there is nothing: "
        f"it returned {type(result).__name__} {result!r:.80} on {_show(arguments)}",
        expression.span,
    )


class _Unfinished(Exception):
    """A call that did not return in time."""


def _within(seconds: float, function: Helper, arguments: Sequence[Value]) -> object:
    """A call's result. What does not return in time is left behind in a thread that ends with the
    process.
    """
    outcome: list[tuple[Any, Exception | None]] = []

    def call() -> None:
        try:
            outcome.append((function(*arguments), None))
        except Exception as reason:
            outcome.append((None, reason))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise _Unfinished
    result, reason = outcome[0]
    if reason is not None:
        raise reason
    return result


def _show(arguments: Sequence[Value]) -> str:
    return ", ".join(
        repr(argument) if len(repr(argument)) <= 80 else repr(argument)[:77] + "…'"
        for argument in arguments
    )
