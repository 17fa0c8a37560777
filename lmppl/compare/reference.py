"""What draws are held against: the exact posterior where it can be had, else a longer run of one
engine, called gold.

Gold is no truth: an engine that is wrong in gold's way looks right. Its title says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lmppl.diagnosis import Floats
from lmppl.posterior import Posterior, RowPosterior

Kind = Literal["exact", "gold", "none"]
Key = tuple[str | None, ...]  # strings of all latents; None: there is none

CERTIFIED = 0.05  # total variation that a search's posterior may be off by, to count as exact


@dataclass(frozen=True)
class Truth:
    """A reference for one data row. values and weights of M states, (M,) each."""

    log_evidence: float | None
    log_density: Floats
    lengths: Floats  # tokens of all latents together
    weights: Floats  # add up to 1
    law: Mapping[Key, float] | None = None  # probabilities of strings, where they are known exactly

    def moments(self) -> dict[str, tuple[float, float]]:
        """Mean and variance of the log density and of the length."""
        found = {}
        for name, values in (("log_density", self.log_density), ("length", self.lengths)):
            kept = self.weights > 0
            mean = float(self.weights[kept] @ values[kept])
            found[name] = (mean, float(self.weights[kept] @ (values[kept] - mean) ** 2))
        return found


@dataclass(frozen=True)
class Reference:
    """What a comparison is made against; one truth a data row, None where there is none."""

    kind: Kind
    title: str
    note: str
    truths: Sequence[Truth | None]
    place: Path | None = None  # its run


def nothing(rows: int, note: str) -> Reference:
    """No reference at all."""
    return Reference("none", "nothing", note, [None] * rows)


def exact(posterior: Posterior, place: Path) -> Reference | None:
    """The exact posterior; None where a search has left more than CERTIFIED of the mass
    unexplored.
    """
    off = max((row.diagnostics.total_variation_bound or 0.0 for row in posterior.rows), default=0.0)
    if off > CERTIFIED:
        return None
    searched = any(row.diagnostics.method == "best-first search" for row in posterior.rows)
    title = f"the exact posterior, by {'certified search' if searched else 'enumeration'}"
    note = (
        f"Its total variation from the posterior is at most {off:.3f}."
        if searched
        else "Every text that is possible was scored."
    )
    return Reference("exact", title, note, [_exact_row(row) for row in posterior.rows], place)


def _exact_row(row: RowPosterior) -> Truth | None:
    if row.support is None or row.log_evidence is None:
        return None
    shares = np.array([state.probability for state in row.support])
    with np.errstate(divide="ignore"):
        log_density = np.log(shares) + row.log_evidence
    lengths = np.array(
        [sum(map(len, state.tokens.values())) for state in row.support], dtype=np.float64
    )
    return Truth(row.log_evidence, log_density, lengths, shares / shares.sum(), row.joint())


def gold(posterior: Posterior, label: str, place: Path) -> Reference:
    """A longer run of one engine."""
    tokens = (posterior.cost["tokens_decoded"] + posterior.cost["tokens_scored"]) / max(
        len(posterior.rows), 1
    )
    title = f"a long run of {label}, called gold"
    note = (
        f"Gold took {tokens:,.0f} tokens a data row. It is a sampler as well, and no truth: an "
        f"engine that errs as "
        f"{label} does would not show."
    )
    return Reference("gold", title, note, [_gold_row(row) for row in posterior.rows], place)


def _gold_row(row: RowPosterior) -> Truth | None:
    if not row.draws or not row.draws[0].tokens or not row.weights.any():
        return None
    log_density = np.array([draw.log_density for draw in row.draws])
    lengths = np.array(
        [sum(map(len, draw.tokens.values())) for draw in row.draws], dtype=np.float64
    )
    return Truth(row.log_evidence, log_density, lengths, row.weights)
