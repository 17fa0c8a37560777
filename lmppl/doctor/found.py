"""What checks measure, and what they find."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from lmppl.doctor.levels import Levels
from lmppl.shapes import Document

Status = Literal["pass", "warn", "fail", "–"]
ORDER: tuple[Status, ...] = ("–", "pass", "warn", "fail")


@dataclass(frozen=True)
class Measured:
    """A number, and how it came about."""

    number: float
    unit: str
    said: str  # what was done and seen, in words
    levels: Levels


class CannotTell(Exception):
    """A check has no meaning for this model, or cannot be done here: its text says why."""


class Amiss(Exception):
    """A model has not answered what it was asked: its text says how."""


@dataclass(frozen=True)
class Found:
    """What a check has found. number: in its unit; None where there is none."""

    name: str
    asks: str
    status: Status
    number: float | None
    unit: str
    sentence: str

    @property
    def document(self) -> Document:
        """JSON form."""
        finite = self.number is not None and math.isfinite(self.number)
        return {**vars(self), "number": self.number if finite else None}
