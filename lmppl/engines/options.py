"""Options of engines: flat dataclasses, set from text on the command line or from values in a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from lmppl import run_findings
from lmppl.errors import LmpplError
from lmppl.source import Source, Span

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "numbers: 1,0.5"}


def parse_options(
    engine: str, options: Any, given: Mapping[str, Any], source: Source | None = None, span: Span | None = None
) -> Any:
    """A copy of an options dataclass with some fields set. Raises LmpplError, one finding a bad entry."""
    known = {field.name: type(getattr(options, field.name)) for field in fields(options)}
    findings, values = [], {}
    for name, value in given.items():
        if name not in known:
            findings.append(run_findings.unknown_option(engine, name, list(known), source, span))
            continue
        try:
            values[name] = _convert(value, known[name])
        except (TypeError, ValueError, OverflowError):
            expected = KINDS[known[name]]
            findings.append(run_findings.bad_option(engine, name, expected, f"{value!r:.40}", source, span))
    if findings:
        raise LmpplError(*findings)
    return replace(options, **values)


def _convert(value: Any, kind: type) -> Any:
    """A value of this type; ValueError where it is none."""
    text = str(value).strip()
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind is int:
        if float(text) != int(float(text)):
            raise ValueError(text)
        return int(float(text))
    if kind is tuple:
        return tuple(float(part) for part in (value if isinstance(value, list | tuple) else text.split(",")))
    return kind(text)
