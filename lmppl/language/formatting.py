"""Canonical text of a program: one statement a line, one space around operators, comments where
they were.

Literals stay as they were written and parentheses are as few as the meaning allows. Formatting
twice is formatting once, and a formatted program means what it meant.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    pieces: list[tuple[int, list[str]]] = []  # (where it stood, its lines)
    comments = list(layout.comments)
    for statement in tree.statements:
        inside, after = _claim(source, comments, statement.span)
        lines = [comment.text for comment in inside]
        lines.append(write_statement(statement) + (f"  {after.text}" if after else ""))
        pieces.append((statement.span.start, lines))
    pieces += [(comment.span.start, [comment.text]) for comment in comments]
    pieces.sort(key=lambda piece: piece[0])
    return _join(source, pieces), ()


def _claim(
    source: Source, comments: list[Comment], span: Span
) -> tuple[list[Comment], Comment | None]:
    """Take out the comments within a statement, and the one behind it on its last line."""
    end_line, _ = source.position(span.end)
    inside = [comment for comment in comments if span.start <= comment.span.start < span.end]
    after = next(
        (
            c
            for c in comments
            if c.span.start >= span.end and source.position(c.span.start)[0] == end_line
        ),
        None,
    )
    for comment in [*inside, *([after] if after else [])]:
        comments.remove(comment)
    return inside, after


def _join(source: Source, pieces: Sequence[tuple[int, list[str]]]) -> str:
    """Lines in order; where blank lines stood between two pieces, one is kept."""
    lines: list[str] = []
    last = 0
    for start, piece in pieces:
        gap = source.text[last:start]
        if lines and gap.count("\n") > 1 and _blank_line(gap):
            lines.append("")
        lines += piece
        last = start
    return "\n".join(lines) + "\n" if lines else ""


def _blank_line(gap: str) -> bool:
    """Whether a piece of text, from the beginning of one statement to the next, has an empty line
    before its end.
    """
    return any(not line.strip() for line in gap.split("\n")[1:-1])


# --- statements -----------------------------------------------------------------------------------


def write_statement(statement: ast.Statement) -> str:
    """Canonical text of one statement."""
    if isinstance(statement, ast.Lm):
        return (
            f"lm {statement.name.text} = "
            f"{statement.identifier.raw}{_options(statement.options, ' ')}"
        )
    if isinstance(statement, ast.Given):
        return f"given {_names(statement.names)}"
    if isinstance(statement, ast.Param):
        return f"param {statement.name.text} = {write_expression(statement.value)}"
    if isinstance(statement, ast.Use):
        return f"use {_names(statement.names)} from {statement.path.raw}"
    if isinstance(statement, ast.Examples):
        return _examples(statement)
    if isinstance(statement, ast.Sample):
        return (
            f"{statement.name.text} ~ "
            f"{_product(statement.terms)}{_tools(statement)}{_endings(statement)}"
        )
    if isinstance(statement, ast.Observe):
        if statement.items is None:
            written = _mixture(statement) if statement.weights else _product(statement.terms)
            return f"observe {_item(statement.target)} ~ {written}"
        return f"observe {_item(statement.target)} | {_items(statement.items)}"
    if isinstance(statement, ast.Constrain):
        return f"constrain {write_expression(statement.expression)}"
    if isinstance(statement, ast.Factor):
        return f"factor {write_expression(statement.expression)}"
    if isinstance(statement, ast.Statistic):
        return f"statistic {statement.name.text} = {write_expression(statement.expression)}"
    if isinstance(statement, ast.Guide):
        return f"guide {statement.latent.text} | {_items(statement.items)}"
    if isinstance(statement, ast.Predict):
        return f"predict {statement.latent.text}"
    if isinstance(statement, ast.Learn):
        return f"learn {_names(statement.models)}"
    return f"infer {statement.engine.text}{_options(statement.options)}"


def _examples(statement: ast.Examples) -> str:
    seed = f" seed {write_expression(statement.seed)}" if statement.seed is not None else ""
    count, path, template = (
        write_expression(statement.count),
        statement.path.raw,
        statement.template.raw,
    )
    return f"examples {statement.name.text} = {count} from {path} as {template}{seed}"


def _options(options: Sequence[ast.Option], before: str = "") -> str:
    written = ", ".join(
        f"{option.name.text} = {write_expression(option.value)}" for option in options
    )
    return f"{before}({written})" if options else ""


def _names(names: Sequence[ast.Name]) -> str:
    return ", ".join(name.text for name in names)


def _item(item: ast.Item) -> str:
    return item.text if isinstance(item, ast.Name) else item.raw


def _items(items: Sequence[ast.Item]) -> str:
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


def write_expression(node: ast.Expression, least: int = 0) -> str:
    """Text of an expression, in parentheses where it binds less tightly than `least`."""
    text, binding = _written(node)
    return f"({text})" if binding < least else text


def _written(node: ast.Expression) -> tuple[str, int]:
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
    if (
        node.operator == "^"
    ):  # binds its base more tightly than its exponent, which may carry a sign
        return (
            (
                f"{write_expression(node.left, _ATOM)} ^ "
                f"{write_expression(node.right, _BINDING['negate'])}"
            ),
            binding,
        )
    once = binding + 1 if binding == _BINDING["=="] else binding  # comparisons do not chain
    left, right = write_expression(node.left, once), write_expression(node.right, binding + 1)
    return f"{left} {node.operator} {right}", binding
