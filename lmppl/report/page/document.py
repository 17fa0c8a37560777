"""What a page shows, as one JSON value: a comparison's document, with plots and texts of its runs read from the folder.

A run by itself has a page of its own: run.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmppl import __version__
from lmppl.compare.store import load_comparison, read_json
from lmppl.posterior import Posterior, finite
from lmppl.report.page.rows import row_document
from lmppl.results import load

CURVE = 300  # steps of a training curve


def page_document(folder: Path) -> dict[str, Any]:
    """The page of a comparison's folder. Raises LmpplError where it is none."""
    compared = load_comparison(folder)
    first = {entry["label"]: _first(folder, entry) for entry in compared["entries"] if entry["reason"] is None}
    texts = (read_json(folder / "texts.json") or {}).get("value")
    reference = _reference(folder, compared)
    top = ("command", "program", "graph", "versions", "reference", "bounds", "budget", "seeds", "advice", "columns",
           "quality")  # fmt: skip
    return finite(
        {
            **{key: compared[key] for key in top},
            "title": Path(compared["program"]["path"]).name,
            "made": compared["made"].replace("T", " ").replace("+00:00", " UTC"),
            "version": __version__,
            "folder": str(folder),
            "models": [{"name": name, **model} for name, model in compared["models"].items()],
            "engines": [_engine(folder, entry) for entry in compared["entries"]],
            "log_evidence": "log_evidence",
            "rows": [
                row_document(
                    row, {label: one.rows[n] for label, one in first.items()}, texts[n] if texts else None, reference, n
                )
                for n, row in enumerate(compared["rows"])
            ],
        }
    )


def _first(folder: Path, entry: Mapping[str, Any]) -> Posterior:
    """The run that is plotted: the first seed's, of the largest size."""
    return load(folder / entry["runs"][0])


def _reference(folder: Path, compared: Mapping[str, Any]) -> Posterior | None:
    place = compared["reference"].get("run")
    return None if place is None else load(folder / place)


def _engine(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("label", "engine", "options", "reason", "verdict", "findings", "measures", "curve")
    training = entry["training"]
    if training is not None:
        training = {**training, "curve": _learning(folder / entry["fits"][0])}
    return {**{key: entry[key] for key in kept}, "training": training}


def _learning(fit: Path) -> list[dict[str, Any]]:
    """Loss, variance and effective size by step, thinned."""
    from lmppl.engines.amortised.progress import read_log

    lines = read_log(fit)
    step = max(1, -(-len(lines) // CURVE))
    return [{name: line.get(name) for name in ("step", "loss", "variance", "ess")} for line in lines[::step]]
