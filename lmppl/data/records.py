"""Records of data files: JSON lines and tables. Values are data: they are never read as
templates.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from lmppl.errors import Diagnostic, LmpplError, did_you_mean, error
from lmppl.expressions import Cell, NoValue, Record, cell, infinite, text_cell
from lmppl.findings import run as run_findings
from lmppl.source import Source, Span


def read_text(path: str | Path, what: str) -> Source:
    """A UTF-8 text file. Raises LmpplError where it is missing, unreadable or something else."""
    try:
        raw = Path(path).read_bytes()
    except OSError as reason:
        message = f"the {what} `{path}` cannot be read: {reason.strerror}"
        raise LmpplError(error("unreadable-file", message, help=_nearby(Path(path)))) from None
    except ValueError:  # a name with a NUL
        raise LmpplError(
            error("unreadable-file", f"the {what} {str(path)!r} has a name that no file has")
        ) from None
    try:
        return Source(str(path), raw.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as reason:
        line = raw[: reason.start].count(b"\n") + 1
        message = f"the {what} `{path}` is not UTF-8: byte 0x{raw[reason.start]:02X} on line {line}"
        raise LmpplError(error("not-utf-8", message, help="save it as UTF-8")) from None


def _nearby(path: Path) -> str | None:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return None
    help = did_you_mean(path.name, names)
    return help if help and help.startswith("did") else None


def read_records(path: str | Path) -> list[Record]:
    """Rows of a .jsonl, .csv or .tsv file. Raises LmpplError with every row that is wrong."""
    source = read_text(path, "data file")
    readers = {".jsonl": _json_records, ".csv": _csv_records, ".tsv": _csv_records}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        help = "one JSON object a line makes a .jsonl file"
        raise LmpplError(
            run_findings.bad_data(
                f"`{path}` is neither .jsonl nor .csv nor .tsv", source, help=help
            )
        )
    records: list[Record] = []
    findings: list[Diagnostic] = []
    for item in readers[suffix](source):
        if isinstance(item, Record):
            records.append(item)
        else:
            findings.append(item)
    if findings:
        raise LmpplError(*findings)
    if not records:
        raise LmpplError(run_findings.bad_data("the data file has no rows", source))
    return records


# --- JSON lines -----------------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """An object's keys and values as they stand, repeated keys included."""


def _json_records(source: Source) -> Iterator[Record | Diagnostic]:
    offset = 0
    for line in source.text.split("\n"):
        span = Span(offset, offset + len(line))
        offset += len(line) + 1
        if not line.strip():
            continue
        try:
            document = _read_json(line)
        except (ValueError, RecursionError) as reason:
            yield run_findings.bad_data(f"this line is no JSON: {reason}", source, span)
            continue
        if not isinstance(document, _Pairs):
            yield run_findings.bad_data("this line is no JSON object", source, span)
            continue
        twice = repeated(name for name, _ in document)
        for name in twice:
            yield run_findings.bad_data(f"the key `{name}` stands twice in this line", source, span)
        if not twice:
            yield Record(known({name: _json_cell(value) for name, value in document}), source, span)


def _read_json(line: str) -> Any:
    """A JSON value whose numbers are texts, digit by digit as they were written."""
    constants = {"NaN": None, "Infinity": infinite(), "-Infinity": infinite()}
    return json.loads(
        line,
        parse_int=str,
        parse_float=str,
        parse_constant=constants.__getitem__,
        object_pairs_hook=_Pairs,
    )


def _json_cell(value: Any) -> Cell:
    return (
        value
        if isinstance(value, NoValue)
        else cell(dict(value) if isinstance(value, _Pairs) else value)
    )


def known(cells: Mapping[str, Cell]) -> dict[str, str | NoValue]:
    """The cells that are not missing."""
    return {name: value for name, value in cells.items() if value is not None}


def repeated(names: Iterable[str]) -> list[str]:
    """Names that come more than once."""
    return [name for name, times in Counter(names).items() if times > 1]


# --- tables ---------------------------------------------------------------------------------------


def _csv_records(source: Source) -> Iterator[Record | Diagnostic]:
    starts = [0]
    for line in source.text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    csv.field_size_limit(
        max(len(source.text), csv.field_size_limit())
    )  # a text may be as long as its file
    reader = csv.reader(io.StringIO(source.text), delimiter=_separator(source), strict=True)
    first_line = 0
    header: list[str] | None = None
    try:
        for cells in reader:
            span = Span(starts[first_line], max(starts[first_line], starts[reader.line_num] - 1))
            first_line = reader.line_num
            if header is None and cells:
                header = cells
                if twice := repeated(name for name in header if name):
                    message = " and ".join(f"`{name}`" for name in twice)
                    yield run_findings.bad_data(
                        f"several columns are named {message}", source, span
                    )
                    return
            elif header is not None and cells and len(cells) != len(header):
                message = f"this row has {len(cells)} cells, the header has {len(header)}"
                yield run_findings.bad_data(message, source, span)
            elif header is not None and cells:
                named = zip(header, cells, strict=True)
                yield Record(
                    {name: text_cell(text) for name, text in named if name and text}, source, span
                )
    except csv.Error as reason:
        yield run_findings.bad_data(
            f"this is no CSV: {reason}", source, Span(starts[first_line], starts[first_line])
        )


def _separator(source: Source) -> str:
    """What parts the cells: of comma, semicolon and tab the one that the header has most of; a
    comma of equals.
    """
    if source.path.lower().endswith(".tsv"):
        return "\t"

    def width(separator: str) -> int:
        rows = csv.reader(io.StringIO(source.text), delimiter=separator, strict=True)
        try:
            return max(map(len, islice(filter(None, rows), 1)), default=0)
        except csv.Error:
            return 0

    return max(",;\t", key=width)
