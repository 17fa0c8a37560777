"""Rows of data that Python hands over: a list of mappings, a mapping of lists, a table of pandas,
Arrow or another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any, Protocol, runtime_checkable

from lmppl.data.records import known, repeated
from lmppl.errors import LmpplError
from lmppl.expressions import Record, cell
from lmppl.findings import run as run_findings


@runtime_checkable
class _Frame(Protocol):
    """A table of pandas, or of one who writes as pandas does: columns that are looked up by
    place.
    """

    columns: Any
    iloc: Any


@runtime_checkable
class _Arrow(Protocol):
    """A table or a batch of Arrow."""

    column_names: Sequence[str]

    def to_pydict(self) -> Mapping[str, Any]: ...

    def column(self, number: int) -> Any: ...


@runtime_checkable
class _Polars(Protocol):
    """A table of Polars."""

    def iter_rows(self, *, named: bool) -> Iterable[Mapping[str, Any]]: ...


def records_of(data: Any) -> list[Record]:
    """Records of rows in memory. Raises LmpplError where they are no rows, or there are none."""
    if isinstance(data, _Frame):
        names = [str(name) for name in data.columns]
        rows = _of_columns(names, [data.iloc[:, place].array for place in range(len(names))])
    elif isinstance(data, _Arrow):
        names = list(data.column_names)
        rows = _of_columns(names, [data.column(place).to_pylist() for place in range(len(names))])
    elif isinstance(data, _Polars):
        rows = list(data.iter_rows(named=True))
    elif isinstance(data, Mapping):
        rows = _of_columns(list(map(str, data)), list(data.values()))
    elif isinstance(data, Iterable) and not isinstance(data, bytes):
        rows = list(data)
    else:
        raise _no_rows(f"is of the kind `{type(data).__name__}`")
    if not rows:
        raise LmpplError(run_findings.bad_data("the data have no rows", None))
    odd = [number for number, row in enumerate(rows, 1) if not isinstance(row, Mapping)]
    if odd:
        raise LmpplError(
            *(
                run_findings.bad_data(f"row {number} of the data is no mapping", None)
                for number in odd
            )
        )
    return [_record(row, number) for number, row in enumerate(rows, 1)]


def _record(row: Mapping[Any, Any], number: int) -> Record:
    cells = {str(name): cell(value) for name, value in row.items()}
    return Record(known(cells), name=f"row {number} of the data")


def _of_columns(names: Sequence[str], columns: Sequence[Any]) -> list[Mapping[str, Any]]:
    """Rows of columns that are equally long."""
    if twice := repeated(names):
        message = " and ".join(f"`{name}`" for name in twice)
        raise LmpplError(run_findings.bad_data(f"several columns are named {message}", None))
    for name, column in zip(names, columns, strict=True):
        if not isinstance(column, Sized) or isinstance(column, str | bytes | Mapping):
            raise _no_rows(f"has no list of values for `{name}`")
    lengths = {name: len(column) for name, column in zip(names, columns, strict=True)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
        raise LmpplError(
            run_findings.bad_data(f"the columns of the data have different lengths: {found}", None)
        )
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _no_rows(problem: str) -> LmpplError:
    help = (
        "give a file's name, a list of mappings, a mapping of lists, or a table of pandas or Arrow"
    )
    return LmpplError(run_findings.bad_data(f"`data` {problem}", None, help=help))
