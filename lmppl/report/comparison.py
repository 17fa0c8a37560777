"""A comparison on the terminal: the advice, and a table a question: is it right, what are the texts
like, the price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmppl.compare import GROUPS
from lmppl.report.checks import STYLES
from lmppl.shapes import Document


def show_comparison(document: Document, folder: Path, console: Console) -> None:
    """Print the document of a comparison."""
    _show_head(document, console)
    for group, title in GROUPS.items():
        columns = [column for column in document["columns"] if column["group"] == group]
        room = (
            console.width
            - max(len(title), *(len(entry["label"]) for entry in document["entries"]))
            - 12
        )
        for number, some in enumerate(_fitting(columns, document["entries"], room)):
            console.print(
                _table(title, some, document["entries"], verdicts=group == "right" and number == 0)
            )
            console.print()
    for entry in document["entries"]:
        _show_remarks(entry, console)
    if document["bounds"] is not None:
        _show_bounds(document["bounds"], console)
    advice = document["advice"]
    console.print(f"[bold]{escape(advice['headline'])}[/]", highlight=False)
    for reason in advice["reasons"]:
        console.print(f"  {escape(reason)}", highlight=False)
    if not document["complete"]:
        console.print(
            "[bold yellow]unfinished[/] run the same command again to go on", highlight=False
        )
    console.print(
        f"kept in {escape(str(folder))}: a page by `lmppl report {escape(str(folder))}`",
        style="dim",
    )


def _show_head(document: Mapping[str, Any], console: Console) -> None:
    budget = document["budget"]
    limit = (
        "engines' own settings"
        if budget is None
        else f"{budget['amount']:,.0f} {budget['unit']} a data row and run"
    )
    models = ", ".join(
        f"{name} = {model['identifier']}" for name, model in document["models"].items()
    )
    rows, seeds = len(document["rows"]), document["seeds"]
    for label, text in (
        (
            "program",
            f"{Path(document['program']['path']).name}, {rows} data row{'s' if rows > 1 else ''}",
        ),
        ("models", models),
        (
            "budget",
            f"{limit}; {seeds} seed{'s' if seeds > 1 else ''}, ± is a 95 % interval over them",
        ),
        ("against", f"{document['reference']['title']}. {document['reference']['note']}"),
    ):
        console.print(f"[bold]{label:>8}[/]  {escape(text)}", highlight=False)
    console.print()


def _fitting(columns: Sequence[Any], entries: Sequence[Any], room: int) -> list[list[Any]]:
    """Columns in groups that are no wider than there is room: numbers are shown whole."""
    groups: list[list[Any]] = []
    left = 0
    for column in columns:
        cells = [_cell(entry["measures"].get(column["key"]), column["digits"]) for entry in entries]
        width = 2 + max(
            len(line.replace("[dim]", "").replace("[/]", ""))
            for cell in (column["title"], *cells)
            for line in cell.split("\n")
        )
        if not groups or width > left:
            groups.append([])
            left = room
        groups[-1].append(column)
        left -= width
    return groups


def _table(
    title: str, columns: Sequence[Mapping[str, Any]], entries: Sequence[Any], verdicts: bool
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(title, no_wrap=True)
    if verdicts:
        table.add_column("verdict")
    for column in columns:
        table.add_column(escape(column["title"]), justify="right", no_wrap=True)
    for entry in entries:
        if entry["reason"] is None:
            cells = [
                _cell(entry["measures"].get(column["key"]), column["digits"]) for column in columns
            ]
            table.add_row(
                escape(entry["label"]), *([_painted(entry["verdict"])] if verdicts else []), *cells
            )
        elif verdicts:
            table.add_row(escape(entry["label"]), "[bold red]not run[/]", *["–"] * len(columns))
    return table


def _cell(found: Mapping[str, float | None] | None, digits: int) -> str:
    """The mean, and half of the interval beneath it."""
    if found is None or found["mean"] is None:
        return "–"
    mean = f"{round(found['mean'], digits) + 0.0:,.{digits}f}"  # no minus before a zero
    if found["low"] is None or found["high"] is None or digits == 0:
        return mean
    reach = max(found["high"] - found["mean"], found["mean"] - found["low"])  # one end may be cut
    return f"{mean}\n[dim]±{reach:.{digits}f}[/]"


def _painted(verdict: str) -> str:
    return f"[bold {STYLES[verdict]}]{verdict}[/]"  # type: ignore[index]


def _show_remarks(entry: Mapping[str, Any], console: Console) -> None:
    """Why an entry was not run, or the worst thing that its checks found."""
    if entry["reason"] is not None:
        console.print(
            f"[bold]{escape(entry['label'])}[/] was not run: {escape(entry['reason'])}",
            highlight=False,
        )
    elif entry["findings"]:
        console.print(
            f"[bold]{escape(entry['label'])}[/] {escape(entry['findings'][0])}", highlight=False
        )
    if entry.get("over"):
        console.print(f"[bold]{escape(entry['label'])}[/] {escape(entry['over'])}", highlight=False)


def _show_bounds(bounds: Mapping[str, Any], console: Console) -> None:
    shown = {
        name: "∞" if bounds[name]["mean"] is None else f"{bounds[name]['mean']:.2f}"
        for name in ("lower", "upper", "gap")
    }
    console.print(
        f"on data that the program simulates, the log evidence lies between {shown['lower']} and "
        f"{shown['upper']} "
        f"(gap {shown['gap']} nats; importance, {bounds['num_samples']} draws, "
        f"{bounds['simulations']} simulations)",
        highlight=False,
    )
