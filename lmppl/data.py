"""Data rows: from records and the command line to what a program is conditioned on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from lmppl import ir, run_findings
from lmppl.errors import Diagnostic, LmpplError
from lmppl.functions import Value
from lmppl.records import Record, read_records


@dataclass(frozen=True)
class Row:
    """Values of one data row: givens, and latents that the row observes."""

    givens: Mapping[str, Value]
    observed: Mapping[str, str]
    worked: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)  # rows that contexts show

    def content(self) -> list[Any]:
        """All of it, as JSON has it: what a density depends on besides the program and its models."""
        return [dict(self.givens), dict(self.observed), {name: list(map(dict, w)) for name, w in self.worked.items()}]


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
    pools = {examples.name: _pool(examples) for examples in program.examples}
    for record in records or [Record({})]:
        values = {**record.values, **settings}
        for name in program.givens:
            if name not in values:
                findings.append(run_findings.missing_given(name, list(values), record.source, record.span))
        givens = {name: values[name] for name in program.givens if name in values}
        observed = {name: _text(values[name]) for name in latents if name in values}
        worked = {e.name: _worked(e, pools[e.name], givens) for e in program.examples}
        for examples in program.examples:
            if len(worked[examples.name]) < examples.count:
                findings.append(run_findings.too_few_examples(examples, len(worked[examples.name]), program.source))
        rows.append(Row(givens, observed, worked))
    if findings:
        raise LmpplError(*findings)
    return rows, tuple(_unused_columns(records, known))


def _pool(examples: ir.Examples) -> list[Mapping[str, str]]:
    """Rows of the file that have every column which is shown, in the order that the seed gives."""
    if not examples.count:
        return []
    records = [record.values for record in read_records(examples.path)]
    whole = [{name: _text(value) for name, value in r.items()} for r in records if {*examples.columns} <= {*r}]
    order = [(sha256(f"{examples.seed} {number}".encode()).digest(), number) for number in range(len(whole))]
    return [whole[number] for _, number in sorted(order)]


def _worked(
    examples: ir.Examples, pool: Sequence[Mapping[str, str]], givens: Mapping[str, Value]
) -> tuple[Mapping[str, str], ...]:
    """The first rows of the pool that are not the data row itself: none with the same values of shared givens."""
    others = []
    for values in pool:
        shared = [name for name in givens if name in values]
        if not shared or any(values[name] != _text(givens[name]) for name in shared):
            others.append({name: values[name] for name in examples.columns})
    return tuple(others[: examples.count])


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
