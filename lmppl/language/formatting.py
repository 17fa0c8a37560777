"""Canonical text of a program: one statement a line, one space around operators, comments where
they were.

Literals stay as they were written and parentheses are as few as the meaning allows. Formatting
twice is formatting once, and a formatted program means what it meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmppl.errors import Diagnostic
from lmppl.language import ast
from lmppl.language.lines import Comment, cut
from lmppl.language.parsing import parse
from lmppl.source import Source, Span

_BINDING = {
    "or": 1,
    "and": 2,
    "not": 3,
    "==": 4,
    "!=": 4,
    "<": 4,
    "<=": 4,
    ">": 4,
    ">=": 4,
    "+": 5,
    "-": 5,
}
_BINDING |= {"*": 6, "/": 6, "negate": 7, "^": 8}
_ATOM = 9


def format_program(source: Source) -> tuple[str, tuple[Diagnostic, ...]]:
    """Canonical text, or the text as it is and its findings where it cannot be parsed."""
    tree, findings = parse(source)
    if findings:
        return source.text, findings
    layout, _ = cut(source)
    pieces: list[tuple[Span, list[str]]] = []  # (where it stood, its lines)
    comments = list(layout.comments)
    for statement in tree.statements:
        inside, after = _claim(source, comments, statement.span)
        lines = [comment.text for comment in inside]
        lines.append(write_statement(statement) + (f"  {after.text}" if after else ""))
        pieces.append((statement.span, lines))
    pieces += [(comment.span, [comment.text]) for comment in comments]
    pieces.sort(key=lambda piece: piece[0].start)
    return _join(source, pieces), ()


def _claim(
    source: Source, comments: list[Comment], span: Span
) -> tuple[list[Comment], Comment | None]:
    """Take out the comments within a statement, and the one behind it on its last line."""
    end_line, _ = source.position(span.end)
    inside = [comment for comment in comments if span.start <= comment.span.start < span.end]
    behind = [comment for comment in comments if comment.span.start >= span.end]
    after = behind[0] if behind and source.position(behind[0].span.start)[0] == end_line else None
    for comment in [*inside, after] if after else inside:
        comments.remove(comment)
    return inside, after


def _join(source: Source, pieces: Sequence[tuple[Span, list[str]]]) -> str:
    """Lines in order; where blank lines stood between two pieces, one is kept."""
    lines: list[str] = []
    last = 0
    for span, piece in pieces:
        gap = source.text[last : span.start]
        if lines and gap.count("\n") > 1 and _blank_line(gap):
            lines.append("")
        lines += piece
        last = span.end
    return "\n".join(lines) + "\n" if lines else ""


def _blank_line(gap: str) -> bool:
    """Whether the text from the end of one statement to the next has an empty line."""
    return any(not line.strip() for line in gap.split("\n")[1:-1])


# --- statements -----------------------------------------------------------------------------------


def write_statement(statement: ast.Statement) -> str:
    """Canonical text of one statement."""
    return WRITERS[type(statement)](statement)


def _lm(statement: ast.Lm) -> str:
    options = _options(statement.options, " ")
    return f"lm {statement.name.text} = {statement.identifier.raw}{options}"


def _given(statement: ast.Given) -> str:
    return f"given {_names(statement.names)}"


def _param(statement: ast.Param) -> str:
    return f"param {statement.name.text} = {write_expression(statement.value)}"


def _text_constant(statement: ast.TextConstant) -> str:
    text = statement.text.raw if statement.text else ""
    path = f"from {statement.path.raw}" if statement.path else ""
    return f"text {statement.name.text} = {text}{path}"


def _use(statement: ast.Use) -> str:
    return f"use {_names(statement.names)} from {statement.path.raw}"


def _examples(statement: ast.Examples) -> str:
    seed = f" seed {write_expression(statement.seed)}" if statement.seed is not None else ""
    count, path = write_expression(statement.count), statement.path.raw
    shown = _items(statement.items)
    return f"examples {statement.name.text} = {count} from {path} as {shown}{seed}"


def _sample(statement: ast.Sample) -> str:
    law = _product(statement.terms)
    written = f"{statement.name.text} ~ {law}{_tools(statement)}{_endings(statement)}"
    return written + _guard(statement)


def _observe(statement: ast.Observe) -> str:
    target = _item(statement.target)
    if statement.items is not None:
        return f"observe {target} | {_items(statement.items)}{_guard(statement)}"
    written = _mixture(statement) if statement.weights else _product(statement.terms)
    return f"observe {target} ~ {written}{_guard(statement)}"


def _constrain(statement: ast.Constrain) -> str:
    return f"constrain {write_expression(statement.expression)}{_guard(statement)}"


def _factor(statement: ast.Factor) -> str:
    return f"factor {write_expression(statement.expression)}{_guard(statement)}"


def _derive(statement: ast.Derive) -> str:
    return f"derive {statement.name.text} = {write_expression(statement.expression)}"


def _statistic(statement: ast.Statistic) -> str:
    number = write_expression(statement.expression)
    return f"statistic {statement.name.text} = {number}{_guard(statement)}"


def _guide(statement: ast.Guide) -> str:
    return f"guide {statement.latent.text} | {_items(statement.items)}"


def _predict(statement: ast.Predict) -> str:
    return f"predict {statement.latent.text}"


def _learn(statement: ast.Learn) -> str:
    return f"learn {_names(statement.models)}"


def _infer(statement: ast.Infer) -> str:
    return f"infer {statement.engine.text}{_options(statement.options)}"


WRITERS: Mapping[type, Callable[[Any], str]] = {
    ast.Lm: _lm,
    ast.Given: _given,
    ast.Param: _param,
    ast.TextConstant: _text_constant,
    ast.Use: _use,
    ast.Examples: _examples,
    ast.Sample: _sample,
    ast.Observe: _observe,
    ast.Constrain: _constrain,
    ast.Factor: _factor,
    ast.Derive: _derive,
    ast.Statistic: _statistic,
    ast.Guide: _guide,
    ast.Predict: _predict,
    ast.Learn: _learn,
    ast.Infer: _infer,
}


# --- parts of statements --------------------------------------------------------------------------


def _options(options: Sequence[ast.Option], before: str = "") -> str:
    written = ", ".join(
        f"{option.name.text} = {write_expression(option.value)}" for option in options
    )
    return f"{before}({written})" if options else ""


def _names(names: Sequence[ast.Name]) -> str:
    return ", ".join(name.text for name in names)


def _item(item: ast.Shown) -> str:
    if isinstance(item, ast.Turn):
        return f"{item.role.text} {_item(item.item)}"
    return item.text if isinstance(item, ast.Name) else item.raw


def _items(items: Sequence[ast.Shown]) -> str:
    return ", ".join(map(_item, items))


def _product(terms: Sequence[ast.Term]) -> str:
    return " * ".join(map(_term, terms))


def _mixture(statement: ast.Observe) -> str:
    parts = [
        _term(term) if weight is None else f"{write_expression(weight)} * {_term(term)}"
        for weight, term in zip(statement.weights, statement.terms, strict=True)
    ]
    return f"mix({', '.join(parts)})"


def _term(term: ast.Term) -> str:
    call = f"{term.model.text}({_items(term.items)})"
    if term.power is None:
        return call
    plain = isinstance(term.power, ast.Number | ast.Name)
    return f"{call}^{write_expression(term.power) if plain else _tight(term.power)}"


def _tight(power: ast.Expression) -> str:
    """A power in parentheses; a single division or product in it is written without spaces."""
    text = write_expression(power)
    small = (
        isinstance(power, ast.Binary)
        and power.operator in "*/"
        and _simple(power.left)
        and _simple(power.right)
    )
    return f"({text.replace(' ', '') if small else text})"


def _simple(node: ast.Expression) -> bool:
    return isinstance(node, ast.Number | ast.Name)


def _guard(statement: ast.Guarded) -> str:
    return "" if statement.guard is None else f" when {write_expression(statement.guard)}"


def _tools(statement: ast.Sample) -> str:
    used = statement.tools.tools if statement.tools else ()
    written = ", ".join(f"{tool.name.text}{_options(tool.options)}" for tool in used)
    return f" with {written}" if written else ""


def _endings(statement: ast.Sample) -> str:
    until = f" until {statement.until.raw}" if statement.until else ""
    maximum = f" max {statement.maximum.raw} tokens" if statement.maximum else ""
    options = f" in [{_items(statement.choices.options)}]" if statement.choices else ""
    return until + maximum + options


# --- expressions ----------------------------------------------------------------------------------


def write_expression(node: ast.Expression | ast.Environment, least: int = 0) -> str:
    """Text of an expression, in parentheses where it binds less tightly than `least`."""
    text, binding = _written(node)
    return f"({text})" if binding < least else text


def _written(node: ast.Expression | ast.Environment) -> tuple[str, int]:
    if isinstance(node, ast.Name):
        return node.text, _ATOM
    if isinstance(node, ast.Call):
        return f"{node.function.text}({', '.join(map(write_expression, node.arguments))})", _ATOM
    if isinstance(node, ast.Unary):
        binding = _BINDING["negate" if node.operator == "-" else "not"]
        sign = "-" if node.operator == "-" else "not "
        return f"{sign}{write_expression(node.operand, binding)}", binding
    if isinstance(node, ast.Binary):
        return _binary(node)
    return node.raw, _ATOM


def _binary(node: ast.Binary) -> tuple[str, int]:
    binding = _BINDING[node.operator]
    if node.operator == "^":
        # binds its base more tightly than its exponent, which may carry a sign
        base = write_expression(node.left, _ATOM)
        exponent = write_expression(node.right, _BINDING["negate"])
        return f"{base} ^ {exponent}", binding
    once = binding + 1 if binding == _BINDING["=="] else binding  # comparisons do not chain
    left, right = write_expression(node.left, once), write_expression(node.right, binding + 1)
    return f"{left} {node.operator} {right}", binding
