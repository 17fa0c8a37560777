"""What the checks of a model have found, on the terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmppl.doctor import Found, Report
from lmppl.report.checks import STYLES
from lmppl.screen import visible


def show_report(report: Report, console: Console) -> None:
    """A line a check, with its number; below it, what did not pass and what to do; the verdict."""
    facts = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    console.print(f"[bold]{escape(visible(report.identifier))}[/]", highlight=False)
    console.print(escape(visible(facts)), style="dim", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for column in ("check", "status"):
        table.add_column(column, no_wrap=True)
    table.add_column("number", justify="right", no_wrap=True)
    table.add_column("found, and what to do", overflow="fold")
    for one in report.checks:
        cells = escape(one.name), _painted(one), _number(one), escape(visible(one.sentence))
        table.add_row(*cells)
    console.print(table)
    console.print(f"[bold]verdict[/] {_told(report)} ({report.seconds:.0f} s)", highlight=False)


def _told(report: Report) -> str:
    verdict = report.verdict
    statuses = [one.status for one in report.checks]
    applied = [status for status in statuses if status != "–"]
    wrong = [f"{statuses.count(one)} {one}" for one in ("fail", "warn") if one in statuses]
    said = f": {', '.join(wrong)} of" if wrong else ":"
    count = f"{len(applied)} checks; {len(statuses) - len(applied)} did not apply"
    return f"[bold {STYLES.get(verdict, 'dim')}]{verdict}[/]{said} {count}"


def _painted(found: Found) -> str:
    return f"[bold {STYLES.get(found.status, 'dim')}]{found.status}[/]"


def _number(found: Found) -> str:
    if found.number is None:
        return "–"
    shown = f"{found.number:.2g}" if math.isfinite(found.number) else "∞"
    return f"{shown} {found.unit}"
