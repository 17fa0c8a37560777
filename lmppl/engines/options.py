"""Options of engines: flat dataclasses, set from text on the command line or from values in a
program.

Whatever a user sets is checked here against the ranges that stand beside it, before anything is
run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from lmppl.errors import Diagnostic, LmpplError
from lmppl.findings import run as run_findings
from lmppl.settings import OneOf, Range, ranges_of
from lmppl.source import Source, Span

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

O = TypeVar("O", bound="DataclassInstance")
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "numbers: 1,0.5",
}


@runtime_checkable
class _Conflicting(Protocol):
    """Options that do not all go together."""

    def conflict(self) -> tuple[str, str] | None:
        """An option that does not go with the others, and what does."""
        ...


def parse_options(
    engine: str,
    options: O,
    given: Mapping[str, object],
    source: Source | None = None,
    span: Span | None = None,
) -> O:
    """A copy of an options dataclass with some fields set. Raises LmpplError, one finding a bad
    entry.
    """
    ranges = ranges_of(type(options))
    known = {field.name: type(getattr(options, field.name)) for field in fields(options)}
    findings, values = [], {}
    for name, value in given.items():
        if name not in known:
            findings.append(run_findings.unknown_option(engine, name, list(known), source, span))
            continue
        try:
            values[name] = _convert(value, known[name])
        except (TypeError, ValueError, OverflowError):
            findings.append(_bad(engine, name, known[name], ranges.get(name), value, source, span))
            continue
        if name in ranges and not ranges[name].holds(values[name]):
            findings.append(_bad(engine, name, known[name], ranges[name], value, source, span))
    if findings:
        raise LmpplError(*findings)
    return replace(options, **values)


def require_ranges(engine: str, values: object) -> None:
    """Raise LmpplError where fields of a dataclass are not what they may be, one finding a
    field.
    """
    found = {
        name: (allowed, vars(values)[name]) for name, allowed in ranges_of(type(values)).items()
    }
    wrong = [
        _bad(engine, name, int, allowed, value)
        for name, (allowed, value) in found.items()
        if not allowed.holds(value)
    ]
    if wrong:
        raise LmpplError(*wrong)


def require_together(engine: str, options: object) -> None:
    """Raise LmpplError where one option does not go with the others, as its dataclass says."""
    conflict = options.conflict() if isinstance(options, _Conflicting) else None
    if conflict is not None:
        name, expected = conflict
        raise LmpplError(run_findings.bad_option(engine, name, expected, str(vars(options)[name])))


def _bad(
    engine: str, name: str, kind: type, allowed: Range | OneOf | None, value: Any,
    source: Source | None = None, span: Span | None = None,
) -> Diagnostic:  # fmt: skip
    words = [KINDS[kind]] if kind is not str else []
    expected = ", ".join([*words, *([] if allowed is None else [str(allowed)])])
    return run_findings.bad_option(engine, name, expected, f"{value!r:.40}", source, span)


def _convert(value: Any, kind: type) -> Any:
    """A value of this type; ValueError where it is none."""
    text = str(value).strip()
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind is int:
        if text.lstrip("+-").isdecimal():
            return int(text)
        if not float(text).is_integer():
            raise ValueError(text)
        return int(float(text))
    if kind is tuple:
        return tuple(
            float(part) for part in (value if isinstance(value, list | tuple) else text.split(","))
        )
    return kind(text)
