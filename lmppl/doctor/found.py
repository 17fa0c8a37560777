"""What a check is, and what it finds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lmppl.doctor.levels import Levels
from lmppl.shapes import Document

if TYPE_CHECKING:
    from lmppl.doctor.patient import Patient

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
class Check:
    """One question to a model. measure raises CannotTell; Amiss and LmpplError where
    the model fails."""

    name: str
    asks: str
    measure: Callable[[Patient], Measured]
    means: str  # what is wrong with results where it does not pass
    do: str  # and what helps


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


def judged(check: Check, measured: Measured) -> Found:
    """What a check makes of a number; one that is none fails."""
    number, levels = measured.number, measured.levels
    status: Status = "pass" if number <= levels.passes else "warn"
    if not number <= levels.warns:
        status = "fail"
    sentence = f"{_begun(measured.said)}."
    if status != "pass":
        sentence += f" {check.means} {check.do}"
    return Found(check.name, check.asks, status, number, measured.unit, sentence)


def failed(check: Check, reason: str) -> Found:
    """A check in which the model has failed."""
    sentence = f"{_begun(reason.rstrip('.'))}. {check.means} {check.do}"
    return Found(check.name, check.asks, "fail", None, "", sentence)


def passed_over(check: Check, why: str) -> Found:
    """A check that does not apply."""
    return Found(check.name, check.asks, "–", None, "", f"{_begun(why)}.")


def _begun(text: str) -> str:
    """A text that begins as sentences do."""
    return text[:1].upper() + text[1:]
