"""What is measured of one run: numbers a data row, averaged over rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmppl import ir
from lmppl.compare.measures import divergence, diversity, labels, overlap
from lmppl.compare.reference import Reference, Truth
from lmppl.diagnosis import ENTROPIES, Draw, Floats
from lmppl.engines import resample
from lmppl.posterior import Posterior, RowPosterior

SAMPLE = 100  # most equal-weight texts that diversity is measured on
ALIKE = 1e-3  # nats: log densities this close may be one text's, scored in batches of other shapes
FEW = 24  # of them where every pair is compared


@dataclass(frozen=True)
class Names:
    """Latents of a program, by kind, and what is derived and predicted."""

    texts: Sequence[str]
    choices: Sequence[str]
    derived: Sequence[str] = ()


def names_of(program: ir.Program) -> Names:
    """The latents of a program, by kind, and what is derived and predicted."""
    texts = [*dict.fromkeys(latent.shown for latent in program.texts)]
    derived = [one.name for one in program.derived if one.name in program.predictions]
    return Names(texts, [name for name in program.names if name not in texts], derived)


def measure(
    posterior: Posterior, reference: Reference, held_out: Sequence[Mapping[str, str]], names: Names
) -> dict[str, Any]:
    """Means over data rows, the verdict with what did not pass, and moments a chain, for
    `table.efficiency`.
    """
    rows = [
        {
            **_right(row, truth),
            **_uncertainty(row),
            **_text(row, names.texts),
            **_overlap(row, own, names.texts),
        }
        for row, truth, own in zip(posterior.rows, reference.truths, held_out, strict=True)
    ]
    return {
        "measures": {**_averages(rows), **_fit(posterior, held_out, names), **price(posterior)},
        "verdict": posterior.verdict,
        "findings": _findings(posterior),
        "moments": [_moments(row) for row in posterior.rows],
    }


def price(posterior: Posterior) -> dict[str, float]:
    """What a run has cost a data row."""
    rows = max(len(posterior.rows), 1)
    costs = {
        name: posterior.cost[name] / rows for name in ("tokens_decoded", "tokens_scored", "seconds")
    }
    return {**costs, "draws": sum(len(row.draws) for row in posterior.rows) / rows}


def _averages(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Means of what rows have; infinite where one of them is."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        known = [value for row in rows if (value := row.get(name)) is not None]
        found[name] = float(np.mean(known)) if known else None
    return found


def _findings(posterior: Posterior) -> list[str]:
    """One line a check that did not pass in some row, the worst first, with how many rows it is
    about.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for row in posterior.rows:
        for check in row.checks:
            if check.status != "pass":
                found.setdefault((check.status, check.name), []).append(check.message)
    several = len(posterior.rows) > 1
    return [
        (
            f"{status} "
            f"{name}{f' ({len(messages)} of {len(posterior.rows)} rows)' if several else ''}: "
            f"{messages[0]}"
        )
        for (status, name), messages in sorted(found.items())
    ]


# --- is it right? ---------------------------------------------------------------------------------


def _right(row: RowPosterior, truth: Truth | None) -> dict[str, float | None]:
    if not row.draws:
        return {}
    mass = _mass(row)
    possible = np.array([math.isfinite(draw.log_density) for draw in row.draws])
    found: dict[str, float | None] = {
        "log_evidence": row.log_evidence,
        "satisfied": float(mass @ possible),
    }
    if truth is None:
        return found
    if truth.law is not None:
        law = row.joint()
        found["total_variation"] = divergence.total_variation(law, truth.law)
        found["divergence"] = divergence.kullback_leibler(law, truth.law)
    if row.support is not None:
        found["kolmogorov"] = 0.0  # it is the reference itself, or as good
    elif (mass * possible).any():
        values = np.array([draw.log_density for draw in row.draws])
        found["kolmogorov"] = divergence.kolmogorov_smirnov(
            values, mass, truth.log_density, truth.weights, ALIKE
        )
    found["proposal_divergence"] = _proposal_divergence(row, truth)
    return found


def _mass(row: RowPosterior) -> Floats:
    """Weights of the draws; equal ones where all are impossible."""
    return row.weights if row.weights.any() else np.full(len(row.draws), 1 / len(row.draws))


def _proposal_divergence(row: RowPosterior, truth: Truth) -> float | None:
    """Mean of log q − log γ over draws from q, plus the log evidence.

    q is renormalised over what is possible: how often it misses that shows in the share of possible
    draws.
    """
    if truth.log_evidence is None or any(draw.log_proposal is None for draw in row.draws):
        return None
    gaps = [
        (draw.log_proposal or 0.0) - draw.log_density
        for draw in row.draws
        if math.isfinite(draw.log_density)
    ]
    if not gaps:
        return None
    return float(np.mean(gaps)) - math.log(len(gaps) / len(row.draws)) + truth.log_evidence


def _uncertainty(row: RowPosterior) -> dict[str, float | None]:
    """Of the first thing that is predicted: the largest error of a probability, and the entropy
    with its split. Of the first statistic, its slope in the power.
    """
    slope = next((found.value for found in row.slopes.values()), None)
    return {**_predicted(row), "slope": slope}


def _predicted(row: RowPosterior) -> dict[str, float | None]:
    for found in row.predictions.values():
        errors = [error for error in found.errors.values() if error is not None]
        entropies = {name: getattr(found, name) for name in ENTROPIES}
        return {
            "prediction_error": max(errors, default=None),
            **{name: None if one is None else one.value for name, one in entropies.items()},
        }
    return {}


# --- the text -------------------------------------------------------------------------------------


def _text(row: RowPosterior, texts: Sequence[str]) -> dict[str, float | None]:
    if not row.draws:
        return {}
    mass = _mass(row)
    finite = [
        (share, draw)
        for share, draw in zip(mass, row.draws, strict=True)
        if math.isfinite(draw.log_density)
    ]
    found: dict[str, float | None] = {
        "length": float(
            sum(share * _length(draw) for share, draw in zip(mass, row.draws, strict=True))
        ),
        "distinct_texts": float(
            len({tuple(d.values.values()) for m, d in zip(mass, row.draws, strict=True) if m > 0})
        ),
    }
    if finite:
        total = sum(share for share, _ in finite)
        found["log_density"] = (
            float(sum(share * draw.log_density for share, draw in finite)) / total
            if total
            else None
        )
        found["best"] = max(draw.log_density for _, draw in finite)
        if total and any(name.startswith("observe ") for name in finite[0][1].factors):
            found["log_observed"] = (
                float(sum(share * _log_observed(draw) for share, draw in finite)) / total
            )
    if names := [name for name in texts if name in row.draws[0].values]:
        draws = _equal(row, min(SAMPLE, len(row.draws)))
        sample = [_joined(draw, names) for draw in draws]
        found["distinct_2"] = diversity.distinct(sample, 2)
        found["self_bleu"] = diversity.self_bleu(sample[:: max(1, len(sample) // FEW)][:FEW])
        found["embedding_distance"] = diversity.embedding_distance(sample)
    return found


def _joined(draw: Draw, names: Sequence[str]) -> str:
    """Values of some latents, side by side."""
    return " ".join(draw.values[name] or "" for name in names)


def _log_observed(draw: Draw) -> float:
    """Log probability of everything that is observed, given the latents."""
    return sum(value for name, value in draw.factors.items() if name.startswith("observe "))


def _length(draw: Any) -> int:
    return sum(map(len, draw.tokens.values()))


def _equal(row: RowPosterior, count: int) -> list[Any]:
    """`count` draws of equal weight, systematically."""
    log_weights = np.array([draw.log_weight for draw in row.draws])
    if not np.isfinite(log_weights).any():
        return list(row.draws)[:count]
    return [row.draws[i] for i in resample(log_weights, count, 0.5)]


# --- what was held out ----------------------------------------------------------------------------


def _overlap(
    row: RowPosterior, own: Mapping[str, str], texts: Sequence[str]
) -> dict[str, float | None]:
    """Overlap with held-out texts, the mean over equal-weight draws."""
    names = [name for name in texts if name in own]
    if not names or not row.draws:
        return {}
    pairs = [(draw.values[name] or "", own[name]) for draw in _equal(row, FEW) for name in names]
    return {
        "bleu": float(np.mean([overlap.bleu(text, [other]) for text, other in pairs])),
        "gleu": float(np.mean([overlap.gleu(text, [other]) for text, other in pairs])),
        "bert_score": overlap.bert_score(*zip(*pairs, strict=True)),
    }


def _fit(
    posterior: Posterior, held_out: Sequence[Mapping[str, str]], names: Names
) -> dict[str, float | None]:
    """How predictions fit what is held out: labels of the first choice, else values of the first
    that is derived, else texts of the first predicted text.
    """
    pairs = list(zip(posterior.rows, held_out, strict=True))
    for name in names.choices:
        if known := [(_law(row, name), own[name]) for row, own in pairs if name in own]:
            laws, own = zip(*known, strict=True)
            return {
                "accuracy": labels.accuracy(laws, own),
                "one_draw": labels.one_draw(laws, own),
                "log_loss": labels.log_loss(laws, own),
                "brier": labels.brier(laws, own),
                "calibration_error": labels.calibration_error(laws, own),
            }
    for name in names.derived:
        if known := [(_answers(row, name), own[name]) for row, own in pairs if name in own]:
            laws, own = zip(*known, strict=True)
            return {  # a value that no draw has is not impossible: there is no log loss
                "accuracy": labels.accuracy(laws, own),
                "one_draw": labels.one_draw(laws, own),
                "brier": labels.brier(laws, own),
                "calibration_error": labels.calibration_error(laws, own),
            }
    for name in names.texts:
        if not any(name in row.predictions for row in posterior.rows):
            continue  # nobody asks what such a text is as a whole
        if known := [
            (row.predictions.get(name, {}), own[name]) for row, own in pairs if name in own
        ]:
            laws, own = [_stripped(law) for law, _ in known], [text.strip() for _, text in known]
            return {"accuracy": labels.accuracy(laws, own), "one_draw": labels.one_draw(laws, own)}
    return {}


def _answers(row: RowPosterior, name: str) -> Mapping[str | None, float]:
    """The law of a derived value; None, that there is none, is an answer as others are."""
    found = row.predictions.get(name)
    return {None: 1.0} if found is None else {one: share.value for one, share in found.outcomes}


def _law(row: RowPosterior, name: str) -> Mapping[str, float]:
    return row.predictions.get(name) or row.probabilities(name)


def _stripped(law: Mapping[str, float]) -> dict[str, float]:
    """A law over texts, white space at their borders left out."""
    found: dict[str, float] = {}
    for text, share in law.items():
        found[text.strip()] = found.get(text.strip(), 0.0) + share
    return found


# --- moments --------------------------------------------------------------------------------------


def _moments(row: RowPosterior) -> dict[str, Any]:
    """Weighted means of the log density and the length, a chain; None for chains without mass."""
    found: dict[str, list[float | None]] = {"log_density": [], "length": []}
    variances = {"log_density": 0.0, "length": 0.0}
    if not row.draws:
        return {"means": found, "variances": variances}
    mass, chains = _mass(row), np.array([draw.chain for draw in row.draws])
    columns = {
        "log_density": np.array([draw.log_density for draw in row.draws]),
        "length": np.array([float(_length(draw)) for draw in row.draws]),
    }
    usable = (mass > 0) & np.isfinite(columns["log_density"])
    for name, values in columns.items():
        for chain in np.unique(chains):
            kept = usable & (chains == chain)
            found[name].append(
                float(np.average(values[kept], weights=mass[kept])) if kept.any() else None
            )
        if usable.any():
            mean = np.average(values[usable], weights=mass[usable])
            variances[name] = float(np.average((values[usable] - mean) ** 2, weights=mass[usable]))
    return {"means": found, "variances": variances}
