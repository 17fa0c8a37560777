"""Rounds of expectation-maximisation on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmppl.em import POLICY, PUBLISHED, rise
from lmppl.report.checks import STYLES
from lmppl.shapes import Document


def show_rounds(document: Document, folder: Path, console: Console) -> None:
    """Print what was found, round by round, and what is kept."""
    lines = document["rounds"]
    where = "rows held out" if document["held_out"] else "training rows"
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "round",
        f"log evidence, {where}",
        "±",
        "above round 0",
        "±",
        "training rows",
        "E-step",
        "seconds",
    ):
        table.add_column(title, justify="right")
    for number, line in enumerate(lines):
        gain, doubt = rise(lines, number)
        best = " *" if number == document["best"] else ""
        verdict = f"[{STYLES[line['verdict']]}]{line['verdict']}[/]"
        table.add_row(
            f"{number}{best}", _number(line["log_evidence"]), _number(line["error"]), _number(gain),
            _number(doubt),
            _number(line["training_log_evidence"]), verdict, f"{line['seconds']:.0f}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"[bold]{escape(document['finding'])}[/] (nats a row; * is kept)", highlight=False
    )
    if not document["held_out"]:
        console.print(
            "no rows were held out (--held-out FILE): these were fitted, so their evidence "
            "mostly rises"
        )
    home = folder / PUBLISHED
    kept = [str(home / name) for name in (*document["learned"], POLICY) if (home / name).is_dir()]
    if kept:
        console.print(f"kept: {escape(', '.join(kept))}", style="dim", highlight=False)
        adapter = f" --adapter {home / POLICY}" if (home / POLICY).is_dir() else ""
        console.print(
            f"use it: lmppl run PROG --learned {escape(str(folder))}{escape(adapter)}", style="dim"
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
