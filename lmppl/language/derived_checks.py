"""Checking `derive` statements: what kind of value they name, and what it is read from."""

from __future__ import annotations

from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.expression_checks import kind_of, value_names
from lmppl.language.parsing import MOST_DEPTH, children
from lmppl.language.scope import DERIVED, Extent, Scope

MOST_NODES = 1000  # of an expression with all that it is derived from in place
ONE: Extent = (1, 1)


def check_derive(scope: Scope, statement: ast.Derive) -> None:
    """A value that is known once what it reads is; later statements learn what it is."""
    name = statement.name
    kind = kind_of(scope, statement.expression)
    if kind == "pattern":
        found = scope.source.slice(statement.expression.span)
        expected = "text, number or truth"
        span = statement.expression.span
        scope.add(findings.wrong_type(scope.source, span, "what `derive` takes", expected, found))
        kind = None
    extent = _extent(scope, statement.expression)
    if extent[0] > MOST_DEPTH or extent[1] > MOST_NODES:
        scope.add(findings.derived_too_far(scope.source, statement.expression.span, name.text))
        kind, extent = None, ONE
    latents = scope.latents_of(one.text for one in value_names(statement.expression))
    scope.settle(name.text, kind, latents, extent)


def _extent(scope: Scope, expression: ast.Expression) -> Extent:
    """Levels and nodes of an expression, with all that it is derived from in place."""
    if isinstance(expression, ast.Name) and scope.has_role(expression.text, DERIVED):
        return scope.symbols[expression.text].extent
    inner = [_extent(scope, child) for child in children(expression)]
    depth = max((depth for depth, _ in inner), default=0)
    return 1 + depth, 1 + sum(nodes for _, nodes in inner)
