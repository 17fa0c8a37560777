"""What a page shows, as one JSON value: a comparison's document, with plots and texts of its runs
read from the folder.

A run by itself has a page of its own: run.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmppl.compare import DOCUMENT, SHOWN, TEXTS, broken, key_of_texts, load_comparison, read_json
from lmppl.errors import LmpplError
from lmppl.posterior import Posterior, finite, load
from lmppl.report.page.rows import row_document
from lmppl.shapes import Misfit, fields, text
from lmppl.storage import is_broken
from lmppl.version import VERSION

CURVE = 300  # steps of a training curve
TOP = (
    "command", "program", "graph", "versions", "reference", "bounds", "budget", "seeds", "advice",
    "columns", "quality",
)  # fmt: skip
LOGGED = ("step", "loss", "variance", "ess")


def page_document(folder: Path) -> dict[str, Any]:
    """The page of a comparison's folder. Raises LmpplError where it is none."""
    compared = load_comparison(folder)
    rows = len(compared["rows"])
    first = {
        entry["label"]: _first(folder, entry, rows)
        for entry in compared["entries"]
        if entry["reason"] is None
    }
    texts = _texts(folder, compared)
    reference = _reference(folder, compared, rows)
    shown = []
    for n, row in enumerate(compared["rows"]):
        found = {label: one.rows[n] for label, one in first.items()}
        shown.append(row_document(row, found, texts[n] if texts else None, reference, n))
    return finite(
        {
            **{key: compared[key] for key in TOP},
            "title": Path(compared["program"]["path"]).name,
            "made": compared["made"].replace("T", " ").replace("+00:00", " UTC"),
            "version": VERSION,
            "folder": str(folder),
            "models": models(compared["models"]),
            "engines": [_engine(folder, entry) for entry in compared["entries"]],
            "log_evidence": "log_evidence",
            "rows": shown,
        }
    )


def models(described: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Models by name, as a list for the page."""
    return [
        {"name": name, "revision": None, "local_law": None, **model}
        for name, model in described.items()
    ]


def _first(folder: Path, entry: Mapping[str, Any], rows: int) -> Posterior:
    """The run that is plotted: the first seed's, of the largest size."""
    return _run(folder, entry["runs"][0], rows)


def _reference(folder: Path, compared: Mapping[str, Any], rows: int) -> Posterior | None:
    place = compared["reference"].get("run")
    return None if place is None else _run(folder, place, rows)


def _run(folder: Path, name: str, rows: int) -> Posterior:
    """A run of the comparison, which has its rows. Raises LmpplError."""
    found = load(folder / name)
    if len(found.rows) != rows:
        problem = f"it has {rows} rows, and the run in {name} has {len(found.rows)}"
        raise LmpplError(broken(folder / DOCUMENT, problem))
    return found


def _texts(folder: Path, compared: Mapping[str, Any]) -> Any:
    """Texts of every row with log probabilities token by token; None where they are still to come.
    Raises LmpplError.
    """
    path, complete, kept = folder / SHOWN, compared["complete"], None
    if complete or path.exists():
        kept = read_json(path)
        if problem := _damage(kept, len(compared["rows"])):
            raise LmpplError(broken(path, problem))
    shown = (entry["runs"][0] for entry in compared["entries"] if entry["runs"])
    if kept is None or kept["key"] == key_of_texts(Path(run).name for run in shown):
        return kept and kept["value"]
    if complete:
        raise LmpplError(broken(path, f"it is not of the runs that {DOCUMENT} is of"))
    return None


def _damage(kept: Any, rows: int) -> str | None:
    """What is wrong with the texts that a page shows."""
    if kept is None:
        return "it is missing, or no JSON"
    try:
        fields({"key": text, "value": TEXTS})(kept)
    except Misfit as reason:
        return str(reason)
    if is_broken(kept):
        return "it is not the file that was written"
    found = len(kept["value"])
    return None if found == rows else f"it has {found} rows, and the comparison {rows}"


def _engine(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("label", "engine", "options", "reason", "verdict", "findings", "measures", "curve")
    training = entry["training"]
    if training is not None:
        training = {**training, "curve": _learning(folder / entry["fits"][0])}
    return {**{key: entry[key] for key in kept}, "training": training}


def _learning(fit: Path) -> list[dict[str, Any]]:
    """Loss, variance and effective size by step, thinned."""
    from lmppl.engines.amortised import read_log

    lines = read_log(fit)
    step = max(1, -(-len(lines) // CURVE))
    return [_logged(line) for line in lines[::step]]


def _logged(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in LOGGED}
