"""Calibration and bounds on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmppl.report.checks import STYLES
from lmppl.validation import Bounds, Calibration, Estimate

BARS = "▁▂▃▄▅▆▇█"


def show_calibration(calibration: Calibration, console: Console) -> None:
    """A line a statistic: p-value, ranks as a small histogram, and whether it fails; then warnings
    and the verdict.
    """
    count, draws = calibration.simulations, calibration.num_samples
    console.print(
        f"{calibration.engine}: {count} simulations, each ranked among {draws} draws",
        highlight=False,
    )
    table = _table("statistic", "p-value", "ranks", "status")
    for found in calibration.statistics:
        table.add_row(
            escape(found.name),
            f"{found.p_value:.4f}",
            bars(found.histogram),
            f"[bold {STYLES[found.status]}]{found.status}[/]",
        )
    console.print(table)
    for warning in calibration.warnings:
        console.print(f"[bold yellow]warning[/] {escape(warning)}", highlight=False)
    verdict = calibration.verdict
    console.print(
        (
            f"[bold]verdict[/] [bold {STYLES[verdict]}]{verdict}[/]: a statistic fails below p = "
            f"{calibration.level:.2g}"
        ),
        highlight=False,
    )


def bars(counts: Sequence[int]) -> str:
    """A histogram as one character a bin, the largest being full."""
    largest = max(*counts, 1)
    return "".join(BARS[round((len(BARS) - 1) * count / largest)] for count in counts)


def show_bounds(bounds: Bounds, console: Console) -> None:
    """The evidence between its bounds, their gap, and the divergences of the proposal, in nats."""
    shape = (
        f"{bounds.simulations} simulations × {bounds.replicates} replicates of "
        f"{bounds.num_samples} draws"
    )
    console.print(f"mean over {shape}; nats, ± one standard error", highlight=False)
    table = _table("", "at least", "at most")
    table.add_row("log evidence", shown(bounds.lower), shown(bounds.upper))
    table.add_row(escape("gap: divergence of resampling, both ways"), "", shown(bounds.gap))
    for name, pair in (
        ("KL(q‖π), what the proposal wastes", bounds.proposal_from_posterior),
        ("KL(π‖q), what it misses", bounds.posterior_from_proposal),
    ):
        table.add_row(escape(name), *map(shown, pair))
    console.print(table)


def shown(estimate: Estimate) -> str:
    """A mean with its error, where it has one."""
    if not np.isfinite(estimate.mean):
        return "∞" if estimate.mean > 0 else "−∞"
    return f"{estimate.mean:.3f}" + ("" if estimate.error is None else f" ± {estimate.error:.3f}")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table
