"""Checking expressions: the kind of value that each has, and what functions take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmppl.expressions import (
    FILE_FUNCTIONS,
    FUNCTIONS,
    Kind,
    PatternError,
    searched_for,
    steps,
)
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.file_checks import grammar_findings
from lmppl.language.parsing import walk
from lmppl.language.pattern_checks import pattern_findings
from lmppl.language.scope import DERIVED, GIVEN, HELPER, LATENT, PARAM, TEXT, Scope, amount
from lmppl.source import Span

OPERATORS = ("and", "or", "not", "negate")  # written between or before operands, never called


def check_constant(scope: Scope, expression: ast.Expression) -> None:
    """A number that is known before inference."""
    for name in value_names(expression):
        if scope.has_role(name.text, GIVEN, DERIVED, *LATENT):
            scope.used.add(name.text)
            scope.add(findings.not_constant(scope.source, name.span, name.text))
            return
    check_kind(scope, expression, kind_of(scope, expression), "number", "this value")


def check_kind(
    scope: Scope, expression: ast.Expression, found: Kind | None, expected: Kind, what: str
) -> None:
    """A finding where a value is not of the expected kind.

    found: its kind; None where something inside is wrong already.
    """
    if found is None or "any" in (found, expected) or found == expected:
        return
    help = None
    if (found, expected) == ("boolean", "number"):
        help = "in arithmetic, a truth is 0 or 1: write a number times it, such as 2 * (…)"
    if isinstance(expression, ast.Text) and expected == "pattern":
        help = f"write it between slashes: /{expression.value.replace('/', chr(92) + '/')}/"
    if found == "text" and expected == "number":
        help = "`number(…)` reads a text as the number that it is"
    scope.add(findings.wrong_type(scope.source, expression.span, what, expected, found, help))


def kind_of(scope: Scope, expression: ast.Expression) -> Kind | None:
    """The kind of an expression; None, after a finding, where it has none."""
    if isinstance(expression, ast.Number):
        return "number"
    if isinstance(expression, ast.Text):
        return "text"
    if isinstance(expression, ast.Pattern):
        scope.found += pattern_findings(expression, scope.source)
        return "pattern"
    if isinstance(expression, ast.Name):
        return _name(scope, expression)
    if isinstance(expression, ast.Unary):
        name = "negate" if expression.operator == "-" else "not"
        return _apply(scope, name, expression.operator, (expression.operand,))
    if isinstance(expression, ast.Binary):
        operands = (expression.left, expression.right)
        return _apply(scope, expression.operator, expression.operator, operands)
    return _call(scope, expression)


def value_names(expression: ast.Expression) -> Iterator[ast.Name]:
    """Names of values in an expression; functions are not among them."""
    return (node for node in walk(expression) if isinstance(node, ast.Name))


def _name(scope: Scope, name: ast.Name) -> Kind | None:
    expected = "a given, a param, a latent, a derived value or a named text"
    symbol = scope.resolve(name.text, name.span, (GIVEN, PARAM, TEXT, DERIVED, *LATENT), expected)
    if symbol is None:
        return None
    if symbol.role == DERIVED:
        return symbol.kind
    if symbol.role == GIVEN:
        return "any"  # a text or a number, as the data has it
    return "number" if symbol.role == PARAM else "text"


def _call(scope: Scope, call: ast.Call) -> Kind | None:
    name = call.function.text
    if name in scope.symbols:
        return _helper(scope, call)
    if name not in FUNCTIONS or not name.isidentifier() or name in OPERATORS:
        meant = scope.guesses((HELPER,), also=FUNCTIONS)
        scope.add(findings.unknown_function(scope.source, call.function.span, name, meant))
        return None
    if len(call.arguments) == 2:
        _written_out(scope, name, call.arguments[1])
    return _apply(scope, name, name, call.arguments, call.span)


def _helper(scope: Scope, call: ast.Call) -> Kind | None:
    """A call of a Python function."""
    name, given = call.function.text, len(call.arguments)
    symbol = scope.resolve(name, call.function.span, (HELPER,), "a function")
    kinds = [kind_of(scope, argument) for argument in call.arguments]
    if symbol is None or None in kinds:
        return None
    fewest, most = symbol.arity
    if not fewest <= given <= most:
        expected = amount(symbol.arity)
        scope.add(findings.wrong_arity(scope.source, call.span, name, expected, given))
    return "any"


def _written_out(scope: Scope, name: str, argument: ast.Expression) -> None:
    """The last argument of a function that takes only what the program itself says there."""
    if name in FILE_FUNCTIONS:
        _file(scope, name, argument)
    elif name == "field":
        _path(scope, argument)
    elif name == "group" and isinstance(argument, ast.Pattern):
        _groups(scope, argument)


def _file(scope: Scope, function: str, path: ast.Expression) -> None:
    """The argument that names a file."""
    if isinstance(path, ast.Text):
        scope.found += grammar_findings(function, path, scope.source, scope.folder)
        return
    found = scope.source.slice(path.span)
    wrong = findings.wrong_type(scope.source, path.span, "the file", "text in quotes", found)
    scope.add(wrong)


def _path(scope: Scope, path: ast.Expression) -> None:
    """The argument that leads to a field."""
    if not isinstance(path, ast.Text):
        found = scope.source.slice(path.span)
        wrong = findings.wrong_type(scope.source, path.span, "the path", "text in quotes", found)
        scope.add(wrong)
        return
    try:
        steps(path.value)
    except ValueError as place:
        rest = path.value[int(str(place)) :]
        scope.add(findings.bad_path(scope.source, path.span, rest))


def _groups(scope: Scope, pattern: ast.Pattern) -> None:
    """A pattern that has a group, and that can be searched for; what is no pattern is said by
    others.
    """
    try:
        searched_for(pattern.text)
    except PatternError as reason:
        if not list(pattern_findings(pattern, scope.source)):
            scope.add(findings.no_group(scope.source, pattern.span, reason.message))


def _apply(
    scope: Scope,
    name: str,
    shown: str,
    arguments: Sequence[ast.Expression],
    span: Span | None = None,
) -> Kind | None:
    """A function or an operator, shown as it is written, of some arguments."""
    function = FUNCTIONS[name]
    kinds: list[Kind | None] = [kind_of(scope, argument) for argument in arguments]
    if len(kinds) != len(function.parameters):
        place, expected = span or arguments[0].span, str(len(function.parameters))
        scope.add(findings.wrong_arity(scope.source, place, shown, expected, len(kinds)))
        return function.result
    for argument, found, expected in zip(arguments, kinds, function.parameters, strict=True):
        counts = found == "boolean" and expected == function.result == "number"  # as 0 or 1
        if not counts:
            check_kind(scope, argument, found, expected, f"what `{shown}` takes here")
    return None if None in kinds else function.result
