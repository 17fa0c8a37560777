"""A posterior on the terminal: what ran, in two lines; the answer; the verdict; on demand,
statistics and diagnostics.

Texts of models and data are shown as data, never as markup, and never as what moves a cursor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lmppl.diagnosis import Prediction, Summary
from lmppl.posterior import (
    Law,
    Line,
    Matrix,
    Posterior,
    RowPosterior,
    evidence_interval,
    is_exact,
    legible,
    likeliest,
    matrix,
    statistics,
    steep,
    told,
)
from lmppl.report.checks import STYLES, show_overall, show_verdict
from lmppl.screen import quoted, visible

MOST_ROWS = 10  # data rows that are shown whole
MOST_LINES = 30  # data rows of a matrix
UNSHOWN = ("lineages",)  # diagnostics that are only plotted
MOST_TEXTS = 10  # texts that are listed a row
LEAST_LABEL = 22  # characters that a matrix leaves for what tells its rows apart
COLUMNS = ("mean", "mcse", "sd", "q5", "q50", "q95", "ess_bulk", "ess_tail", "r_hat")


def show_posterior(posterior: Posterior, console: Console, verbose: bool = False) -> None:
    """Print a posterior. verbose: statistics and diagnostics follow below a rule."""
    _show_run(posterior, console)
    table = matrix(posterior)
    if table is not None:
        _show_matrix(table, console)
        _show_findings(posterior, console)
    else:
        for number, row in enumerate(posterior.rows[:MOST_ROWS]):
            if len(posterior.rows) > 1:
                console.rule(f"row {number + 1} of {len(posterior.rows)}", align="left")
            _show_answer(row, console)
        if len(posterior.rows) > MOST_ROWS:
            console.print(
                f"… and {len(posterior.rows) - MOST_ROWS} rows more: see --json or --out",
                style="dim",
            )
    if len(posterior.rows) > 1:
        show_overall(posterior, console)
    _show_details(posterior, console, verbose)


def _show_run(posterior: Posterior, console: Console) -> None:
    options = posterior.options
    models = ", ".join(
        f"{name} = {model['identifier']}" for name, model in posterior.models.items()
    )
    shape = f"{options['chains']} chains × {options['num_samples']} draws"
    exact = all(map(is_exact, posterior.rows))
    engine = f"{posterior.engine} ({options['engine_reason']})" + ("" if exact else f", {shape}")
    path = Path(str(posterior.program["path"])).name
    work = f"{posterior.cost['seconds']:.1f} s, seed {posterior.seed}"
    console.print(_labelled([(path, f"{models}; {work}"), ("engine", engine)]))
    console.print()


def _labelled(pairs: Iterable[tuple[str, str]], style: str = "bold") -> Table:
    """Labels, and texts beside them that wrap within their column."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style=style)
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(escape(visible(label)), escape(visible(text)))
    return grid


# --- rows × options -------------------------------------------------------------------------------


def _show_matrix(found: Matrix, console: Console) -> None:
    names = found.told
    marked = any(line.verdict != "pass" for line in found.lines)
    options = _that_fit(found, console.width - LEAST_LABEL - 14 - (9 if marked else 0))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(escape(visible(" / ".join(names) or "row")), overflow="fold")
    for head in legible(list(options)):
        table.add_column(escape(_quoted(head)), justify="right", no_wrap=True)
    table.add_column("log evidence", justify="right", no_wrap=True)
    if marked:
        table.add_column("verdict", no_wrap=True)
    if found.prior:
        table.add_row(
            f"prior of {escape(visible(found.latent))}",
            *_masses(found.prior, options),
            "",
            style="dim",
        )
    for line in found.lines[:MOST_LINES]:
        own = not found.prior and line.prior
        label = Text(
            " / ".join(_quoted((line.givens.get(name) or "").strip()) for name in names)
            or str(line.number)
        )
        verdict = [f"[bold {STYLES[line.verdict]}]{line.verdict}[/]"] if marked else []
        table.add_row(label, *_shares(line, options), number(line.log_evidence, 2), *verdict)
        if own:
            table.add_row("  prior", *_masses(line.prior, options), "", style="dim")
    console.print(table)
    if hidden := len(found.options) - len(options):
        console.print(f"… and {hidden} option(s) more, of less mass: see --json", style="dim")
    if len(found.lines) > MOST_LINES:
        console.print(
            f"… and {len(found.lines) - MOST_LINES} rows more: see --json or --out", style="dim"
        )
    console.print()


def _that_fit(found: Matrix, room: int) -> tuple[str, ...]:
    """As many options as there is room for, those with most mass, in the program's order."""
    total: dict[str, float] = {}
    for option in found.options:
        total[option] = sum(line.posterior.get(option, 0.0) for line in found.lines)
    heads = dict(zip(found.options, legible(list(found.options)), strict=True))
    kept = set()
    for option in sorted(found.options, key=lambda option: -total[option]):
        room -= max(len(_quoted(heads[option])), 4) + 2
        if kept and room < 0:
            break
        kept.add(option)
    return tuple(option for option in found.options if option in kept)


def _masses(law: Law, options: Iterable[str]) -> list[str]:
    return [f"{law.get(option, 0.0):.2f}" for option in options]


def _shares(line: Line, options: tuple[str, ...]) -> list[Text]:
    """Masses of a row: the largest stands out, those of nothing stand back."""
    most = max(line.posterior, key=lambda option: line.posterior[option], default=None)
    cells = zip(options, _masses(line.posterior, options), strict=True)
    return [
        Text(cell, style="bold" if option == most else "dim" if cell == "0.00" else "")
        for option, cell in cells
    ]


def _show_findings(posterior: Posterior, console: Console) -> None:
    """What rows of a matrix have to say beside their masses, the same thing once."""
    for number, row in enumerate(posterior.rows[:MOST_ROWS], 1):
        if row.verdict != "pass":
            console.print(f"[bold]row {number}[/]", highlight=False)
            show_verdict(row, console)
    for warning in dict.fromkeys(warning for row in posterior.rows for warning in row.warnings):
        console.print(_warning(warning), highlight=False)


def _warning(text: str) -> str:
    return f"[bold yellow]warning[/] {escape(visible(text))}"


# --- one row --------------------------------------------------------------------------------------


def _show_answer(row: RowPosterior, console: Console) -> None:
    pairs = [(name, _short(repr(value), 320)) for name, value in row.givens.items()]
    if pairs:
        console.print(_labelled(pairs))
        console.print()
    for name, found in row.predictions.items():
        console.print(_labelled(_predicted(name, found, console.width)))
    _show_texts(row, console)
    for name, summary in statistics(row).items():
        error, spread = number(summary["mcse"], 2), number(summary["sd"], 2)
        mean = f"mean {number(summary['mean'], 2)} ± {error}, sd {spread}{steep(row, name)}"
        console.print(_labelled([(name, mean)]))
    if row.log_evidence is not None:
        error = f" ± {row.log_evidence_se:.3f}" if row.log_evidence_se else ""
        console.print(
            f"[bold]log evidence[/]  {number(row.log_evidence, 3)}{error} nats{_within(row)}",
            highlight=False,
        )
    show_verdict(row, console)
    for warning in row.warnings:
        console.print(_warning(warning), highlight=False)
    console.print()


def _predicted(name: str, found: Prediction, width: int) -> list[tuple[str, str]]:
    """The likeliest options or texts, and how uncertain the answer is. A line holds whole ones."""
    listed = likeliest(found, MOST_TEXTS)
    options = [f"{quoted(option)} {share}" for option, share in listed]
    if more := len(found.outcomes) - len(listed):
        options.append(f"… and {more} more")
    label, uncertain = f"p({name})", told(found)
    lines = _packed(options, width - max(len(label), len("entropy")) - 2)
    rows = [(label if place == 0 else "", line) for place, line in enumerate(lines)]
    return [*rows, *([("entropy", uncertain)] if uncertain else [])]


def _packed(entries: Sequence[str], width: int) -> list[str]:
    """Entries side by side, in lines no longer than a width; a longer one has a line of its own."""
    lines: list[str] = []
    for entry in entries:
        if lines and cell_len(f"{lines[-1]}   {entry}") <= width:
            lines[-1] += f"   {entry}"
        else:
            lines.append(entry)
    return lines


def _within(row: RowPosterior) -> str:
    found = evidence_interval(row)
    if found is None:
        return ""
    low, high = found
    return f", 95 %: {number(-math.inf if low is None else low, 3)} to {number(high, 3)}"


def _show_texts(row: RowPosterior, console: Console) -> None:
    names = list(row.draws[0].values) if row.draws else []
    masses = row.joint()
    if not names or not masses:
        return
    shown = list(masses.items())[:MOST_TEXTS]
    longest = max(len("  ".join(map(quoted, texts))) + 2 for texts, _ in shown)
    stacked = len(names) > 1 and longest > console.width - 8
    prior = row.prior.get(names[0], {}) if len(names) == 1 else {}
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("mass", justify="right", no_wrap=True)
    if prior:
        table.add_column("prior", justify="right", no_wrap=True, style="dim")
    for name in [""] if stacked else names:
        table.add_column(escape(visible(name)), overflow="fold")
    for texts, mass in shown:
        cells = [escape(quoted(text)) for text in texts]
        if stacked:  # several long texts: one beneath the other, not in narrow columns
            cells = [
                "\n".join(f"{escape(name)} {text}" for name, text in zip(names, cells, strict=True))
            ]
        before = [f"{prior.get(texts[0] or '', 0.0):.3f}"] if prior else []
        table.add_row(f"{mass:.3f}", *before, *cells)
    console.print(table)
    if len(masses) > len(shown):
        console.print(f"… and {len(masses) - len(shown)} texts more", style="dim")
    console.print()


# --- statistics and diagnostics -------------------------------------------------------------------


def _show_details(posterior: Posterior, console: Console, verbose: bool) -> None:
    drawn = [row for row in posterior.rows if not is_exact(row)]
    if not verbose:
        if drawn:
            console.print("statistics and diagnostics: with -v", style="dim")
        return
    cost = posterior.cost
    work = (
        f"{cost['tokens_decoded']:,.0f} tokens decoded, {cost['tokens_scored']:,.0f} scored, "
        f"{cost['seconds']:.1f} s"
    )
    console.rule("details", align="left")
    budget = posterior.options.get("budget")
    again = [("again", f"{budget['again']} --seed {posterior.seed}")] if budget else []
    console.print(_labelled([("work", work), *again]))
    for position, row in enumerate(drawn[:MOST_ROWS], 1):
        if len(drawn) > 1:
            console.print(f"\n[bold]row {position}[/]", highlight=False)
        reported = row.diagnostics.document()
        found = {key: value for key, value in reported.items() if key not in UNSHOWN}
        console.print(_labelled([(key, _plain(value)) for key, value in found.items()], "dim"))
        summary = row.summary()
        if summary:
            console.print(_table(summary, console.width))


def _table(summary: Mapping[str, Summary], width: int) -> Table:
    """The numbers are shown whole; names are cut to the room that is left."""
    cells: dict[str, list[str]] = {}
    for name, values in summary.items():
        cells[name] = [_cell(values[column], column) for column in COLUMNS]
    columns = zip(COLUMNS, *cells.values(), strict=True)
    numbers = sum(1 + max(map(len, column)) for column in columns)
    room = max(12, min(44, width - numbers - 1))
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("statistic", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, row in cells.items():
        table.add_row(escape(_short(visible(name), room)), *row)
    return table


def _cell(value: float | None, column: str) -> str:
    return number(value, 0 if column.startswith("ess") else 3 if column == "r_hat" else 2)


def number(value: float | None, digits: int) -> str:
    """A number as it is read; a dash where there is none, which infinity is not."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:z.{digits}f}" if math.isfinite(value) else "∞" if value > 0 else "−∞"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else number(value, 0)
    if isinstance(value, list):
        return ", ".join(_plain(entry) for entry in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(entry)}" for key, entry in value.items())
    return "–" if value is None else str(value)


def _quoted(text: str) -> str:
    """A text as one line, without the quotes."""
    return repr(text)[1:-1]


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
