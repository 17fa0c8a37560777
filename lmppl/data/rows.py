"""Data rows: from records and the command line to what a program is conditioned on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from lmppl import ir
from lmppl.data.records import known, read_records
from lmppl.errors import Diagnostic, LmpplError
from lmppl.expressions import NoValue, Record, cell, read_number
from lmppl.findings import run as run_findings


@dataclass(frozen=True)
class Row:
    """Values of one data row: givens, and latents that the row observes. All are texts."""

    givens: Mapping[str, str]
    observed: Mapping[str, str]
    worked: Mapping[str, tuple[Mapping[str, str], ...]] = field(
        default_factory=dict
    )  # rows that contexts show

    def content(self) -> list[Any]:
        """All of it, as JSON has it: what a density depends on besides the program and its
        models.
        """
        return [
            dict(self.givens),
            dict(self.observed),
            {name: list(map(dict, w)) for name, w in self.worked.items()},
        ]


Pools = Mapping[str, Sequence[Mapping[str, str]]]  # rows to show, of each `examples`


def pools_of(program: ir.Program) -> Pools:
    """The rows that contexts may show, read from their files. Raises LmpplError."""
    return {examples.name: _pool(examples) for examples in program.examples}


def make_rows(
    program: ir.Program,
    records: Sequence[Record],
    settings: Mapping[str, str],
    pools: Pools | None = None,
) -> tuple[list[Row], tuple[Diagnostic, ...]]:
    """Rows for a program: one a record, or a single one where there are none; settings fill and
    override.

    pools: what `pools_of` has read, where it was asked before. Raises LmpplError with every given
    that has no value, and every value that is none; warns of columns that nothing reads, whatever
    they hold.
    """
    pools = pools_of(program) if pools is None else pools
    findings: list[Diagnostic] = []
    rows, read = [], _read(program)
    for record in records or [Record({}, name="what was given")]:
        row, found = _row(program, record, read, settings, pools)
        rows.append(row)
        findings += found
    if findings:
        raise LmpplError(*findings)
    return rows, tuple(_unused_columns(records, read))


def _read(program: ir.Program) -> list[str]:
    """Names of what a row may hold: givens, and latents that it observes."""
    return [*program.givens, *program.names]


def _row(
    program: ir.Program,
    record: Record,
    read: Sequence[str],
    settings: Mapping[str, str],
    pools: Pools,
) -> tuple[Row, list[Diagnostic]]:
    """The row of one record, and what is wrong with it. read: names that it may hold; pools: rows
    to show, of each examples.
    """
    there = [name for name in record.values if name in read and name not in settings]
    own = {name: record.values[name] for name in there}
    texts = {name: value for name, value in own.items() if isinstance(value, str)}
    values = {**texts, **settings}
    givens = {name: values[name] for name in program.givens if name in values}
    observed = {name: values[name] for name in program.names if name in values}
    worked = {one.name: _worked(one, pools[one.name], givens) for one in program.examples}
    findings = []
    for name, value in own.items():
        if isinstance(value, NoValue):
            findings.append(run_findings.no_value_of(name, value, record))
    for name in program.givens:
        if name not in values and name not in own:
            filled = [*record.values, *settings]
            findings.append(run_findings.missing_given(name, filled, record))
    for examples in program.examples:
        number = len(worked[examples.name])
        if number < examples.count:
            findings.append(run_findings.too_few_examples(examples, number, program.source))
    return Row(givens, observed, worked), findings


def _pool(examples: ir.Examples) -> list[Mapping[str, str]]:
    """Rows of the file that have every column which is shown, in the order that the seed gives."""
    if not examples.count:
        return []
    texts = [record.texts() for record in read_records(examples.path)]
    whole = [row for row in texts if {*examples.columns} <= {*row}]
    order = [
        (sha256(f"{examples.seed} {number}".encode()).digest(), number)
        for number in range(len(whole))
    ]
    return [whole[number] for _, number in sorted(order)]


def _worked(
    examples: ir.Examples, pool: Sequence[Mapping[str, str]], givens: Mapping[str, str]
) -> tuple[Mapping[str, str], ...]:
    """The first rows of the pool that are not the data row itself: none with the same values of
    shared givens.
    """
    others: list[Mapping[str, str]] = []
    for values in pool:
        if len(others) == examples.count:
            break
        shared = [name for name in givens if name in values]
        if not shared or any(values[name] != givens[name] for name in shared):
            others.append({name: values[name] for name in examples.columns})
    return tuple(others)


def _unused_columns(records: Sequence[Record], read: Sequence[str]) -> Iterator[Diagnostic]:
    columns = dict.fromkeys(name for record in records for name in record.values)
    for name in columns:
        if name not in read and records[0].source is not None:
            yield run_findings.unused_column(name, read, records[0].source)


def rename(
    program: ir.Program, records: Sequence[Record], columns: Mapping[str, str]
) -> list[Record]:
    """Records whose columns go by the names that the program has for them.

    columns: of a given or a latent, the column that holds it; a column that has its name itself is
    not read then. Raises LmpplError where there is no such name, or no record has the column.
    """
    read = _read(program)
    there = dict.fromkeys(name for record in records for name in record.values)
    findings = [run_findings.no_name_of_column(name, read) for name in columns if name not in read]
    findings += [
        run_findings.no_such_column(c, there)
        for c in dict.fromkeys(columns.values())
        if c not in there
    ]
    if findings:
        raise LmpplError(*findings)
    return [_renamed(record, columns) for record in records]


def _renamed(record: Record, columns: Mapping[str, str]) -> Record:
    taken = {
        name: record.values[column] for name, column in columns.items() if column in record.values
    }
    rest = {
        n: v for n, v in record.values.items() if n not in columns and n not in columns.values()
    }
    return replace(record, values={**rest, **taken})


def split_settings(
    settings: Mapping[str, object], params: Sequence[str], others: Sequence[str]
) -> tuple[dict[str, float], dict[str, str]]:
    """Settings of params, as numbers, and of givens and latents, as texts; those that are missing
    are left out.

    Raises LmpplError.
    """
    numbers: dict[str, float] = {}
    texts: dict[str, str] = {}
    findings: list[Diagnostic] = []
    for name, value in known({name: cell(value) for name, value in settings.items()}).items():
        if name not in params and name not in others:
            findings.append(run_findings.unknown_setting(name, [*params, *others]))
        elif isinstance(value, NoValue):
            findings.append(
                run_findings.bad_setting(name, f"a value, and this one {value.problem}")
            )
        elif name in others:
            texts[name] = value
        elif not math.isfinite(number := read_number(value)):
            findings.append(
                run_findings.bad_setting(f"{name}={value:.80}", "a number, since it is a param")
            )
        else:
            numbers[name] = number
    if findings:
        raise LmpplError(*findings)
    return numbers, texts
