"""What a page shows of one data row: densities, traces, ranks, lineages, texts; of one engine or of
several.

Everything is thinned to what can be seen: histograms in place of draws, a few hundred points a
trace, the heaviest texts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from lmppl.diagnosis import Floats, chain_shape
from lmppl.posterior import Posterior, RowPosterior

BINS = 30
POINTS = 150  # a chain's trace
RANK_BINS = 20
REFERENCE = "(reference)"


def row_document(
    row: Mapping[str, Any],
    found: Mapping[str, RowPosterior],
    texts: Sequence[Mapping[str, Any]] | None,
    reference: Posterior | None,
    number: int,
) -> dict[str, Any]:
    """A row with plots and texts of what each engine found, and of the reference. texts: None where
    none are kept.
    """
    truth = None if reference is None else reference.rows[number]
    laws = {label: one.joint() for label, one in found.items() if one.draws}
    texts = texts if texts is not None else plain_texts(found)
    shown = {tuple(text["values"].values()) for text in texts}
    chains = {label: one for label, one in found.items() if is_chain(one)}
    lineages = {label: one.diagnostics.lineages for label, one in found.items()}
    return {
        **row,
        "densities": densities({**found, **({} if truth is None else {REFERENCE: truth})}),
        "traces": _each(chains, traces),
        "ranks": _each(chains, ranks),
        "lineages": {label: lines for label, lines in lineages.items() if lines},
        "texts": texts_of(texts, laws, truth),
        "hidden": {label: hidden(law, shown) for label, law in laws.items()},
    }


def _each(found: Mapping[str, RowPosterior], make: Callable[[RowPosterior], Any]) -> dict[str, Any]:
    return {label: make(one) for label, one in found.items()}


def densities(found: Mapping[str, RowPosterior]) -> dict[str, list[list[float]]]:
    """Weighted histograms of the log density on common bins: [left, right, mass]."""
    columns = {label: _column(one) for label, one in found.items()}
    known = {label: (values, mass) for label, (values, mass) in columns.items() if len(values)}
    if not known:
        return {}
    ends = [np.quantile(values, [0.005, 1]) for values, _ in known.values()]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    found_by_label = {}
    for label, (values, mass) in known.items():
        shares, _ = np.histogram(values.clip(low, high), edges, weights=mass)
        bins = np.stack([edges[:-1], edges[1:], shares], axis=1)
        found_by_label[label] = bins.tolist()
    return found_by_label


def _column(row: RowPosterior) -> tuple[Floats, Floats]:
    """Log densities of possible draws, and their mass."""
    if row.support is not None and row.log_evidence is not None:
        shares = np.array([state.probability for state in row.support])
        return np.log(shares) + row.log_evidence, shares / shares.sum()
    values = np.array([draw.log_density for draw in row.draws])
    mass = row.weights
    kept = np.isfinite(values) & (mass > 0) if len(values) else np.zeros(0, dtype=bool)
    return values[kept], mass[kept]


def is_chain(row: RowPosterior) -> bool:
    """Whether draws are steps of chains."""
    return row.diagnostics.fresh_starts is not None


def _by_chain(row: RowPosterior) -> Floats:
    """(chains, draws) log densities."""
    ordered = sorted(row.draws, key=lambda draw: (draw.chain, draw.draw))
    return np.array([draw.log_density for draw in ordered]).reshape(chain_shape(row.draws))


def traces(row: RowPosterior) -> list[list[list[float]]]:
    """[draw, log density] of each chain, thinned."""
    values = _by_chain(row)
    step = max(1, -(-values.shape[1] // POINTS))
    places = range(0, values.shape[1], step)
    found = []
    for chain in values:
        found.append([[i, round(float(chain[i]), 3)] for i in places])
    return found


def ranks(row: RowPosterior) -> list[list[int]]:
    """Histograms of each chain's ranks among all draws (Vehtari et al. 2021); ties share their mean
    rank.
    """
    from scipy.stats import rankdata

    values = _by_chain(row)
    ranks = rankdata(values, axis=None).reshape(values.shape) - 0.5
    edges = np.linspace(0, values.size, min(RANK_BINS, values.size) + 1)
    return [np.histogram(chain, edges)[0].tolist() for chain in ranks]


# --- texts ----------------------------------------------------------------------------------------


def plain_texts(found: Mapping[str, RowPosterior]) -> list[dict[str, Any]]:
    """Texts of a folder that has no log probabilities token by token."""
    from lmppl.compare import chosen

    return [
        {
            "values": draw.values,
            "log_density": draw.log_density,
            "factors": draw.factors,
            "tokens": None,
        }
        for draw in chosen(found).values()
        if draw.values
    ]


def texts_of(
    texts: Sequence[Mapping[str, Any]],
    laws: Mapping[str, Mapping[tuple[str | None, ...], float]],
    truth: RowPosterior | None,
) -> list[dict[str, Any]]:
    """Texts with their mass by engine, and the reference's where that is known."""
    law = {} if truth is None or truth.support is None else truth.joint()
    found = []
    for text in texts:
        key = tuple(text["values"].values())
        mass = {label: own[key] for label, own in laws.items() if own.get(key, 0) > 0}
        found.append({**text, "mass": mass, "reference": law.get(key) if law else None})
    return found


def hidden(
    law: Mapping[tuple[str | None, ...], float], shown: Collection[tuple[str | None, ...]]
) -> dict[str, float]:
    """What is not listed: number of texts, and their mass."""
    rest = [share for key, share in law.items() if share > 0 and key not in shown]
    return {"texts": len(rest), "mass": float(sum(rest))}
