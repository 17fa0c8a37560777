"""What the page of one run shows: the answer, its verdict, statistics and plots of its draws, and
how it was run.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmppl.compare import read_json
from lmppl.compile import analyse
from lmppl.diagnosis import Check, Summary, columns
from lmppl.language import graph_document
from lmppl.posterior import Posterior, RowPosterior, finite, is_exact, load
from lmppl.report.page.answer import answer
from lmppl.report.page.document import models
from lmppl.report.page.rows import row_document
from lmppl.source import Source
from lmppl.version import VERSION

MOST_ROWS = 100  # data rows with plots and texts
MOST_DETAILS = 20  # data rows with a table of statistics
SETTINGS = ("chains", "num_samples", "num_warmup", "thin")
APART = ("budget", "engine_reason", "params")  # options that are no flags: they are told in words


@dataclass(frozen=True)
class Details:
    """Statistics, diagnostics and checks of a data row."""

    number: int
    summary: Mapping[str, Summary]
    diagnostics: Mapping[str, Any]
    checks: tuple[Check, ...]


def run_document(folder: Path) -> dict[str, Any]:
    """The page of a run's folder: what its template reads, and under `data` what its scripts do.
    Raises LmpplError.
    """
    posterior = load(folder)
    about = read_json(folder / "run.json") or {}
    program = analyse(
        Source(str(posterior.program["path"]), str(posterior.program["text"])), folder
    ).program
    found = answer(posterior)
    listed = [] if found["matrix"] else posterior.rows[:MOST_ROWS]
    drawn = [(n, row) for n, row in enumerate(posterior.rows, 1) if not is_exact(row)]
    data = finite(_for_scripts(posterior, listed))
    return {
        "title": Path(str(posterior.program["path"])).name,
        "program": posterior.program,
        "graph": {"nodes": [], "edges": []} if program is None else graph_document(program),
        "answer": found,
        "posterior": posterior,
        "models": models(posterior.models),
        "details": [_details(n, row) for n, row in drawn[:MOST_DETAILS]],
        "undetailed": max(0, len(drawn) - MOST_DETAILS),
        "unlisted": 0 if found["matrix"] else max(0, len(posterior.rows) - MOST_ROWS),
        "command": _command(posterior),
        "options": {key: value for key, value in posterior.options.items() if key not in APART},
        "made": str(about.get("finished", "")).replace("T", " ").replace("+00:00", " UTC"),
        "versions": about.get("versions", {}),
        "version": VERSION,
        "folder": str(folder),
        "data": data,
        "rows": data["rows"],
    }


def _for_scripts(posterior: Posterior, rows: Any) -> dict[str, Any]:
    """Rows in the form of a comparison's, of one engine."""
    label = posterior.engine
    engine = {"label": label, "engine": label, "measures": {}, "curve": [], "training": None}
    listed = [
        row_document(
            {"givens": row.givens, "log_evidence": row.log_evidence}, {label: row}, None, None, n
        )
        for n, row in enumerate(rows)
    ]
    for row, document in zip(rows, listed, strict=True):
        if is_exact(row) or not row.draws:  # an exact law needs no outline of its draws
            document["densities"] = {}
    return {"engines": [engine], "rows": listed}


def _details(number: int, row: RowPosterior) -> Details:
    kept = {key: value for key, value in row.diagnostics.document().items() if key != "lineages"}
    summary = row.summary() if row.draws and columns(row.draws) else {}
    return Details(number, summary, kept, tuple(row.checks))


def _command(posterior: Posterior) -> str:
    """A command that draws so again, but for the data."""
    options = posterior.options
    budget = options.get("budget")
    start = ["lmppl", "run", str(posterior.program["path"])]
    seed = ["--seed", str(posterior.seed)]
    if budget:
        return f"{shlex.join(start)} {budget['again']} {shlex.join(seed)}"
    flags = [f"--{name.replace('_', '-')}={options[name]}" for name in SETTINGS if name in options]
    return shlex.join([*start, "--engine", posterior.engine, *flags, *seed])
