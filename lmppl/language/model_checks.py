"""Checking `lm` statements: their options, and the tables that they name. No model is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmppl.errors import is_like
from lmppl.findings import models as model_findings
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.file_checks import Found, find_beside
from lmppl.lm import (
    LM_KEY,
    LM_OPTIONS,
    LM_PATIENCE,
    LM_TEXTS,
    TEMPLATE,
    gguf_file,
    is_served,
    table_file,
)
from lmppl.source import Source

ENVIRONMENT = "env"  # how a variable of the environment is named
OF_SERVERS = (LM_KEY, LM_PATIENCE, "tokenizer")  # what no other model has
NOT_OF_SERVERS = ("revision", "dtype")  # a server has loaded its model
DTYPES = ("float32", "bfloat16")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
    if is_served(identifier.value):
        texts = [name for name in names if name.text in NOT_OF_SERVERS]
        own = model_findings.option_of_a_loaded_model
        return [*found, *(own(source, name.span, name.text) for name in texts)]
    texts = [name for name in names if name.text in OF_SERVERS]
    found += [model_findings.option_of_a_server(source, n.span, n.text) for n in texts]
    barred_here = {*LM_TEXTS} - {TEMPLATE, *OF_SERVERS}
    texts = [name for name in names if name.text in barred_here]
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
    if name == LM_KEY:
        return _of_key(value, source)
    if name not in LM_OPTIONS:
        return _of_variable(option, source)
    if name == LM_PATIENCE and not (isinstance(value, ast.Number) and value.value >= 0):
        shown = source.slice(value.span)
        return [findings.bad_lm_option(source, value.span, name, "seconds, 0 or more", shown)]
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


def _of_key(value: ast.Expression | ast.Environment, source: Source) -> Found:
    """A secret stands in no program: it names where the secret is."""
    if not isinstance(value, ast.Environment) or value.word != ENVIRONMENT:
        return [model_findings.key_in_program(source, value.span)]
    named = VARIABLE.fullmatch(value.name.value)
    return [] if named else [model_findings.key_in_program(source, value.span)]


def _of_variable(option: ast.Option, source: Source) -> Found:
    """An option that has another name than those of every `lm`."""
    name, value = option.name, option.value
    if is_like(name.text, LM_OPTIONS):
        return [findings.unknown_lm_option(source, name.span, name.text, LM_OPTIONS)]
    word = isinstance(value, ast.Name) and value.text not in ("true", "false")
    if word or isinstance(value, ast.Environment):
        expected, shown = "a text, a number, true or false", source.slice(value.span)
        return [findings.bad_lm_option(source, value.span, name.text, expected, shown)]
    return []


def _of_table(identifier: ast.Text, file: str, source: Source, folder: Path) -> Found:
    """A table of a language model beside the program."""
    path, found = find_beside(replace(identifier, value=file), source, folder)
    if path is None:
        return found
    from lmppl.lm import table_problems  # brings numpy

    return [replace(one, source=source, span=identifier.span) for one in table_problems(path)]
