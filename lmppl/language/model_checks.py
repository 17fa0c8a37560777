"""Checking `lm` statements: their options, and the tables that they name. No model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmppl.errors import is_like
from lmppl.findings import models as model_findings
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.file_checks import Found, find_beside
from lmppl.lm import LM_OPTIONS, LM_TEXTS, TEMPLATE, gguf_file, table_file
from lmppl.source import Source

DTYPES = ("float32", "bfloat16")


def lm_findings(
    statement: ast.Lm, options: Sequence[ast.Option], source: Source, folder: Path
) -> Found:
    """What is wrong with one statement. options: its own, each name once.

    An option that is like no other is taken for a variable of the model's chat template: whether it
    is one is known when the model is loaded.
    """
    file, identifier = table_file(statement.identifier.value), statement.identifier
    names = [option.name for option in options]
    found = [one for option in options for one in _of_option(option, source, folder)]
    texts = [name for name in names if name.text in LM_TEXTS and name.text != TEMPLATE]
    if gguf_file(identifier.value) is not None:  # looked at where it is loaded
        barred = model_findings.option_of_llama_cpp
    elif file is not None:
        barred = model_findings.option_of_a_table
        found += _of_table(identifier, file, source, folder)
    else:
        return found
    return [*found, *(barred(source, name.span, name.text) for name in texts)]


def _of_option(option: ast.Option, source: Source, folder: Path) -> Found:
    name, value = option.name.text, option.value
    if name not in LM_OPTIONS:
        return _of_variable(option, source)
    kinds = (ast.Text,) if name in LM_TEXTS else (ast.Number, ast.Name)
    if not isinstance(value, kinds):
        expected = LM_TEXTS.get(name, "a number or a param")
        shown = source.slice(value.span)
        return [findings.bad_lm_option(source, value.span, name, expected, shown)]
    if not isinstance(value, ast.Text):
        return []
    if name == "dtype" and value.value not in DTYPES:
        return [findings.bad_lm_option(source, value.span, name, LM_TEXTS[name], value.raw)]
    return find_beside(value, source, folder)[1] if name == TEMPLATE else []


def _of_variable(option: ast.Option, source: Source) -> Found:
    """An option that has another name than those of every `lm`."""
    name, value = option.name, option.value
    if is_like(name.text, LM_OPTIONS):
        return [findings.unknown_lm_option(source, name.span, name.text, LM_OPTIONS)]
    if isinstance(value, ast.Name) and value.text not in ("true", "false"):
        expected = "a text, a number, true or false"
        return [findings.bad_lm_option(source, value.span, name.text, expected, value.text)]
    return []


def _of_table(identifier: ast.Text, file: str, source: Source, folder: Path) -> Found:
    """A table of a language model beside the program."""
    path, found = find_beside(replace(identifier, value=file), source, folder)
    if path is None:
        return found
    from lmppl.lm import table_problems  # brings numpy

    return [replace(one, source=source, span=identifier.span) for one in table_problems(path)]
