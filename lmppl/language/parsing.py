"""From a program's text to its syntax tree. Total: whatever the text, a tree and findings come
back.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from lmppl.errors import Diagnostic
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.hints import hint
from lmppl.language.lines import Line, cut
from lmppl.language.texts import SURROGATE, read_text
from lmppl.source import Source, Span

MOST_DEPTH = 100  # levels of an expression; beyond it, recursion would fail somewhere

_WORDS = {
    "NAME": "a name",
    "NUMBER": "a number",
    "TEXT": 'a text in "quotes"',
    "PATTERN": "a /pattern/",
    "COMPARISON": "a comparison",
    "$END": "the end of the statement",
}


def grammar_path(name: str) -> Path:
    """Path of a grammar that comes with lmppl: inside the package once installed, beside it in a
    checkout.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "grammars" / name
    return inside if inside.exists() else package.parent / "grammars" / name


def parse(source: Source) -> tuple[ast.Program, tuple[Diagnostic, ...]]:
    """Syntax tree of every statement that could be read, and findings in order of place."""
    layout, found = cut(source)
    halves = [
        findings.no_character(source, Span(*match.span()))
        for match in SURROGATE.finditer(source.text)
    ]
    diagnostics = [*found, *halves]
    broken = sorted(finding.span.start for finding in diagnostics if finding.span)
    statements = []
    for line in layout.lines:
        if bisect_left(broken, line.span.start) < bisect_left(broken, line.span.end):
            continue  # a text or bracket in it is broken: parsing it would only find that again
        statement, problems = _parse_line(source, line)
        diagnostics += problems
        if statement is not None:
            statements.append(statement)
    diagnostics.sort(key=lambda finding: finding.span or Span(0, 0))
    return ast.Program(tuple(statements)), tuple(diagnostics)


def _parse_line(source: Source, line: Line) -> tuple[ast.Statement | None, list[Diagnostic]]:
    builder = _Builder(source, line.span.start)
    try:
        statement = builder.build(_lark().parse(source.slice(line.span)))
        if _depth(statement) <= MOST_DEPTH:
            return statement, builder.found
    except UnexpectedInput as reason:
        return None, [_explain(source, line, reason)]
    except RecursionError:
        pass
    return None, [findings.too_deep(source, line.span, MOST_DEPTH)]


def _depth(statement: ast.Statement) -> int:
    """Levels of a statement's deepest expression, found without recursion."""
    level, depth = _expressions(statement), 0
    while level:
        depth += 1
        level = [child for node in level for child in children(node)]
    return depth


def _expressions(statement: ast.Statement) -> list[ast.Expression]:
    """The expressions that a statement holds, each as a whole."""
    if isinstance(statement, ast.Param):
        return [statement.value]
    if isinstance(statement, ast.Derive):
        return [statement.expression]
    if isinstance(statement, ast.Constrain | ast.Factor | ast.Statistic):
        return [statement.expression, *_guard_of(statement)]
    if isinstance(statement, ast.Sample | ast.Observe):
        powers = [term.power for term in statement.terms if term.power is not None]
        return [*powers, *_guard_of(statement)]
    return []


def _guard_of(statement: ast.Guarded) -> list[ast.Expression]:
    return [] if statement.guard is None else [statement.guard]


def children(node: ast.Expression) -> tuple[ast.Expression, ...]:
    """Direct subexpressions."""
    if isinstance(node, ast.Call):
        return node.arguments
    if isinstance(node, ast.Unary):
        return (node.operand,)
    return (node.left, node.right) if isinstance(node, ast.Binary) else ()


def walk(node: ast.Expression) -> Iterator[ast.Expression]:
    """An expression and all that it holds, from the left."""
    yield node
    for child in children(node):
        yield from walk(child)


@functools.cache
def _lark() -> Lark:
    text = grammar_path("lmppl.lark").read_text(encoding="utf-8")
    return Lark(
        text,
        parser="lalr",
        lexer="contextual",
        start="start",
        maybe_placeholders=False,
        propagate_positions=True,
    )


# --- what went wrong ------------------------------------------------------------------------------


def _explain(source: Source, line: Line, reason: UnexpectedInput) -> Diagnostic:
    start = line.span.start
    if isinstance(reason, UnexpectedToken) and reason.token.type != "$END":
        token = reason.token
        span = Span(start + (token.start_pos or 0), start + (token.end_pos or 0))
        expected = reason.accepts or reason.expected
    elif isinstance(reason, UnexpectedCharacters):
        offset = start + reason.pos_in_stream
        span = Span(offset, _word_end(source.text, offset, line.span.end))
        expected = reason.allowed
    else:
        span = Span(line.span.end, line.span.end)
        expected = reason.expected if isinstance(reason, UnexpectedEOF | UnexpectedToken) else set()
        return findings.unfinished(source, span, _listed(expected))
    if (whole := _whole_word(source.text, span, line.span)) != span:
        span, expected = whole, ()  # a keyword with more behind it, such as `untill`
    found = source.slice(span)
    help = hint(source.text[start : span.start], found, source.text[span.end : line.span.end])
    first_word = source.text[start : _word_end(source.text, start, line.span.end)]
    statement = first_word if span.start > start else None
    return findings.unexpected(source, span, _listed(expected), found, statement, help)


def _whole_word(text: str, span: Span, line: Span) -> Span:
    """The word that a span within a line lies in; the span itself where it begins no part of
    one.
    """
    start = span.start
    while (
        start > line.start
        and text[span.start].isalpha()
        and (text[start - 1].isalnum() or text[start - 1] == "_")
    ):
        start -= 1
    return Span(start, span.end) if start < span.start and not text[start].isdigit() else span


def _word_end(text: str, offset: int, limit: int) -> int:
    end = offset
    while end < limit and (text[end].isalnum() or text[end] == "_"):
        end += 1
    return max(end, min(offset + 1, limit))


def _listed(expected: Any) -> str:
    """What could have stood there, in words."""
    terminals = {
        name
        for name in expected or ()
        if not name.startswith("__") and name not in ("WS", "COMMENT")
    }
    patterns = {terminal.name: terminal.pattern for terminal in _lark().terminals}
    words = []
    for name in sorted(terminals):
        fixed = name in patterns and patterns[name].type == "str"
        words.append(_WORDS.get(name) or (f"`{patterns[name].value}`" if fixed else name.lower()))
    return ", ".join(dict.fromkeys(words))


# --- building the tree ----------------------------------------------------------------------------


def _binary(operator: str) -> Any:
    """A method of the builder for one operator."""

    def build(self: Any, meta: Any, children: list) -> ast.Binary:
        return ast.Binary(operator, children[0], children[1], self.span(meta))

    return build


def _guarded(children: list) -> tuple[list, ast.Expression | None]:
    """What a statement is made of, and what stands behind its `when`."""
    last = children[-1]
    if isinstance(last, tuple) and last[:1] == ("when",):
        return children[:-1], last[1]
    return children, None


class _Builder:
    """One statement's parse tree to its node. Spans are shifted to where the statement stands.

    Has a method for every name in the grammar. lark's Transformer does the same, and takes half of
    the time that a long program needs.
    """

    def __init__(self, source: Source, offset: int) -> None:
        self.source, self.offset = source, offset
        self.found: list[Diagnostic] = []

    def build(self, tree: Tree) -> Any:
        """The node of a tree, those of its children first."""
        children = [
            self.build(child) if isinstance(child, Tree) else child for child in tree.children
        ]
        return getattr(self, tree.data)(tree.meta, children)

    def span(self, meta: Any) -> Span:
        return Span(self.offset + meta.start_pos, self.offset + meta.end_pos)

    def _token_span(self, token: Token) -> Span:
        return Span(self.offset + (token.start_pos or 0), self.offset + (token.end_pos or 0))

    def _name(self, token: Token) -> ast.Name:
        return ast.Name(str(token), self._token_span(token))

    def _text(self, token: Token) -> ast.Text:
        text, bad = read_text(self.source, str(token), self._token_span(token))
        self.found += bad
        return text

    def _number(self, token: Token) -> ast.Number:
        return ast.Number(float(token), str(token), self._token_span(token))

    # leaves

    def name(self, meta: Any, children: list) -> ast.Name:
        return self._name(children[0])

    def text(self, meta: Any, children: list) -> ast.Text:
        return self._text(children[0])

    def number(self, meta: Any, children: list) -> ast.Number:
        return self._number(children[0])

    def negative_number(self, meta: Any, children: list) -> ast.Number:
        return ast.Number(-float(children[0]), f"-{children[0]}", self.span(meta))

    def pattern(self, meta: Any, children: list) -> ast.Pattern:
        raw = str(children[0])
        return ast.Pattern(raw[1:-1].replace("\\/", "/"), raw, self.span(meta))

    # expressions

    def call(self, meta: Any, children: list) -> ast.Call:
        return ast.Call(self._name(children[0]), tuple(children[1:]), self.span(meta))

    def compare(self, meta: Any, children: list) -> ast.Binary:
        left, operator, right = children
        return ast.Binary(str(operator), left, right, self.span(meta))

    def negate(self, meta: Any, children: list) -> ast.Unary:
        return ast.Unary("-", children[0], self.span(meta))

    def not_(self, meta: Any, children: list) -> ast.Unary:
        return ast.Unary("not", children[0], self.span(meta))

    or_, and_ = _binary("or"), _binary("and")
    add, subtract, multiply, divide = _binary("+"), _binary("-"), _binary("*"), _binary("/")
    power_of = _binary("^")

    # pieces of statements

    def names(self, meta: Any, children: list) -> tuple[ast.Name, ...]:
        return tuple(self._name(token) for token in children)

    def options(self, meta: Any, children: list) -> tuple[ast.Option, ...]:
        return tuple(children)

    def option(self, meta: Any, children: list) -> ast.Option:
        return ast.Option(self._name(children[0]), children[1], self.span(meta))

    def environment(self, meta: Any, children: list) -> ast.Environment:
        return ast.Environment(str(children[0]), self._text(children[1]), self.span(meta))

    def product(self, meta: Any, children: list) -> tuple[ast.Term, ...]:
        return tuple(children)

    def turn(self, meta: Any, children: list) -> ast.Turn:
        return ast.Turn(self._name(children[0]), children[1], self.span(meta))

    def arguments(self, meta: Any, children: list) -> tuple[ast.Shown, ...]:
        return tuple(children)

    context = arguments

    def term(self, meta: Any, children: list) -> ast.Term:
        power = children[2] if len(children) > 2 else None
        return ast.Term(self._name(children[0]), children[1], power, self.span(meta))

    def until(self, meta: Any, children: list) -> tuple[str, ast.Text]:
        return "until", self._text(children[0])

    def maximum(self, meta: Any, children: list) -> tuple[str, ast.Number]:
        return "max", self._number(children[0])

    def choices(self, meta: Any, children: list) -> tuple[str, ast.Choices]:
        return "in", ast.Choices(tuple(self._text(token) for token in children), self.span(meta))

    def tool(self, meta: Any, children: list) -> ast.Tool:
        return ast.Tool(
            self._name(children[0]), children[1] if len(children) > 1 else (), self.span(meta)
        )

    def tools(self, meta: Any, children: list) -> tuple[str, ast.Tools]:
        return "with", ast.Tools(tuple(children), self.span(meta))

    # statements

    def lm(self, meta: Any, children: list) -> ast.Lm:
        options = children[2] if len(children) > 2 else ()
        return ast.Lm(self._name(children[0]), self._text(children[1]), options, self.span(meta))

    def given(self, meta: Any, children: list) -> ast.Given:
        return ast.Given(children[0], self.span(meta))

    def param(self, meta: Any, children: list) -> ast.Param:
        return ast.Param(self._name(children[0]), children[1], self.span(meta))

    def text_written(self, meta: Any, children: list) -> ast.TextConstant:
        name, text = self._name(children[0]), self._text(children[1])
        return ast.TextConstant(name, text, None, self.span(meta))

    def text_of_file(self, meta: Any, children: list) -> ast.TextConstant:
        name, path = self._name(children[0]), self._text(children[1])
        return ast.TextConstant(name, None, path, self.span(meta))

    def use(self, meta: Any, children: list) -> ast.Use:
        return ast.Use(children[0], self._text(children[1]), self.span(meta))

    def examples(self, meta: Any, children: list) -> ast.Examples:
        name, count, path, items, *seed = children
        last = seed[0] if seed else None
        return ast.Examples(self._name(name), count, self._text(path), items, last, self.span(meta))

    def sample(self, meta: Any, children: list) -> ast.Sample:
        children, guard = _guarded(children)
        endings: dict[str, Any] = {}
        for kind, value in children[2:]:
            if kind in endings:
                self.found.append(findings.ending_twice(self.source, value.span, kind))
            endings[kind] = value
        name = self._name(children[0])
        tools, until, maximum, choices = (
            endings.get(kind) for kind in ("with", "until", "max", "in")
        )
        return ast.Sample(name, children[1], tools, until, maximum, choices, self.span(meta), guard)

    def observe_short(self, meta: Any, children: list) -> ast.Observe:
        children, guard = _guarded(children)
        return ast.Observe(children[0], children[1], (), self.span(meta), guard=guard)

    def observe_long(self, meta: Any, children: list) -> ast.Observe:
        children, guard = _guarded(children)
        return ast.Observe(children[0], None, children[1], self.span(meta), guard=guard)

    def observe_mixture(self, meta: Any, children: list) -> ast.Observe:
        children, guard = _guarded(children)
        weights, terms = zip(*children[1:], strict=True)
        return ast.Observe(children[0], None, terms, self.span(meta), weights, guard)

    def guard(self, meta: Any, children: list) -> tuple[str, ast.Expression]:
        return "when", children[0]

    def part(self, meta: Any, children: list) -> tuple[ast.Number | ast.Name | None, ast.Term]:
        return (children[0] if len(children) > 1 else None, children[-1])

    def constrain(self, meta: Any, children: list) -> ast.Constrain:
        children, guard = _guarded(children)
        return ast.Constrain(children[0], self.span(meta), guard)

    def factor(self, meta: Any, children: list) -> ast.Factor:
        children, guard = _guarded(children)
        return ast.Factor(children[0], self.span(meta), guard)

    def derive(self, meta: Any, children: list) -> ast.Derive:
        return ast.Derive(self._name(children[0]), children[1], self.span(meta))

    def statistic(self, meta: Any, children: list) -> ast.Statistic:
        children, guard = _guarded(children)
        return ast.Statistic(self._name(children[0]), children[1], self.span(meta), guard)

    def guide(self, meta: Any, children: list) -> ast.Guide:
        return ast.Guide(self._name(children[0]), children[1], self.span(meta))

    def predict(self, meta: Any, children: list) -> ast.Predict:
        return ast.Predict(self._name(children[0]), self.span(meta))

    def infer(self, meta: Any, children: list) -> ast.Infer:
        options = children[1] if len(children) > 1 else ()
        return ast.Infer(self._name(children[0]), options, self.span(meta))

    def learn(self, meta: Any, children: list) -> ast.Learn:
        return ast.Learn(children[0], self.span(meta))
