"""Records of data files: JSON lines and CSV. Values are data: they are never read as templates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmppl import run_findings
from lmppl.errors import Diagnostic, LmpplError, did_you_mean, error
from lmppl.functions import Value
from lmppl.source import Source, Span


@dataclass(frozen=True)
class Record:
    """One row of a data file: its values by column, and where it stands."""

    values: Mapping[str, Value]
    source: Source | None = None
    span: Span | None = None


def read_text(path: str | Path, what: str) -> Source:
    """A UTF-8 text file. Raises LmpplError where it is missing, unreadable or something else."""
    try:
        raw = Path(path).read_bytes()
    except OSError as reason:
        message = f"the {what} `{path}` cannot be read: {reason.strerror}"
        raise LmpplError(error("unreadable-file", message, help=_nearby(Path(path)))) from None
    try:
        return Source(str(path), raw.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as reason:
        line = raw[: reason.start].count(b"\n") + 1
        message = f"the {what} `{path}` is not UTF-8: byte 0x{raw[reason.start]:02X} on line {line}"
        raise LmpplError(error("not-utf-8", message, help="save it as UTF-8")) from None


def _nearby(path: Path) -> str | None:
    folder = path.parent
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    help = did_you_mean(path.name, names)
    return help if help and help.startswith("did") else None


def read_records(path: str | Path) -> list[Record]:
    """Rows of a .jsonl or .csv file. Raises LmpplError with every row that is wrong."""
    source = read_text(path, "data file")
    readers = {".jsonl": _json_records, ".csv": _csv_records}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise LmpplError(run_findings.bad_data(f"`{path}` is neither .jsonl nor .csv", source))
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


def _json_records(source: Source) -> Iterator[Record | Diagnostic]:
    offset = 0
    for line in source.text.split("\n"):
        span = Span(offset, offset + len(line))
        offset += len(line) + 1
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as reason:
            yield run_findings.bad_data(f"this line is no JSON: {reason}", source, span)
            continue
        if not isinstance(document, dict):
            yield run_findings.bad_data("this line is no JSON object", source, span)
            continue
        wrong = [name for name, value in document.items() if isinstance(value, dict | list | bool)]
        for name in wrong:
            message = f"the value of `{name}` is neither a text nor a number"
            yield run_findings.bad_data(message, source, span)
        if not wrong:
            yield Record({key: _plain(value) for key, value in document.items() if value is not None}, source, span)


def _plain(value: Any) -> Value:
    return float(value) if isinstance(value, int | float) else value


def _csv_records(source: Source) -> Iterator[Record | Diagnostic]:
    starts = [0]
    for line in source.text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    reader = csv.reader(io.StringIO(source.text), strict=True)
    first_line = 0
    header: list[str] | None = None
    try:
        for cells in reader:
            span = Span(starts[first_line], max(starts[first_line], starts[reader.line_num] - 1))
            first_line = reader.line_num
            if header is None:
                header = cells
            elif cells and len(cells) != len(header):
                message = f"this row has {len(cells)} cells, the header has {len(header)}"
                yield run_findings.bad_data(message, source, span)
            elif cells:
                yield Record({k: v for k, v in zip(header, cells, strict=True) if v != ""}, source, span)
    except csv.Error as reason:
        yield run_findings.bad_data(f"this is no CSV: {reason}", source, Span(starts[first_line], starts[first_line]))
