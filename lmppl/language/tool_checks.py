"""Checking what stands behind `with`: the options of a text's tools. Which names are tools is said
by checks.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmppl.errors import Diagnostic
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.source import Source

CALCULATOR = "calculator"
OPTIONS = {"trigger": "a text in quotes, not empty", "operands": "a whole number; 0: any number"}


def tool_findings(
    tool: ast.Tool, options: Sequence[ast.Option], source: Source, helper: bool
) -> Iterator[Diagnostic]:
    """Findings about one tool. options: each once. helper: whether it is a Python function of the
    user's.
    """
    known = ["trigger"] if helper else list(OPTIONS)
    for option in options:
        name = option.name.text
        if name not in known:
            yield findings.unknown_tool_option(
                source, option.name.span, tool.name.text, name, known
            )
        elif not _holds(name, option.value):
            found = source.slice(option.value.span)
            yield findings.bad_tool_option(source, option.value.span, name, OPTIONS[name], found)
    if helper and not any(option.name.text == "trigger" for option in options):
        yield findings.no_trigger(source, tool.span, tool.name.text)


def _holds(name: str, value: ast.Expression | ast.Environment) -> bool:
    if name == "trigger":
        return isinstance(value, ast.Text) and bool(value.value)
    return isinstance(value, ast.Number) and value.value >= 0 and value.value.is_integer()
