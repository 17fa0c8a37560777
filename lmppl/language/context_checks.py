"""Checking terms and contexts: what they read, and where a space or a letter stands badly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lmppl.findings import program as findings
from lmppl.ir import ROLES
from lmppl.language import ast
from lmppl.language.constants import written_out
from lmppl.language.expression_checks import check_constant
from lmppl.language.scope import DERIVED, EXAMPLES, GIVEN, LATENT, LM, TEXT, WORKED_TURNS, Scope
from lmppl.language.texts import Placeholder, begins_a_word, pieces_of, split_template
from lmppl.source import Span

Piece = str | Placeholder


def check_terms(scope: Scope, terms: Sequence[ast.Term]) -> list[str]:
    """Check terms, and give the names that their contexts read."""
    read = []
    for term in terms:
        scope.resolve(term.model.text, term.model.span, (LM,), "the name of an `lm`")
        if term.power is not None:
            check_constant(scope, term.power)
        read += check_context(scope, term.items)
    return read


def is_chat(items: Sequence[ast.Shown]) -> bool:
    """Whether a context is a conversation: some item of it has a role."""
    return any(isinstance(item, ast.Turn) for item in items)


def check_context(scope: Scope, items: Sequence[ast.Shown]) -> list[str]:
    """Check a context, and give the names that it reads."""
    _check_turns(scope, items)
    read = []
    for item in items:
        pieces = _pieces(scope, plain(item))
        for piece in pieces:
            if isinstance(piece, Placeholder) and _is_readable(scope, piece):
                read.append(piece.name)
        _space_before_latent(scope, pieces, item.span)
    return read


def check_worked(scope: Scope, statement: ast.Examples) -> None:
    """A row is shown by one template, or by turns."""
    _check_turns(scope, statement.items)
    first, *others = statement.items
    if others and not is_chat(statement.items):
        scope.add(findings.several_templates(scope.source, others[0].span))
    elif isinstance(first, ast.Name):
        scope.add(findings.no_template_text(scope.source, first.span, first.text))


def _check_turns(scope: Scope, items: Sequence[ast.Shown]) -> None:
    """All items have roles, or none has; worked rows are of the same kind."""
    chat = is_chat(items)
    for item in items:
        if isinstance(item, ast.Turn):
            _check_role(scope, item)
        elif isinstance(item, ast.Name) and scope.has_role(item.text, EXAMPLES, WORKED_TURNS):
            if scope.has_role(item.text, WORKED_TURNS) != chat:
                scope.add(findings.other_worked_rows(scope.source, item.span, item.text, chat))
        elif chat:
            scope.add(findings.item_without_role(scope.source, item.span))


def _check_role(scope: Scope, turn: ast.Turn) -> None:
    if turn.role.text not in ROLES:
        prefix = turn.role.span.end == turn.item.span.start  # f"…", as in Python
        scope.add(findings.unknown_role(scope.source, turn.role.span, turn.role.text, prefix))


def plain(item: ast.Shown) -> ast.Item:
    """What an item shows, whatever its role."""
    return item.item if isinstance(item, ast.Turn) else item


def _pieces(scope: Scope, item: ast.Item) -> Sequence[Piece]:
    """Texts and names that an item is made of; those of the texts that it names are looked at
    once.
    """
    if isinstance(item, ast.Text):
        scope.found += split_template(scope.source, item)[1]
    elif item.text in ROLES and item.text not in scope.symbols:
        scope.add(findings.role_without_text(scope.source, item.span, item.text))
        return []
    if not scope.constants:
        return pieces_of(item)
    shown: list[Piece] = []
    for piece in pieces_of(item):
        if isinstance(piece, Placeholder) and scope.has_role(piece.name, TEXT):
            if scope.resolve(piece.name, piece.span, (TEXT,), "a text"):
                shown += _named(scope, piece.name)
        else:
            shown.append(piece)
    return shown


def _named(scope: Scope, name: str) -> Sequence[Piece]:
    """Pieces of a named text. What is wrong with its braces is said once."""
    text = scope.constants[name]
    if not scope.again("context", name):
        scope.found += text.braces
        scope.used |= text.names
    return text.pieces


def _is_readable(scope: Scope, piece: Placeholder) -> bool:
    if scope.has_role(piece.name, TEXT):  # a text names itself, or one below it
        line, _ = scope.source.position(scope.symbols[piece.name].span.start)
        place = piece.source or scope.source
        scope.add(findings.used_before(place, piece.span, piece.name, line))
        return False
    roles = (GIVEN, EXAMPLES, WORKED_TURNS, DERIVED, *LATENT)
    expected = "a given, a latent, a derived value or a named text"
    return scope.resolve(piece.name, piece.span, roles, expected, piece.source) is not None


def _space_before_latent(scope: Scope, pieces: Sequence[Piece], span: Span) -> None:
    for before, after in pairwise(pieces):
        ends_in_space = isinstance(before, str) and before.endswith(" ")
        if ends_in_space and isinstance(after, Placeholder) and scope.has_role(after.name, *LATENT):
            scope.add(findings.trailing_space(scope.source, span, after.name))


def check_end(scope: Scope, term: ast.Term, latent: str) -> None:
    """A context that a text goes on from should not end in a space."""
    if _end(scope, term).endswith(" "):
        scope.add(findings.trailing_space(scope.source, term.items[-1].span, latent))


def _end(scope: Scope, term: ast.Term) -> str:
    """The text that a context ends with; none where that is a value, or the beginning of a turn,
    which the model's template writes.
    """
    last = term.items[-1] if term.items else None
    if last is None or (isinstance(last, ast.Turn) and last.role.text != "assistant"):
        return ""
    pieces = written_out(pieces_of(plain(last))[-1:], scope.constants)
    return pieces[-1] if pieces and isinstance(pieces[-1], str) else ""


def check_glued(scope: Scope, term: ast.Term, choices: ast.Choices) -> None:
    """Options should not begin with a letter or a digit where the context ends in a word or in
    punctuation.
    """
    if not (end := _end(scope, term)[-1:]):
        return
    for option in choices.options:
        if begins_a_word(end, option.value[:1]):
            scope.add(findings.glued_option(scope.source, option.span, option.value))
            return
