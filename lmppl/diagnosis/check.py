"""One check: a number held against its levels, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lmppl.diagnosis.levels import Levels, Status


@dataclass(frozen=True)
class Check:
    """What one check found. value and threshold are None where there is no (finite) number."""

    name: str
    status: Status
    value: float | None
    threshold: float | None  # the one crossed; where passed, the one to keep
    message: str  # what was found and what to do; empty where passed


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of some statuses; "pass" where there are none."""
    found = set(statuses)
    return "fail" if "fail" in found else "warn" if "warn" in found else "pass"


def above(name: str, value: float, levels: Levels, message: str) -> Check:
    """A check of a number that should be small."""
    if levels.fail is not None and value > levels.fail:
        return judged(name, "fail", value, levels.fail, message)
    if levels.warn is not None and value > levels.warn:
        return judged(name, "warn", value, levels.warn, message)
    return judged(name, "pass", value, levels.fail if levels.warn is None else levels.warn, "")


def below(name: str, value: float, levels: Levels, message: str) -> Check:
    """A check of a number that should be large."""
    flipped = Levels(*(None if level is None else -level for level in levels))
    check = above(name, -value, flipped, message)
    threshold = None if check.threshold is None else -check.threshold
    return judged(name, check.status, value, threshold, check.message)


def judged(name: str, status: Status, value: float, threshold: float | None, message: str) -> Check:
    """A check of this status; numbers that are not finite are left out."""
    return Check(name, status, _or_none(value), _or_none(threshold), message)


def _or_none(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None
