"""Data rows from JSON lines, CSV and the command line. Values are data: they are never read as templates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmppl import ir, run_findings
from lmppl.errors import Diagnostic, LmpplError, did_you_mean, error
from lmppl.functions import Value
from lmppl.source import Source, Span


@dataclass(frozen=True)
class Record:
    """One row of a data file: its values by column, and where it stands."""

    values: Mapping[str, Value]
    source: Source | None = None
    span: Span | None = None


@dataclass(frozen=True)
class Row:
    """Values of one data row: givens, and latents that the row observes."""

    givens: Mapping[str, Value]
    observed: Mapping[str, str]


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


def make_rows(
    program: ir.Program, records: Sequence[Record], settings: Mapping[str, str]
) -> tuple[list[Row], tuple[Diagnostic, ...]]:
    """Rows for a program: one a record, or a single one where there are none; settings fill and override.

    Raises LmpplError with every given that has no value; warns of columns that nothing reads.
    """
    latents = [latent.name for latent in program.latents]
    known = [*program.givens, *latents]
    findings: list[Diagnostic] = []
    rows = []
    for record in records or [Record({})]:
        values = {**record.values, **settings}
        for name in program.givens:
            if name not in values:
                findings.append(run_findings.missing_given(name, list(values), record.source, record.span))
        givens = {name: values[name] for name in program.givens if name in values}
        observed = {name: _text(values[name]) for name in latents if name in values}
        rows.append(Row(givens, observed))
    if findings:
        raise LmpplError(*findings)
    return rows, tuple(_unused_columns(records, known))


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _unused_columns(records: Sequence[Record], known: Sequence[str]) -> Iterator[Diagnostic]:
    columns = dict.fromkeys(name for record in records for name in record.values)
    for name in columns:
        if name not in known and records[0].source is not None:
            yield run_findings.unused_column(name, known, records[0].source)


def split_settings(
    settings: Mapping[str, str], params: Sequence[str], others: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Settings of params, as numbers, and of givens and latents, as texts. Raises LmpplError."""
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    findings: list[Diagnostic] = []
    for name, value in settings.items():
        if name in params:
            try:
                numbers[name] = float(value)
            except ValueError:
                findings.append(run_findings.bad_setting(f"{name}={value}", "a number, since it is a param"))
        elif name in others:
            texts[name] = value
        else:
            findings.append(run_findings.unknown_setting(name, [*params, *others]))
    if findings:
        raise LmpplError(*findings)
    return numbers, texts
