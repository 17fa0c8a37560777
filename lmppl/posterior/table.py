"""Tables: one line a draw, raw and with its weight, as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmppl.posterior.columns import Key, Record, Run, column_names, records
from lmppl.posterior.result import finite

Columns = Mapping[Key, Sequence[Any]]


def writer(runs: Sequence[Run], form: str) -> Callable[[Path], None]:
    """What writes all draws of these runs into a file: `form` is csv, jsonl or parquet."""
    columns = _columns(runs)
    names = column_names(columns)
    write = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}[form]
    return lambda path: write(path, columns, names)


def table(runs: Sequence[Run]) -> dict[str, Sequence[Any]]:
    """The columns of all draws of these runs, by name."""
    columns = _columns(runs)
    names = column_names(columns)
    return {names[key]: values for key, values in columns.items()}


def _columns(runs: Sequence[Run]) -> Columns:
    """Every column that any draw has, in the order of the first one's; None where a draw has no
    value.
    """
    lines = [record for run in runs for record in _labelled(run)]
    keys = dict.fromkeys(key for line in lines for key in line)
    found = {}
    for key in keys:
        found[key] = _alike([line.get(key) for line in lines])
    return found


def _labelled(run: Run) -> list[Record]:
    labels = {Key("own", name): value for name, value in run.labels.items()}
    rows = enumerate(run.posterior.rows)
    return [{**labels, **record} for number, row in rows for record in records(number, row)]


def _alike(values: list[Any]) -> list[Any]:
    """A column of one type: a given that is a number in some rows and a text in others is a text in
    all.
    """
    if not any(isinstance(value, str) for value in values):
        return values
    return [f"{value:g}" if isinstance(value, float) else value for value in values]


def _write_csv(path: Path, columns: Columns, names: Mapping[Key, str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(names.values())
        lines.writerows(zip(*columns.values(), strict=True))


def _write_jsonl(path: Path, columns: Columns, names: Mapping[Key, str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in zip(*columns.values(), strict=True):
            values = finite(dict(zip(names.values(), line, strict=True)))
            file.write(json.dumps(values, ensure_ascii=False, allow_nan=False) + "\n")


def _write_parquet(path: Path, columns: Columns, names: Mapping[Key, str]) -> None:
    import pyarrow
    from pyarrow import parquet

    fields = [
        pyarrow.field(names[key], _arrow_type(key, values), metadata={"long_name": key.name})
        for key, values in columns.items()
    ]
    parquet.write_table(
        pyarrow.Table.from_arrays(list(columns.values()), schema=pyarrow.schema(fields)), path
    )


def _arrow_type(key: Key, values: Sequence[Any]) -> Any:
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if kinds == {str} or key.kind == "derived":
        return pyarrow.string()
    return pyarrow.int64() if kinds == {int} else pyarrow.float64()
