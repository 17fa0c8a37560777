"""What a page shows, as one JSON value: a comparison's document, with plots and texts of its runs read from the folder.

A run folder is shown as a comparison of one. Everything is thinned to what can be seen: histograms in place of draws,
a few hundred points a trace, the heaviest texts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from lmppl import __version__
from lmppl.compare import reference as references
from lmppl.compare.advice import advise
from lmppl.compare.columns import COLUMNS
from lmppl.compare.measure import Names, measure
from lmppl.compare.store import DOCUMENT, load_comparison, read_json
from lmppl.compare.table import intervals
from lmppl.compile import analyse
from lmppl.draws import Floats, chain_shape
from lmppl.graph import graph_document
from lmppl.posterior import Posterior, RowPosterior, finite
from lmppl.results import load, versions
from lmppl.source import Source

BINS = 30
POINTS = 150  # a chain's trace
RANK_BINS = 20
CURVE = 300  # steps of a training curve
REFERENCE = "(reference)"


def page_document(folder: Path) -> dict[str, Any]:
    """The page of a comparison's folder, or of a run's. Raises LmpplError where it is neither."""
    compared = load_comparison(folder) if (folder / DOCUMENT).exists() else _of_one(load(folder), folder)
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
                _row(
                    row, {label: one.rows[n] for label, one in first.items()}, texts[n] if texts else None, reference, n
                )
                for n, row in enumerate(compared["rows"])
            ],
        }
    )


def _first(folder: Path, entry: Mapping[str, Any]) -> Posterior:
    """The run that is plotted: the first seed's, of the largest size."""
    return entry["posterior"] if "posterior" in entry else load(folder / entry["runs"][0])


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


# --- a data row -----------------------------------------------------------------------------------


def _row(
    row: Mapping[str, Any],
    found: Mapping[str, RowPosterior],
    texts: Sequence[Mapping[str, Any]] | None,
    reference: Posterior | None,
    number: int,
) -> dict[str, Any]:
    truth = None if reference is None else reference.rows[number]
    laws = {label: one.probabilities() for label, one in found.items() if one.draws}
    texts = texts if texts is not None else _plain_texts(found)
    shown = {tuple(text["values"].values()) for text in texts}
    return {
        **row,
        "densities": _densities({**found, **({} if truth is None else {REFERENCE: truth})}),
        "traces": {label: _traces(one) for label, one in found.items() if _is_chain(one)},
        "ranks": {label: _ranks(one) for label, one in found.items() if _is_chain(one)},
        "lineages": {label: lines for label, one in found.items() if (lines := one.diagnostics.get("lineages"))},
        "texts": _texts(texts, laws, truth),
        "hidden": {label: _hidden(law, shown) for label, law in laws.items()},
    }


def _densities(found: Mapping[str, RowPosterior]) -> dict[str, list[list[float]]]:
    """Weighted histograms of the log density on common bins: [left, right, mass]."""
    columns = {label: _column(one) for label, one in found.items()}
    known = {label: (values, mass) for label, (values, mass) in columns.items() if len(values)}
    if not known:
        return {}
    ends = [np.quantile(values, [0.005, 1]) for values, _ in known.values()]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    return {
        label: [
            [float(edges[i]), float(edges[i + 1]), float(share)]
            for i, share in enumerate(np.histogram(values.clip(low, high), edges, weights=mass)[0])
        ]
        for label, (values, mass) in known.items()
    }


def _column(row: RowPosterior) -> tuple[Floats, Floats]:
    """Log densities of possible draws, and their mass."""
    if row.support is not None and row.log_evidence is not None:
        shares = np.array([state.probability for state in row.support])
        return np.log(shares) + row.log_evidence, shares / shares.sum()
    values = np.array([draw.log_density for draw in row.draws])
    mass = row.weights
    kept = np.isfinite(values) & (mass > 0) if len(values) else np.zeros(0, dtype=bool)
    return values[kept], mass[kept]


def _is_chain(row: RowPosterior) -> bool:
    """Whether draws are steps of chains."""
    return "fresh_starts" in row.diagnostics


def _by_chain(row: RowPosterior) -> Floats:
    """(chains, draws) log densities."""
    ordered = sorted(row.draws, key=lambda draw: (draw.chain, draw.draw))
    return np.array([draw.log_density for draw in ordered]).reshape(chain_shape(row.draws))


def _traces(row: RowPosterior) -> list[list[list[float]]]:
    values = _by_chain(row)
    step = max(1, -(-values.shape[1] // POINTS))
    return [[[i, round(float(chain[i]), 3)] for i in range(0, len(chain), step)] for chain in values]


def _ranks(row: RowPosterior) -> list[list[int]]:
    """Histograms of each chain's ranks among all draws (Vehtari et al. 2021); ties share their mean rank."""
    from scipy.stats import rankdata

    values = _by_chain(row)
    ranks = rankdata(values, axis=None).reshape(values.shape) - 0.5
    edges = np.linspace(0, values.size, min(RANK_BINS, values.size) + 1)
    return [np.histogram(chain, edges)[0].tolist() for chain in ranks]


# --- texts ----------------------------------------------------------------------------------------


def _plain_texts(found: Mapping[str, RowPosterior]) -> list[dict[str, Any]]:
    """Texts of a folder that has no log probabilities token by token."""
    from lmppl.compare.texts import chosen

    return [
        {"values": draw.values, "log_density": draw.log_density, "factors": draw.factors, "tokens": None}
        for draw in chosen(found).values()
        if draw.values
    ]


def _texts(
    texts: Sequence[Mapping[str, Any]], laws: Mapping[str, Mapping[tuple[str, ...], float]], truth: RowPosterior | None
) -> list[dict[str, Any]]:
    law = {} if truth is None or truth.support is None else truth.probabilities()
    found = []
    for text in texts:
        key = tuple(text["values"].values())
        mass = {label: own[key] for label, own in laws.items() if own.get(key, 0) > 0}
        found.append({**text, "mass": mass, "reference": law.get(key) if law else None})
    return found


def _hidden(law: Mapping[tuple[str, ...], float], shown: Collection[tuple[str, ...]]) -> dict[str, float]:
    """What is not listed: number of texts, and their mass."""
    rest = [share for key, share in law.items() if share > 0 and key not in shown]
    return {"texts": len(rest), "mass": float(sum(rest))}


# --- a run by itself ------------------------------------------------------------------------------


def _of_one(posterior: Posterior, folder: Path) -> dict[str, Any]:
    """A run as a comparison of one engine, without a reference."""
    analysis = analyse(Source(str(posterior.program["path"]), str(posterior.program["text"])), folder)
    names = list(posterior.rows[0].draws[0].values) if posterior.rows and posterior.rows[0].draws else []
    nothing = references.nothing(len(posterior.rows), "This is one run, and nothing to hold it against.")
    found = measure(posterior, nothing, [{}] * len(posterior.rows), Names(names, []))
    measures = intervals([found])
    entry = {
        "label": posterior.engine, "engine": posterior.engine, "options": dict(posterior.options), "reason": None,
        "verdict": found["verdict"], "findings": found["findings"], "measures": measures,
        "curve": [], "training": None, "posterior": posterior,
    }  # fmt: skip
    shown = {name for name, value in measures.items() if value["mean"] is not None}
    return {
        "made": "", "versions": versions(), "command": f"lmppl run {posterior.program['path']} --engine "
        f"{posterior.engine} --seed {posterior.seed}", "program": posterior.program,
        "graph": {"nodes": [], "edges": []} if analysis.program is None else graph_document(analysis.program),
        "models": posterior.models, "budget": None, "seeds": 1, "bounds": None, "quality": "log_evidence",
        "reference": {"kind": nothing.kind, "title": nothing.title, "note": nothing.note},
        "columns": [asdict(column) for column in COLUMNS if column.key in shown],
        "entries": [entry], "advice": advise([entry], nothing.kind),
        "rows": [{"givens": row.givens, "log_evidence": row.log_evidence} for row in posterior.rows],
    }  # fmt: skip
