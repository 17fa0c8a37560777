"""Checking terms and contexts: what they read, and where a space or a letter stands badly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.expression_checks import check_constant
from lmppl.language.scope import EXAMPLES, GIVEN, LATENT, LM, Scope
from lmppl.language.texts import Placeholder, begins_a_word, split_template
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
    """Texts and names that an item is made of."""
    if not isinstance(item, ast.Text):
        return [Placeholder(item.text, item.span)]
    pieces, bad = split_template(scope.source, item)
    scope.found += bad
    return pieces


def _is_readable(scope: Scope, piece: Placeholder) -> bool:
    roles = (GIVEN, EXAMPLES, *LATENT)
    return scope.resolve(piece.name, piece.span, roles, "a given or a latent") is not None


def _space_before_latent(scope: Scope, pieces: Sequence[Piece], span: Span) -> None:
    for before, after in pairwise(pieces):
        ends_in_space = isinstance(before, str) and before.endswith(" ")
        if ends_in_space and isinstance(after, Placeholder) and scope.has_role(after.name, *LATENT):
            scope.add(findings.trailing_space(scope.source, span, after.name))


def check_end(scope: Scope, term: ast.Term, latent: str) -> None:
    """A context that a text goes on from should not end in a space."""
    last = term.items[-1] if term.items else None
    if isinstance(last, ast.Text) and last.value.endswith(" "):
        scope.add(findings.trailing_space(scope.source, last.span, latent))


def check_glued(scope: Scope, term: ast.Term, choices: ast.Choices) -> None:
    """Options should not begin with a letter or a digit where the context ends in a word or in
    punctuation.
    """
    last = term.items[-1] if term.items else None
    if not isinstance(last, ast.Text) or not (end := last.value[-1:]):
        return
    for option in choices.options:
        if begins_a_word(end, option.value[:1]):
            scope.add(findings.glued_option(scope.source, option.span, option.value))
            return
