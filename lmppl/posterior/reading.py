"""Rows and draws by their documents, as they were; what earlier versions have not written is left
out, or found anew.
"""

from __future__ import annotations

from lmppl.diagnosis import (
    Check,
    Draw,
    Estimate,
    Prediction,
    diagnose,
    diagnostics_of,
    infinities,
    prediction_of,
)
from lmppl.engines import traits
from lmppl.posterior.result import RowPosterior, Supported
from lmppl.shapes import Document


def row_of(row: Document, draws: list[Draw], engine: str) -> RowPosterior:
    """The posterior of a row by its document and its draws."""
    support = row.get("support")
    reported = dict(row["diagnostics"])
    saved = reported.pop("checks", None)
    diagnostics = diagnostics_of(reported)
    checks = (
        diagnose(draws, diagnostics, traits(engine)).checks
        if saved is None
        else [Check(**check) for check in saved]
    )
    return RowPosterior(
        row["givens"],
        draws,
        row["log_evidence"],
        row["log_evidence_se"],
        None if support is None else [_supported(state) for state in support],
        _predictions(row),
        row.get("prior", {}),
        diagnostics,
        row["warnings"],
        checks,
        {name: Estimate.of(slope) for name, slope in row.get("slopes", {}).items()},
    )


def _predictions(row: Document) -> dict[str, Prediction]:
    """What is predicted; runs of earlier versions say nothing of how sure it is."""
    known = row.get("uncertainty", {})
    return {
        name: prediction_of(law, known.get(name, {})) for name, law in row["predictions"].items()
    }


def _supported(entry: Document) -> Supported:
    """A state of the support; runs of earlier versions have no densities of it."""
    factors = {name: _or_impossible(value) for name, value in entry.get("factors", {}).items()}
    return Supported(
        **{**entry, "factors": factors, "statistics": infinities(entry.get("statistics", {}))}
    )


def draw_of(entry: Document) -> Draw:
    """A draw; one that is impossible has density -inf again."""
    factors = {name: _or_impossible(value) for name, value in entry["factors"].items()}
    restored = {name: _or_impossible(entry[name]) for name in ("log_density", "log_weight")}
    statistics = infinities(entry.get("statistics", {}))
    return Draw(**{**entry, **restored, "factors": factors, "statistics": statistics})


def _or_impossible(value: float | None) -> float:
    return float("-inf") if value is None else value
