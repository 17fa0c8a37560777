"""Texts that a program names, `text NAME = …`: what each means, and its pieces in contexts.

Looks at the files that hold some of them. Linear in the length of what is meant, which is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lmppl.errors import Diagnostic
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.file_checks import find_beside
from lmppl.language.templates import Body, Placeholder, cut_up
from lmppl.language.texts import brace_findings, split_template
from lmppl.source import Source, Span

MOST_CHARACTERS = 1_000_000  # of a text, those that it names included: more than models read
Piece = str | Placeholder
Found = list[Diagnostic]


@dataclass(frozen=True)
class NamedText:
    """A text by name. As a context shows it, it is a template, in which the texts that it names are
    written out.
    """

    span: Span  # of its statement
    value: str = ""
    pieces: Sequence[Piece] = ()
    braces: Sequence[Diagnostic] = ()  # what is wrong with its braces, which count in contexts
    path: str | None = None  # of the file that holds it; absolute
    names: frozenset[str] = frozenset()  # of the texts that are written out in it


Constants = Mapping[str, NamedText]


def named_texts(program: ast.Program, source: Source, folder: Path) -> tuple[Constants, Found]:
    """The texts that a program names, and what is wrong with their files and lengths. The first of
    a name counts; a text may name those above it.
    """
    known: dict[str, NamedText] = {}
    found: Found = []
    for statement in program.statements:
        if isinstance(statement, ast.TextConstant):
            text, problems = _read(statement, source, folder)
            shown, names = written_out(text.pieces, known), _names(text.pieces, known)
            if max(len(text.value), sum(map(_length, shown))) > MOST_CHARACTERS:
                problems.append(_too_long(source, statement.name.span, statement.name.text))
                shown = []
            known.setdefault(statement.name.text, replace(text, pieces=shown, names=names))
            found += problems
    return known, found


def written_out(pieces: Sequence[Piece], constants: Constants) -> Sequence[Piece]:
    """Pieces of a template, the texts that it names by theirs."""
    if not constants:
        return pieces
    result: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, Placeholder) and piece.name in constants:
            result += constants[piece.name].pieces
        else:
            result.append(piece)
    return result


def _names(pieces: Sequence[Piece], known: Constants) -> frozenset[str]:
    """Of the texts that a template names, and of those that they name."""
    own = {p.name for p in pieces if isinstance(p, Placeholder) and p.name in known}
    return frozenset(own).union(*(known[name].names for name in own))


def _length(piece: Piece) -> int:
    return len(piece if isinstance(piece, str) else piece.name)


def _too_long(source: Source, span: Span, what: str) -> Diagnostic:
    return findings.text_too_long(source, span, what, MOST_CHARACTERS)


def _read(statement: ast.TextConstant, source: Source, folder: Path) -> tuple[NamedText, Found]:
    """A named text by itself."""
    if statement.text is not None:
        pieces, braces = split_template(source, statement.text)
        return NamedText(statement.span, statement.text.value, pieces, braces), []
    assert statement.path is not None
    text, found = _file(statement.path, source, folder)
    if text is None:
        return NamedText(statement.span), found
    path = os.path.join(folder, statement.path.value)
    value = text.text.removesuffix("\n")  # what ends the last line of a file is no part of it
    pieces, misplaced = cut_up(Body(value, ((0, 0),)), escapes=False)
    placed = [p if isinstance(p, str) else p._replace(source=text) for p in pieces]
    return NamedText(statement.span, value, placed, brace_findings(text, misplaced), path), []


def _file(name: ast.Text, source: Source, folder: Path) -> tuple[Source | None, Found]:
    """A file beside the program that holds a text in UTF-8."""
    path, found = find_beside(name, source, folder)
    if path is None:
        return None, found
    try:
        if os.path.getsize(path) > 4 * MOST_CHARACTERS:  # bytes
            return None, [_too_long(source, name.span, name.value)]
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError as reason:
        problem = reason.strerror or "it cannot be read"
        return None, [findings.bad_text_file(source, name.span, name.value, problem)]
    except UnicodeDecodeError as reason:
        line = reason.object[: reason.start].count(b"\n") + 1
        problem = f"byte 0x{reason.object[reason.start]:02X} on line {line} is no UTF-8"
        return None, [findings.bad_text_file(source, name.span, name.value, problem)]
    return Source(str(Path(source.path).parent / name.value), text), []
