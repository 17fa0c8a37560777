"""Checking `lm` statements: their options, and the tables that they name. No model is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lmppl.errors import Diagnostic
from lmppl.findings import models as model_findings
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.file_checks import Found, find_beside
from lmppl.lm import gguf_file, table_file
from lmppl.source import Source

LM_OPTIONS = {"revision": "a text", "dtype": '"float32" or "bfloat16"', "adapter": "a text"}
DTYPES = ("float32", "bfloat16")


def lm_findings(
    statement: ast.Lm, options: Iterable[ast.Option], source: Source, folder: Path
) -> Found:
    """What is wrong with one statement. options: its own, each name once."""
    file = table_file(statement.identifier.value)
    names = [option.name for option in options]
    if gguf_file(statement.identifier.value) is not None:  # looked at where it is loaded
        return [model_findings.option_of_llama_cpp(source, name.span, name.text) for name in names]
    if file is None:
        return [found for option in options if (found := _of_option(option, source))]
    without = [model_findings.option_of_a_table(source, name.span, name.text) for name in names]
    return [*_of_table(statement.identifier, file, source, folder), *without]


def _of_option(option: ast.Option, source: Source) -> Diagnostic | None:
    name, span = option.name.text, option.value.span
    if name not in LM_OPTIONS:
        return findings.unknown_lm_option(source, option.name.span, name, LM_OPTIONS)
    if not isinstance(option.value, ast.Text):
        found = source.slice(span)
        return findings.bad_lm_option(source, span, name, LM_OPTIONS[name], found)
    if name == "dtype" and option.value.value not in DTYPES:
        return findings.bad_lm_option(source, span, name, LM_OPTIONS[name], option.value.raw)
    return None


def _of_table(identifier: ast.Text, file: str, source: Source, folder: Path) -> Found:
    """A table of a language model beside the program."""
    path, found = find_beside(replace(identifier, value=file), source, folder)
    if path is None:
        return found
    from lmppl.lm import table_problems  # brings numpy

    return [replace(one, source=source, span=identifier.span) for one in table_problems(path)]
