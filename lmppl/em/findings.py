"""What rounds have found: the log evidence of rows, whether it rises, and which round is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmppl.posterior import Posterior

Line = Mapping[str, Any]  # of one round


def line_of(number: int, found: Posterior, watched: Posterior) -> dict[str, Any]:
    """A round: found, the E-step's draws; watched, the run of rows held out."""
    evidence, standard_error = mean_evidence(watched)
    return {
        "round": number,
        "log_evidence": evidence,
        "error": standard_error,
        "training_log_evidence": mean_evidence(found)[0],
        "verdict": found.verdict,
        "seconds": found.cost["seconds"] + (0.0 if watched is found else watched.cost["seconds"]),
    }


def mean_evidence(posterior: Posterior) -> tuple[float | None, float | None]:
    """Mean log evidence a row, nats, and its standard error from the rows' own; None where a row
    has none.
    """
    values = [row.log_evidence for row in posterior.rows]
    errors = [row.log_evidence_se for row in posterior.rows]
    if any(value is None for value in values):
        return None, None
    mean = float(np.mean([value for value in values if value is not None]))
    if any(value is None for value in errors):
        return mean, None
    return mean, float(np.sqrt(np.sum([(value or 0.0) ** 2 for value in errors]))) / len(values)


def best_of(lines: Sequence[Line]) -> int:
    """The round with the largest log evidence, the first of them."""
    values = [-np.inf if line["log_evidence"] is None else line["log_evidence"] for line in lines]
    return int(np.argmax(values))


def rise(lines: Sequence[Line], number: int) -> tuple[float | None, float | None]:
    """By how much the log evidence of a round is above that of round 0, and the standard error of
    that.
    """
    first, other = lines[0], lines[number]
    if first["log_evidence"] is None or other["log_evidence"] is None:
        return None, None
    gain = other["log_evidence"] - first["log_evidence"]
    if first["error"] is None or other["error"] is None:
        return gain, None
    return gain, float(np.hypot(first["error"], other["error"]))


def finding(lines: Sequence[Line]) -> str:
    """One sentence: whether the log evidence has risen."""
    best = best_of(lines)
    if best == 0:
        return "The log evidence does not rise: the model is best as it was loaded."
    gain, doubt = rise(lines, best)
    if gain is None:
        return "The log evidence is not known in round 0, so nothing can be said of a rise."
    within = "" if doubt is None or gain > 2 * doubt else ", which is within its error"
    plus = "an unknown error" if doubt is None else f"{doubt:.3f}"
    rounds = f"{best} round{'s' if best > 1 else ''}"
    return f"The log evidence rises by {gain:.3f} ± {plus} nats a row in {rounds}{within}."


def told(line: Line) -> str:
    """A round in a line."""
    value = "unknown" if line["log_evidence"] is None else f"{line['log_evidence']:.3f}"
    doubt = "" if line["error"] is None else f" ± {line['error']:.3f}"
    return f"round {line['round']}: log evidence {value}{doubt} nats a row, {line['seconds']:.0f} s"
