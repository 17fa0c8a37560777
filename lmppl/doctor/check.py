"""What a check is, and what it makes of what it measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmppl.doctor.found import Found, Measured, Status
from lmppl.doctor.patient import Patient


@dataclass(frozen=True)
class Check:
    """One question to a model. measure raises CannotTell; Amiss and LmpplError where
    the model fails."""

    name: str
    asks: str
    measure: Callable[[Patient], Measured]
    means: str  # what is wrong with results where it does not pass
    do: str  # and what helps


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
