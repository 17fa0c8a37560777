"""A posterior on the terminal: what ran, the table, the verdict, warnings, and draws by mass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lmppl.diagnose import Summary
from lmppl.posterior import Posterior, RowPosterior
from lmppl.report.checks import show_overall, show_verdict

MOST_ROWS = 10  # data rows that are shown whole
UNSHOWN = ("lineages",)  # diagnostics that are only plotted
MOST_TEXTS = 10  # texts that are listed a row
COLUMNS = ("mean", "mcse", "sd", "q5", "q50", "q95", "ess_bulk", "ess_tail", "r_hat")


def show_posterior(posterior: Posterior, console: Console) -> None:
    """Print a posterior. Texts of models and data are shown as data, never as markup."""
    _show_run(posterior, console)
    for number, row in enumerate(posterior.rows[:MOST_ROWS]):
        if len(posterior.rows) > 1:
            console.rule(f"row {number + 1} of {len(posterior.rows)}", align="left")
        _show_row(row, console)
    if len(posterior.rows) > MOST_ROWS:
        console.print(f"… and {len(posterior.rows) - MOST_ROWS} rows more: see --json or --out", style="dim")
    if len(posterior.rows) > 1:
        show_overall(posterior, console)


def _show_run(posterior: Posterior, console: Console) -> None:
    options = posterior.options
    models = ", ".join(f"{name} = {model['identifier']}" for name, model in posterior.models.items())
    shape = f"{options['chains']} chains × {options['num_samples']} draws"
    cost = posterior.cost
    work = f"{cost['tokens_decoded']:,.0f} tokens decoded, {cost['tokens_scored']:,.0f} scored, {cost['seconds']:.1f} s"
    lines = [
        ("program", Path(str(posterior.program["path"])).name),
        ("engine", f"{posterior.engine} ({options['engine_reason']}), {shape}, seed {posterior.seed}"),
        ("models", models),
        ("work", work),
    ]
    if budget := options.get("budget"):
        lines.append(("again", f"{budget['again']} --seed {posterior.seed}"))
    for label, text in lines:
        console.print(f"[bold]{label:>8}[/]  {escape(text)}", highlight=False)
    console.print()


def _show_row(row: RowPosterior, console: Console) -> None:
    for name, value in row.givens.items():
        console.print(f"[bold]{escape(name):>8}[/]  {escape(_short(repr(value), 160))}", highlight=False)
    if row.log_evidence is not None:
        error = f" ± {row.log_evidence_se:.3f}" if row.log_evidence_se is not None else ""
        console.print(f"[bold]log evidence[/]  {row.log_evidence:.3f}{error} nats", highlight=False)
    for key in [key for key in row.diagnostics if key not in UNSHOWN]:
        value = row.diagnostics[key]
        console.print(f"[bold]{escape(key)}[/]  {escape(_plain(value))}", highlight=False, style="dim")
    if summary := row.summary():
        console.print(_table(summary, console.width))
    show_verdict(row, console)
    for warning in row.warnings:
        console.print(f"[bold yellow]warning[/] {escape(warning)}", highlight=False)
    _show_predictions(row, console)
    _show_texts(row, console)
    console.print()


def _table(summary: Mapping[str, Summary], width: int) -> Table:
    """The numbers are shown whole; names are cut to the room that is left."""
    cells = {name: [_number(values[column], column) for column in COLUMNS] for name, values in summary.items()}
    numbers = sum(1 + max(len(c), *(len(row[i]) for row in cells.values())) for i, c in enumerate(COLUMNS))
    room = max(12, min(44, width - numbers - 1))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("statistic", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in cells.items():
        table.add_row(escape(_short(name, room)), *row)
    return table


def _number(value: float | None, column: str) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if column.startswith("ess") else f"{value:.3f}" if column == "r_hat" else f"{value:.2f}"


def _show_predictions(row: RowPosterior, console: Console) -> None:
    for name, law in row.predictions.items():
        options = "   ".join(f"{option!r} {probability:.3f}" for option, probability in list(law.items())[:MOST_TEXTS])
        console.print(f"[bold]p({escape(name)})[/]  {escape(options)}", highlight=False)


def _show_texts(row: RowPosterior, console: Console) -> None:
    masses = row.probabilities()
    if not masses or not any(next(iter(masses))):
        names = list(row.draws[0].values) if row.draws else []
        if not names:
            return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("mass", justify="right")
    for name in row.draws[0].values if row.draws else []:
        table.add_column(escape(name), overflow="fold")
    shown = list(masses.items())[:MOST_TEXTS]
    for texts, mass in shown:
        table.add_row(f"{mass:.3f}", *(escape(repr(text)) for text in texts))
    console.print(table)
    if len(masses) > len(shown):
        console.print(f"… and {len(masses) - len(shown)} texts more", style="dim")


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_plain(entry) for entry in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    return "–" if value is None else str(value)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
