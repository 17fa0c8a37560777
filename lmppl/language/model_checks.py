"""Checking `lm` statements: their options, and the tables that they name. No model is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lmppl import ir
from lmppl.errors import Diagnostic
from lmppl.findings import models as model_findings
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.file_checks import Found, find_beside
from lmppl.lm import gguf_file, table_file
from lmppl.settings import ranges_of
from lmppl.source import Source

TEXTS = {"revision": "a text", "dtype": '"float32" or "bfloat16"', "adapter": "a text"}
LAWS = ranges_of(ir.LocalLaw)  # numbers, whose values are looked at in lowering.py
LM_OPTIONS = [*TEXTS, *LAWS]
DTYPES = ("float32", "bfloat16")


def lm_findings(
    statement: ast.Lm, options: Iterable[ast.Option], source: Source, folder: Path
) -> Found:
    """What is wrong with one statement. options: its own, each name once."""
    file, identifier = table_file(statement.identifier.value), statement.identifier
    found = [one for option in options if (one := _of_option(option, source))]
    texts = [option.name for option in options if option.name.text in TEXTS]
    if gguf_file(identifier.value) is not None:  # looked at where it is loaded
        barred = model_findings.option_of_llama_cpp
    elif file is not None:
        barred = model_findings.option_of_a_table
        found += _of_table(identifier, file, source, folder)
    else:
        return found
    return [*found, *(barred(source, name.span, name.text) for name in texts)]


def _of_option(option: ast.Option, source: Source) -> Diagnostic | None:
    name, span = option.name.text, option.value.span
    if name not in LM_OPTIONS:
        return findings.unknown_lm_option(source, option.name.span, name, LM_OPTIONS)
    kinds = (ast.Text,) if name in TEXTS else (ast.Number, ast.Name)
    if not isinstance(option.value, kinds):
        found = source.slice(span)
        expected = TEXTS.get(name, "a number or a param")
        return findings.bad_lm_option(source, span, name, expected, found)
    if name == "dtype" and isinstance(option.value, ast.Text) and option.value.value not in DTYPES:
        return findings.bad_lm_option(source, span, name, TEXTS[name], option.value.raw)
    return None


def _of_table(identifier: ast.Text, file: str, source: Source, folder: Path) -> Found:
    """A table of a language model beside the program."""
    path, found = find_beside(replace(identifier, value=file), source, folder)
    if path is None:
        return found
    from lmppl.lm import table_problems  # brings numpy

    return [replace(one, source=source, span=identifier.span) for one in table_problems(path)]
