"""Checks on the terminal: a line a row under its results, and every check in a table for `lmppl
diagnose`.
"""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmppl.diagnosis import Check, Status
from lmppl.posterior import Posterior, RowPosterior, finite
from lmppl.shapes import Document

STYLES = {"pass": "green", "warn": "yellow", "fail": "red"}


def show_verdict(row: RowPosterior, console: Console) -> None:
    """The verdict, and what to do about every check that did not pass."""
    found = [check for check in row.checks if check.status != "pass"]
    count = (
        f"{len(row.checks)} checks"
        if not found
        else f"{len(found)} of {len(row.checks)} checks did not pass"
    )
    console.print(f"[bold]verdict[/] {_painted(row.verdict)}: {count}", highlight=False)
    for check in sorted(found, key=lambda check: check.status):  # failures first
        console.print(
            f"  {_painted(check.status)} {escape(check.name)}: {escape(check.message)}",
            highlight=False,
        )


def show_overall(posterior: Posterior, console: Console) -> None:
    """The verdict on all rows, and which rows are to be looked at."""
    worst = [
        str(n + 1)
        for n, row in enumerate(posterior.rows)
        if row.verdict == posterior.verdict != "pass"
    ]
    rows = f": rows {', '.join(worst)}" if len(worst) > 1 else f": row {worst[0]}" if worst else ""
    console.print(
        f"[bold]verdict on {len(posterior.rows)} rows[/] {_painted(posterior.verdict)}{rows}",
        highlight=False,
    )


def show_checks(posterior: Posterior, console: Console) -> None:
    """Every check of every row."""
    for number, row in enumerate(posterior.rows):
        console.rule(f"row {number + 1} of {len(posterior.rows)}: {row.verdict}", align="left")
        console.print(_table(row))
        for warning in row.warnings:
            console.print(f"[bold yellow]warning[/] {escape(warning)}", highlight=False)
    console.print(f"[bold]verdict[/] {_painted(posterior.verdict)}", highlight=False)


def checks_document(posterior: Posterior) -> Document:
    """JSON form of the checks: as in the run's document, without the rest."""
    rows = []
    for row in posterior.rows:
        rows.append({"verdict": row.verdict, "checks": [vars(check) for check in row.checks]})
    return finite({"verdict": posterior.verdict, "rows": rows})


def _table(row: RowPosterior) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in ("check", "status"):
        table.add_column(column, no_wrap=True)
    for column in ("value", "threshold"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("found, and what to do", overflow="fold")
    for check in row.checks:
        table.add_row(*_cells(check))
    return table


def _cells(check: Check) -> tuple[str, ...]:
    numbers = (
        "–" if number is None else f"{number:.4g}" for number in (check.value, check.threshold)
    )
    return (escape(check.name), _painted(check.status), *numbers, escape(check.message))


def _painted(status: Status) -> str:
    return f"[bold {STYLES[status]}]{status}[/]"
