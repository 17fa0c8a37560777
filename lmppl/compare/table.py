"""From runs under several seeds to one line of the table: means with intervals, and what a run's
draws are worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmppl.compare.columns import COLUMNS
from lmppl.compare.reference import Truth
from lmppl.diagnosis import worst
from lmppl.engines import student_reach

Interval = dict[str, float | None]
Found = Mapping[str, Any]  # what measure.measure gives


def interval(values: Sequence[float | None]) -> Interval:
    """Mean over seeds, and Student's interval for it where there are two or more."""
    known = [value for value in values if value is not None]
    if not known or not all(map(math.isfinite, known)):
        return {"mean": None, "low": None, "high": None}
    mean = float(np.mean(known))
    if len(known) < 2:
        return {"mean": mean, "low": None, "high": None}
    _, reach = student_reach(np.array(known))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def intervals(runs: Sequence[Found]) -> dict[str, Interval]:
    """Every measure's mean and interval over seeds, cut to the values that it can have."""
    names = dict.fromkeys(name for run in runs for name in run["measures"])
    return {name: _cut(_interval_of(name, runs), name) for name in names}


def _interval_of(name: str, runs: Sequence[Found]) -> Interval:
    return interval([run["measures"].get(name) for run in runs])


def _cut(found: Interval, name: str) -> Interval:
    column = next((column for column in COLUMNS if column.key == name), None)
    if column is None or found["low"] is None or found["high"] is None:
        return found
    low = found["low"] if column.least is None else max(found["low"], column.least)
    high = found["high"] if column.most is None else min(found["high"], column.most)
    return {"mean": found["mean"], "low": low, "high": high}


def verdict(runs: Sequence[Found]) -> tuple[str, list[str]]:
    """The verdict that most runs share, the worse of two that tie; and what one such run found.

    One unlucky seed of many is no verdict on an engine; that it happened shows in the findings.
    """
    given = [run["verdict"] for run in runs]
    shared = [
        one for one in ("pass", "warn", "fail") if given.count(one) == max(map(given.count, given))
    ]
    chosen = worst(shared)  # type: ignore[arg-type]
    findings = next(run["findings"] for run in runs if run["verdict"] == chosen)
    others = [one for one in ("warn", "fail") if one in given and one != chosen]
    extra = [f"{given.count(one)} of {len(given)} runs: {one}" for one in others]
    return chosen, [*findings, *extra]


def efficiency(runs: Sequence[Found], truths: Sequence[Truth | None]) -> float | None:
    """Independent posterior draws that a run is worth, for 1,000 tokens: the least over statistics,
    a mean over rows.

    Chains of all runs are replicates. A statistic's squared error about the reference's mean, σ² /
    error, says how many independent draws do as well as one chain; bias counts. Without a
    reference, the replicates' own mean and variance.
    """
    tokens = np.mean(
        [run["measures"]["tokens_decoded"] + run["measures"]["tokens_scored"] for run in runs]
    )
    moments = zip(*(run["moments"] for run in runs), strict=True)  # by row
    rows = [_worth(own, truth) for own, truth in zip(moments, truths, strict=True)]
    known = [value for value in rows if value is not None]
    if not known or not tokens:
        return None
    most = float(np.mean([run["measures"]["draws"] for run in runs]))
    return 1000 * min(float(np.mean(known)), most) / float(tokens)


def _worth(moments: Sequence[Mapping[str, Any]], truth: Truth | None) -> float | None:
    known = truth.moments() if truth is not None else None
    found = []
    for name in ("log_density", "length"):
        means = [mean for moment in moments for mean in moment["means"][name] if mean is not None]
        chains = np.mean([len(moment["means"][name]) for moment in moments])
        if len(means) < 2:
            return None
        centre, variance = (
            known[name]
            if known
            else (np.mean(means), np.mean([m["variances"][name] for m in moments]))
        )
        loss = 0 if known else 1  # degree of freedom that the replicates' own mean takes
        error = float(((np.array(means) - centre) ** 2).sum() / (len(means) - loss))
        if variance > 0:
            found.append(math.inf if error == 0 else chains * variance / error)
    return min(found, default=math.inf)
