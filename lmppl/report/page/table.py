"""The table of the comparison, ready to be set: an engine a line, a measure a column. Knows
numbers, not HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from lmppl.compare import GROUPS

DIRECTIONS = {"low": "Lower is better.", "high": "Higher is better."}


@dataclass(frozen=True)
class Cell:
    """A mean, its interval beneath, and whether it is clearly the best of its column."""

    mean: str
    interval: str
    best: bool


@dataclass(frozen=True)
class Column:
    """A measure: its heading and the sentence that explains it."""

    key: str
    title: str
    unit: str
    help: str
    group: str
    opens: bool  # the first of its group


@dataclass(frozen=True)
class Table:
    """Headings of groups with their widths, columns, and a line of cells an engine; an engine that
    failed has none.
    """

    groups: tuple[tuple[str, int], ...]
    columns: tuple[Column, ...]
    lines: tuple[tuple[Mapping[str, Any], tuple[Cell, ...]], ...]


def table(document: Mapping[str, Any]) -> Table:
    """The table of a comparison. Columns are put together by group, in the order that a reader
    asks.
    """
    names = list(GROUPS)
    listed = sorted(document["columns"], key=lambda column: names.index(_group(column)))
    groups = [(name, list(members)) for name, members in groupby(listed, key=_group)]
    columns = [_column(column, column is members[0]) for _, members in groups for column in members]
    winners = {column["key"]: best(document["engines"], column) for column in listed}
    lines = []
    for engine in document["engines"]:
        cells = [_cell(engine, column, winners[column["key"]]) for column in listed]
        lines.append((engine, tuple(cells)))
    return Table(
        tuple((GROUPS[name], len(members)) for name, members in groups),
        tuple(columns),
        tuple(lines),
    )


def best(engines: Sequence[Mapping[str, Any]], column: Mapping[str, Any]) -> str | None:
    """The engine whose interval lies clear of all others' on the good side. None where no engine is
    clearly best.
    """
    if column["better"] is None:
        return None
    measured = {
        engine["label"]: _ends(engine, column)
        for engine in engines
        if _mean(engine, column) is not None
    }
    if len(measured) < 2 or None in measured.values():
        return None
    ends = {label: pair for label, pair in measured.items() if pair is not None}
    sign = 1.0 if column["better"] == "low" else -1.0
    signed = {label: (sign * low, sign * high) for label, (low, high) in ends.items()}
    first = min(signed, key=lambda label: max(signed[label]))
    worst = max(signed.pop(first))
    return first if all(worst < min(pair) for pair in signed.values()) else None


def number(value: float | None, digits: int = 0) -> str:
    """A number as it is read: thousands parted, a true minus, a dash where there is none, which
    infinity is not.
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text.replace("-", "−")


def _group(column: Mapping[str, Any]) -> str:
    return str(column["group"]).rstrip("?")


def _column(column: Mapping[str, Any], opens: bool) -> Column:
    sentence = f"{column['help']} {DIRECTIONS.get(column['better'] or '', '')}".strip()
    return Column(
        column["key"], column["title"], column["unit"] or "", sentence, _group(column), opens
    )


def _cell(engine: Mapping[str, Any], column: Mapping[str, Any], winner: str | None) -> Cell:
    digits = column["digits"] or 0
    ends = _ends(engine, column)
    texts = [number(end, digits) for end in ends] if ends else []
    interval = " to ".join(texts) if len(set(texts)) > 1 else ""
    return Cell(number(_mean(engine, column), digits), interval, winner == engine["label"])


def _mean(engine: Mapping[str, Any], column: Mapping[str, Any]) -> float | None:
    return (engine["measures"].get(column["key"]) or {}).get("mean")


def _ends(engine: Mapping[str, Any], column: Mapping[str, Any]) -> tuple[float, float] | None:
    measure = engine["measures"].get(column["key"]) or {}
    low, high = measure.get("low"), measure.get("high")
    return None if low is None or high is None else (low, high)
