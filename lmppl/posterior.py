"""Results: draws, evidence, support and predictions of every row, with what they cost.

Mass of a draw is proportional to exp(log_weight). Reports are by string: tokenisations of one string are
added up. `document` is the JSON form; it holds no NaN and no infinity, which become null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl.diagnose import Summary, summarise

Values = Mapping[str, str]


@dataclass(frozen=True)
class Draw:
    """One draw: texts and tokens of the latents, and densities in nats."""

    values: Values
    tokens: Mapping[str, Sequence[int]]
    log_density: float
    factors: Mapping[str, float]
    log_weight: float
    log_proposal: float | None
    chain: int
    draw: int


@dataclass(frozen=True)
class Supported:
    """One state of an exactly known posterior."""

    values: Values
    tokens: Mapping[str, Sequence[int]]
    probability: float


@dataclass(frozen=True)
class RowPosterior:
    """The posterior of one data row."""

    givens: Mapping[str, Any]
    draws: Sequence[Draw]
    log_evidence: float | None = None
    log_evidence_se: float | None = None
    support: Sequence[Supported] | None = None
    predictions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def weights(self) -> NDArray[np.float64]:
        """Normalised weights of the draws, (N,); all zero where every draw is impossible."""
        log_weights = np.array([draw.log_weight for draw in self.draws])
        if not np.isfinite(log_weights).any():
            return np.zeros(len(log_weights))
        weights = np.exp(log_weights - log_weights.max())
        return weights / weights.sum()

    def probabilities(self, *names: str) -> dict[tuple[str, ...], float]:
        """Probability of every combination of these latents' strings (all latents by default), largest first."""
        pairs: list[tuple[Values, float]]
        if self.support is not None:
            pairs = [(state.values, state.probability) for state in self.support]
        else:
            pairs = [(draw.values, float(w)) for draw, w in zip(self.draws, self.weights, strict=True)]
        mass: dict[tuple[str, ...], float] = {}
        for values, weight in pairs:
            key = tuple(values[name] for name in names or values)
            mass[key] = mass.get(key, 0.0) + weight
        return dict(sorted(mass.items(), key=lambda item: -item[1]))

    def summary(self) -> dict[str, Summary]:
        """Table of log density, each factor, and each latent's number of tokens."""
        if not self.draws or not self.weights.any():
            return {}
        statistics: dict[str, list[float]] = {"log density": [draw.log_density for draw in self.draws]}
        for name in self.draws[0].factors:
            statistics[name] = [draw.factors[name] for draw in self.draws]
        for name in self.draws[0].tokens:
            statistics[f"tokens({name})"] = [float(len(draw.tokens[name])) for draw in self.draws]
        shape = self._shape()
        weights = self.weights.reshape(shape)
        return {name: summarise(np.array(column).reshape(shape), weights) for name, column in statistics.items()}

    def _shape(self) -> tuple[int, int]:
        """(chains, draws) where every chain has equally many draws, else one chain of all."""
        chains = len({draw.chain for draw in self.draws})
        return (chains, len(self.draws) // chains) if len(self.draws) % chains == 0 else (1, len(self.draws))


@dataclass(frozen=True)
class Posterior:
    """Everything that a run found."""

    program: Mapping[str, Any]  # path, text, sha256
    engine: str
    seed: int
    models: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    rows: Sequence[RowPosterior]
    cost: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """JSON form: one value, with null where a number is not finite."""
        rows = [_row_document(row) for row in self.rows]
        top = {"program": self.program, "engine": self.engine, "seed": self.seed, "models": self.models}
        return finite({**top, "options": self.options, "rows": rows, "cost": self.cost})


def _row_document(row: RowPosterior) -> dict[str, Any]:
    document = {
        "givens": row.givens,
        "log_evidence": row.log_evidence,
        "log_evidence_se": row.log_evidence_se,
        "draws": [asdict(draw) for draw in row.draws],
        "predictions": row.predictions,
        "summary": row.summary(),
        "diagnostics": row.diagnostics,
        "warnings": list(row.warnings),
    }
    if row.support is not None:
        document["support"] = [asdict(state) for state in row.support]
    return document


def finite(value: Any) -> Any:
    """A copy with plain types only, and None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
