"""Checking terms and contexts: what they read, and where a space or a letter stands badly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.constants import written_out
from lmppl.language.expression_checks import check_constant
from lmppl.language.scope import DERIVED, EXAMPLES, GIVEN, LATENT, LM, TEXT, Scope
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


def check_context(scope: Scope, items: Sequence[ast.Item]) -> list[str]:
    """Check a context, and give the names that it reads."""
    read = []
    for item in items:
        pieces = _pieces(scope, item)
        for piece in pieces:
            if isinstance(piece, Placeholder) and _is_readable(scope, piece):
                read.append(piece.name)
        _space_before_latent(scope, pieces, item.span)
    return read


def _pieces(scope: Scope, item: ast.Item) -> Sequence[Piece]:
    """Texts and names that an item is made of; those of the texts that it names are looked at
    once.
    """
    if isinstance(item, ast.Text):
        scope.found += split_template(scope.source, item)[1]
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
    roles = (GIVEN, EXAMPLES, DERIVED, *LATENT)
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
    """The text that a context ends with; none where that is a value."""
    if not term.items:
        return ""
    pieces = written_out(pieces_of(term.items[-1])[-1:], scope.constants)
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
