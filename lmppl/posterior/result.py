"""Results: draws, evidence, support, predictions and checks of every row, with what they cost.

Mass of a draw is proportional to exp(log_weight). Reports are by string: tokenisations of one
string are added up. `document` is the JSON form; it holds no NaN and no infinity, which become
null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lmppl.diagnosis import (
    Check,
    Derived,
    Diagnostics,
    Draw,
    Estimate,
    Floats,
    Prediction,
    Status,
    Summary,
    Values,
    chain_shape,
    columns,
    document,
    normalised_weights,
    summarise,
    summarise_law,
    worst,
)
from lmppl.screen import quoted

Texts = tuple[str | None, ...]  # of several latents; None: the latent is not there
PLAIN, SEVERAL = (str, int, bool), (list, tuple)
MOST_MASSES = 100  # texts of a row that its document lists


@dataclass(frozen=True)
class Supported:
    """One state of an exactly known posterior. Runs of earlier versions kept no densities of it."""

    values: Values
    tokens: Mapping[str, Sequence[int]]
    probability: float
    log_density: float | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    statistics: Mapping[str, float] = field(default_factory=dict)
    derived: Derived = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return document(vars(self))


@dataclass(frozen=True, repr=False)
class RowPosterior:
    """The posterior of one data row."""

    givens: Mapping[str, Any]
    draws: Sequence[Draw]
    log_evidence: float | None = None
    log_evidence_se: float | None = None
    support: Sequence[Supported] | None = None
    predictions: Mapping[str, Prediction] = field(default_factory=dict)
    prior: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict
    )  # of choices, before any evidence
    diagnostics: Diagnostics = Diagnostics()  # noqa: RUF009  a frozen value
    warnings: Sequence[str] = ()
    checks: Sequence[Check] = ()
    # of declared statistics: how their means move in a power of the whole density
    slopes: Mapping[str, Estimate] = field(default_factory=dict)

    def __repr__(self) -> str:
        """In a line: how many draws, the likeliest texts, the verdict."""
        likely = ""
        for texts, mass in list(self.joint().items() if self.latents else ())[:1]:
            likely = f", likeliest {_short(', '.join(map(quoted, texts)))} ({mass:.3f})"
        return f"<RowPosterior: {len(self.draws)} draws{likely}, verdict {self.verdict}>"

    @property
    def verdict(self) -> Status:
        """The worst status of the checks; "pass" where none applies."""
        return worst(check.status for check in self.checks)

    @property
    def weights(self) -> Floats:
        """Normalised weights of the draws, (N,); all zero where every draw is impossible."""
        return normalised_weights(self.draws)

    def probabilities(self, *names: str) -> dict[Any, float]:
        """Probability of every text of a latent, or of a derived value, largest first; of several,
        of every tuple of texts. None is that there is none.

        names: of latents and of derived values; by default all latents that this row does not
        observe. Raises KeyError for another name.
        """
        known = self.latents
        for name in names:
            if name not in (*known, *self.derived):
                raise KeyError(
                    f"no latent {name!r} was drawn for this row; there is "
                    f"{', '.join((*known, *self.derived)) or 'none'}"
                )
        joint = self.joint(*names)
        return (
            joint if len(names or known) != 1 else {key[0]: share for key, share in joint.items()}
        )

    @property
    def latents(self) -> tuple[str, ...]:
        """Names of what was drawn."""
        first = next(iter(self.draws or self.support or ()), None)
        return tuple(first.values) if first is not None else ()

    @property
    def derived(self) -> tuple[str, ...]:
        """Names of what was derived from what was drawn."""
        first = next(iter(self.draws or self.support or ()), None)
        return tuple(first.derived) if first is not None else ()

    def __getitem__(self, name: str) -> dict[str | None, float]:
        """Probability of every text of one latent or derived value, largest first; None is that it
        is not there.
        """
        return self.probabilities(name)

    def joint(self, *names: str) -> dict[Texts, float]:
        """Probability of every combination of texts of these latents or derived values (all latents
        by default), largest first; None stands for one that is not there.
        """
        pairs: list[tuple[Supported | Draw, float]]
        if self.support is not None:
            pairs = [(state, state.probability) for state in self.support]
        else:
            pairs = [(draw, float(w)) for draw, w in zip(self.draws, self.weights, strict=True)]
        mass: dict[Texts, float] = {}
        for state, weight in pairs:
            texts = {**state.values, **state.derived}
            key = tuple(texts[name] for name in names or state.values)
            mass[key] = mass.get(key, 0.0) + weight
        return dict(sorted(mass.items(), key=lambda item: -item[1]))

    def summary(self) -> dict[str, Summary]:
        """Table of log density, each factor, each latent's number of tokens, and declared
        statistics.
        """
        if self.support and all(state.log_density is not None for state in self.support):
            return _summary_of_law(self.support)
        if not self.draws or not self.weights.any():
            return {}
        weights = self.weights.reshape(chain_shape(self.draws))
        return {name: summarise(column, weights) for name, column in columns(self.draws).items()}


@dataclass(frozen=True)
class Interruption:
    """Why a run ended early, and how many of its rows were done."""

    reason: str  # "interrupted", or the error's message
    done: int
    rows: int

    def __str__(self) -> str:
        return f"cut short: {self.done} of {self.rows} row{'s' if self.rows > 1 else ''} done"


@dataclass(frozen=True, repr=False)
class Result:
    """Everything that a run found."""

    program: Mapping[str, Any]  # path, text, sha256
    engine: str
    seed: int
    models: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Any]
    rows: Sequence[RowPosterior]
    cost: Mapping[str, float]
    # rows are those done; the last may have fewer draws than were asked for
    interrupted: Interruption | None = None
    made_from: Mapping[str, Any] = field(
        default_factory=dict
    )  # besides program and models, by content

    def __repr__(self) -> str:
        """In a line: the program, what ran, the verdict."""
        rows = f"{len(self.rows)} row{'' if len(self.rows) == 1 else 's'}"
        draws = sum(len(row.draws) for row in self.rows)
        cut = f", {self.interrupted}" if self.interrupted else ""
        name = Path(str(self.program["path"])).name
        return (
            f"<Posterior of {name}: {rows}, {draws:,} draws by {self.engine}, verdict "
            f"{self.verdict}{cut}>"
        )

    def __getitem__(self, name: str) -> dict[str | None, float] | list[dict[str | None, float]]:
        """Probability of every text of a latent, largest first: of the one row; of several rows, a
        list with one a row.

        A row that observes the latent has all mass on its text. Raises KeyError for a name that is
        no latent.
        """
        laws = [self._law(row, name) for row in self.rows]
        return laws[0] if len(laws) == 1 else laws

    def _law(self, row: RowPosterior, name: str) -> dict[str | None, float]:
        latent = any(name in other.latents for other in self.rows)
        if name in row.givens and latent and name not in row.latents:
            return {str(row.givens[name]): 1.0}
        return row.probabilities(name)

    @property
    def verdict(self) -> Status:
        """The worst row's."""
        return worst(verdicts(self.rows))

    def document(self, draws: bool = False) -> dict[str, Any]:
        """JSON form: one value, with null where a number is not finite. draws: with every draw of
        every row.
        """
        rows = [row_document(row, draws) for row in self.rows]
        return {**self.about(), "rows": rows}

    def about(self) -> dict[str, Any]:
        """JSON form of all but the rows, whose list is empty there."""
        top: dict[str, Any] = {
            "program": self.program,
            "engine": self.engine,
            "seed": self.seed,
            "models": self.models,
        }
        if (cut := self.interrupted) is not None:
            top |= {
                "interrupted": True,
                "reason": cut.reason,
                "rows_done": cut.done,
                "rows_asked": cut.rows,
            }
        if self.made_from:
            top["made_from"] = self.made_from
        bottom = {"options": self.options, "verdict": self.verdict, "rows": [], "cost": self.cost}
        return finite({**top, **bottom})


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def verdicts(rows: Sequence[RowPosterior]) -> Sequence[Status]:
    """One a row; of rows on disk, none is read for that."""
    kept = getattr(rows, "verdicts", None)
    return [row.verdict for row in rows] if kept is None else kept


def row_document(row: RowPosterior, draws: bool = False) -> dict[str, Any]:
    """JSON form of a row, with null where a number is not finite. draws: with every draw."""
    document = {
        "givens": row.givens,
        "log_evidence": row.log_evidence,
        "log_evidence_se": row.log_evidence_se,
        **({"draws": [draw.document() for draw in row.draws]} if draws else {}),
        "predictions": row.predictions,
        "uncertainty": _documents(row.predictions),
        "slopes": _documents(row.slopes),
        "summary": row.summary(),
        "diagnostics": {
            **row.diagnostics.document(),
            "checks": [vars(check) for check in row.checks],
        },
        "verdict": row.verdict,
        "warnings": list(row.warnings),
    }
    if row.support is not None:
        document["support"] = [state.document() for state in row.support]
    else:
        document["masses"] = _masses(row)
    if row.prior:
        document["prior"] = row.prior
    return finite(document)


def _documents(found: Mapping[str, Prediction] | Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: one.document() for name, one in found.items()}


def _masses(row: RowPosterior) -> list[dict[str, Any]]:
    """The heaviest texts of a row and their mass, tokenisations of one string added up."""
    names = list(row.draws[0].values) if row.draws else []
    heaviest = list(row.joint().items())[:MOST_MASSES] if names else []
    return [
        {"values": dict(zip(names, texts, strict=True)), "mass": mass} for texts, mass in heaviest
    ]


def _summary_of_law(support: Sequence[Supported]) -> dict[str, Summary]:
    """The table of a law that is known: no draw is needed for it."""
    states = [
        Draw(s.values, s.tokens, s.log_density or 0.0, s.factors, 0.0, None, 0, place, s.statistics)
        for place, s in enumerate(support)
    ]
    mass = np.array([state.probability for state in support])
    return {name: summarise_law(column.ravel(), mass) for name, column in columns(states).items()}


def finite(value: Any) -> Any:
    """A copy with plain types only, and None in place of every number that is not finite."""
    if (
        value is None or type(value) in PLAIN
    ):  # most values are; asking for abstract types takes much longer
        return value
    if type(value) is float:
        return value if math.isfinite(value) else None
    if type(value) is dict or isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, SEVERAL):
        return [finite(entry) for entry in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
