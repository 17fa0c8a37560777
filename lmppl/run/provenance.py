"""What a run is made from, by content: the program and its files, the models, the rows of data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.data import Row
from lmppl.expressions import FILE_FUNCTIONS, find_file
from lmppl.lm import LanguageModel, describe_model
from lmppl.lm.transformers import ADAPTER
from lmppl.run.helper_imports import imported
from lmppl.shapes import Document
from lmppl.storage import of_file, of_value

LEARNED = (*ADAPTER, "policy.json")
# options of engines that name a folder with what was learned before
FOLDERS = (
    "proposal",
    "start_from",
)


def origin(
    program: ir.Program, rows: Sequence[Row], models: Mapping[str, LanguageModel]
) -> Document:
    """All that decides a run's density: what is taken up again must agree with it. Raises
    OSError.
    """
    return made_from(program, rows, {name: describe_model(one) for name, one in models.items()})


def made_from(program: ir.Program, rows: Sequence[Row], models: Mapping[str, Document]) -> Document:
    """As `origin`, where models are described already. Raises OSError."""
    return {
        "program": describe_program(program)["sha256"],
        "params": dict(program.params),
        "files": program_files(program),
        "models": dict(models),
        "data": of_value([row.content() for row in rows]),
    }


def besides(
    made_from: Mapping[str, Any], options: Mapping[str, Any], adapter: Path | None
) -> dict[str, Any]:
    """Of what a run is made from, what a run's document does not have elsewhere. adapter: what it
    draws from.
    """
    learned = {**learned_before(options), **({"adapter": of_learned(adapter)} if adapter else {})}
    return {name: made_from[name] for name in ("files", "data")} | (
        {"learned": learned} if learned else {}
    )


def program_files(program: ir.Program) -> dict[str, str]:
    """Python helpers that a program names, what they import from its folder, texts, grammars and
    schemas: by content.

    Raises OSError.
    """
    folder = Path(program.folder)
    helpers = {Path(helper.path): None for helper in program.helpers}
    paths = [*helpers, *(path for helper in helpers for path in imported(helper, folder))]
    paths += [Path(text.path) for text in program.named_texts if text.path is not None]
    named = {os.path.relpath(path, folder): path for path in paths}
    stated = (*program.expressions, *program.statistics, *program.derived)
    expressions = [part.expression for part in stated]
    for expression in expressions:
        named |= {name: find_file(name, str(folder)) for name in _files(expression)}
    return {name: of_file(path) for name, path in sorted(named.items())}


def learned_before(options: Mapping[str, Any]) -> dict[str, str]:
    """What was learned in the folders that options of an engine name, by content and by the option.
    Raises OSError.
    """
    return {name: of_learned(Path(options[name])) for name in FOLDERS if options.get(name)}


def of_learned(folder: Path) -> str:
    """What was learned into a folder, by content. Raises OSError."""
    return of_value(
        {name: of_file(folder / name) for name in LEARNED if (folder / name).is_file()}
    )[:16]


def _files(expression: ir.Expression) -> Iterator[str]:
    """Files that functions of an expression read."""
    if not isinstance(expression, ir.Apply):
        return
    if expression.function in FILE_FUNCTIONS and isinstance(
        name := expression.arguments[1], ir.Constant
    ):
        yield str(name.value)
    for argument in expression.arguments:
        yield from _files(argument)


def describe_program(program: ir.Program) -> dict[str, str]:
    """Path, text and hash of a program."""
    text = program.source.text
    return {
        "path": program.source.path,
        "text": text,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
