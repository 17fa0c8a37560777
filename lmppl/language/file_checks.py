"""Checking the files that a program names: that they are there, and hold what is asked of them.
Reads, never runs.
"""

from __future__ import annotations

import ast as python
import os
import re
from collections.abc import Mapping
from pathlib import Path

from lmppl.data import read_records
from lmppl.errors import Diagnostic, LmpplError
from lmppl.expressions import (
    LARK_HEADER,
    NoValue,
    file_grammar,
    find_file,
    grammar_problem,
    shipped_grammars,
)
from lmppl.findings import no_value_of
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.texts import Placeholder, split_template
from lmppl.source import Source

Found = list[Diagnostic]


def find_beside(text: ast.Text, source: Source, folder: Path) -> tuple[Path | None, Found]:
    """A file that must lie in the program's folder, links followed: the one guard of all files that
    a program names.
    """
    try:
        root = folder.resolve()
        path = (root / text.value).resolve()
    except (
        OSError,
        ValueError,
        RuntimeError,
    ):  # no file can have such a name: too long, a null, a loop of links
        return None, [findings.missing_file(source, text.span, text.value)]
    if not path.is_relative_to(root):
        return None, [findings.outside_folder(source, text.span, text.value)]
    if not os.path.isfile(path):
        return None, [findings.missing_file(source, text.span, text.value)]
    return path, []


def helper_arities(
    statement: ast.Use, source: Source, folder: Path
) -> tuple[Mapping[str, tuple[int, float]], Found]:
    """Fewest and most arguments of the functions in a `use` file."""
    path, found = find_beside(statement.path, source, folder)
    if path is None:
        return {}, found
    if path.suffix != ".py":
        return {}, [findings.not_python(source, statement.path.span, statement.path.value)]
    try:
        module = python.parse(path.read_text(encoding="utf-8-sig"))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as reason:
        return {}, [
            findings.broken_python(source, statement.path.span, statement.path.value, str(reason))
        ]
    functions = {
        node.name: _arity(node.args) for node in module.body if isinstance(node, python.FunctionDef)
    }
    missing = [name for name in statement.names if name.text not in functions]
    place = statement.path.value
    return functions, [
        findings.missing_function(source, n.span, place, n.text, functions) for n in missing
    ]


def _arity(arguments: python.arguments) -> tuple[int, float]:
    most = len(arguments.posonlyargs) + len(arguments.args)
    return most - len(arguments.defaults), float("inf") if arguments.vararg else most


def grammar_findings(kind: str, text: ast.Text, source: Source, folder: Path) -> Found:
    """A Lark file or JSON schema beside the program, or a grammar that comes with lmppl."""
    path: Path | None = find_file(text.value, str(folder))
    if path is None or path.parent != shipped_grammars():
        path, found = find_beside(text, source, folder)
        if path is None:
            return found
    try:
        grammar = file_grammar(kind, str(path))
        problem = _of_file(kind, grammar_problem(grammar.removeprefix(LARK_HEADER)))
    except (OSError, ValueError) as reason:
        problem = str(reason)
    return [findings.bad_grammar(source, text.span, text.value, problem)] if problem else []


def _of_file(kind: str, problem: str | None) -> str | None:
    """A problem without its place, where that is one in what has been written around a schema."""
    return re.sub(r"^at \d+\(\d+\): ", "", problem) if problem and kind == "is_json" else problem


def _columns(statement: ast.Examples, source: Source) -> tuple[list[Placeholder], Found]:
    """Columns that the items of an `examples` statement read, and what is wrong with its braces."""
    names: list[Placeholder] = []
    found: Found = []
    for item in statement.items:
        shown = item.item if isinstance(item, ast.Turn) else item
        if isinstance(shown, ast.Name):
            names.append(Placeholder(shown.text, shown.span))
            continue
        pieces, bad = split_template(source, shown)
        names += [piece for piece in pieces if isinstance(piece, Placeholder)]
        found += bad
    return names, found


def examples_findings(statement: ast.Examples, source: Source, folder: Path) -> Found:
    """A data file beside the program, with the columns that the template names."""
    names, found = _columns(statement, source)
    if not names and not found:
        found.append(findings.plain_template(source, statement.items[0].span))
    place = statement.path
    path, problems = find_beside(place, source, folder)
    if path is None:
        return [*found, *problems]
    try:
        records = read_records(folder / place.value)
    except LmpplError as reason:
        return [
            *found,
            findings.bad_examples(source, place.span, place.value, reason.diagnostics[0].message),
        ]
    columns = dict.fromkeys(name for record in records for name in record.values)
    missing = [name for name in names if name.name not in columns]
    found += [findings.no_column(source, n.span, n.name, place.value, columns) for n in missing]
    unread = ((name.name, r, r.values.get(name.name)) for r in records for name in names)
    odd = next(
        (no_value_of(n, value, r) for n, r, value in unread if isinstance(value, NoValue)), None
    )
    return [
        *found,
        *([findings.bad_examples(source, place.span, place.value, odd.message)] if odd else []),
    ]
