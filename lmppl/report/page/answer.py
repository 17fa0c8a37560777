"""What a run answers, as HTML without scripts: masses or the matrix, what is predicted, evidence,
and the verdict.

The page of a run begins with it, and notebooks show it. Texts of models and data are escaped by the
template, and characters without a shape are written as escapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lmppl.diagnosis import Check, Prediction
from lmppl.posterior import (
    Posterior,
    RowPosterior,
    evidence_interval,
    legible,
    likeliest,
    matrix,
    statistics,
    steep,
    told,
)
from lmppl.report.page.environment import environment, text_of
from lmppl.screen import visible

MOST_ROWS = 20  # data rows that are shown, each with its texts
MOST_LINES = 200  # of a matrix
MOST_TEXTS = 10  # a row


@dataclass(frozen=True)
class Mass:
    """A combination of texts, its mass, and its prior where that is known."""

    texts: tuple[str | None, ...]
    mass: float
    prior: float | None


@dataclass(frozen=True)
class Predicted:
    """What is predicted of a latent: options or texts with their probabilities, in words, and how
    uncertain the answer is.
    """

    name: str
    options: tuple[tuple[str | None, str], ...]
    hidden: int  # options that are not listed
    told: str


@dataclass(frozen=True)
class RowAnswer:
    """What is known of one data row."""

    number: int
    row: RowPosterior
    names: tuple[str, ...]
    masses: tuple[Mass, ...]
    hidden: int  # texts that are not listed
    predictions: tuple[Predicted, ...]
    statistics: Mapping[str, Mapping[str, float | None]]
    slopes: Mapping[str, str]  # in words
    interval: tuple[float | None, float] | None  # of the log evidence


@dataclass(frozen=True)
class Finding:
    """A check that did not pass, or a warning, and the rows that have it."""

    status: str
    name: str
    message: str
    rows: tuple[int, ...]


def answer_html(posterior: Posterior, style: bool = True) -> str:
    """The answer as a fragment of HTML. style: with the rules that it needs where no page has
    them.
    """
    template = environment().get_template("answer.html.jinja")
    return template.render(
        answer=answer(posterior), style=Markup(text_of("answer.css")) if style else None
    )


def answer(posterior: Posterior) -> dict[str, Any]:
    """What the template of the answer reads."""
    found = matrix(posterior)
    return {
        "posterior": posterior,
        "matrix": found,
        "heads": legible(list(found.options)) if found else [],
        "told": found.told if found else [],
        "most_lines": MOST_LINES,
        "rows": []
        if found
        else [_row(n, row) for n, row in enumerate(posterior.rows[:MOST_ROWS], 1)],
        "findings": findings(posterior),
    }


def findings(posterior: Posterior) -> list[Finding]:
    """What did not pass and what was warned of, failures first; what several rows share stands
    once.
    """
    found: dict[tuple[str, str, str], list[int]] = {}
    for number, row in enumerate(posterior.rows, 1):
        for check in row.checks:
            if check.status != "pass":
                found.setdefault(_key(check), []).append(number)
        for warning in row.warnings:
            found.setdefault(("warning", "", visible(warning)), []).append(number)
    listed = [Finding(*key, rows=tuple(rows)) for key, rows in found.items()]
    return sorted(listed, key=lambda finding: ("fail", "warn", "warning").index(finding.status))


def _key(check: Check) -> tuple[str, str, str]:
    return (check.status, check.name, visible(check.message))


def _row(number: int, row: RowPosterior) -> RowAnswer:
    names = tuple(row.draws[0].values) if row.draws else ()
    law = row.joint() if names else {}
    prior = row.prior.get(names[0], {}) if len(names) == 1 else {}
    shown = [
        Mass(texts, mass, prior.get(texts[0] or ""))
        for texts, mass in list(law.items())[:MOST_TEXTS]
    ]
    found = statistics(row)
    return RowAnswer(
        number,
        row,
        names,
        tuple(shown),
        len(law) - len(shown),
        tuple(_predicted(name, found) for name, found in row.predictions.items()),
        found,
        {name: steep(row, name) for name in found},
        evidence_interval(row),
    )


def _predicted(name: str, found: Prediction) -> Predicted:
    options = tuple(likeliest(found, MOST_TEXTS))
    return Predicted(name, options, len(found.outcomes) - len(options), told(found))
