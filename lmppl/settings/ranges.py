"""Which values a number or a word may have, said beside it: `particles: Whole = 0` in a dataclass.

A range stands in the annotation, so that what checks it, what lists it and what reads it are the
same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Annotated, Any, TypeVar, get_type_hints

T = TypeVar("T")
MOST = 10**9  # draws, chains, steps
LAST_SEED = 2**64 - 1  # what the random numbers of every library take


@dataclass(frozen=True)
class Range:
    """Numbers from low to high. open_low, open_high: that end itself is not allowed; zero, endless:
    0, or ∞, is. whole: no fractions."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    zero: bool = False
    endless: bool = False
    whole: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a number is allowed, or each of a tuple of them."""
        if isinstance(value, tuple):
            return all(self.holds(one) for one in value)
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        ends = isinstance(value, int) or math.isfinite(value)
        return (
            (above and below and ends)
            or (self.zero and value == 0)
            or (self.endless and value == math.inf)
        )

    def __str__(self) -> str:
        low = (
            []
            if math.isinf(self.low)
            else [f"{'above' if self.open_low else 'at least'} {_text(self.low)}"]
        )
        high = (
            []
            if math.isinf(self.high)
            else [f"{'below' if self.open_high else 'at most'} {_text(self.high)}"]
        )
        closed = low and high and not self.open_low and not self.open_high
        text = (
            f"from {_text(self.low)} to {_text(self.high)}"
            if closed
            else " and ".join(low + high) or "any number"
        )
        return ("0, or " if self.zero else "") + text + (", or inf" if self.endless else "")


@dataclass(frozen=True)
class OneOf:
    """Some words."""

    words: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        return value in self.words

    def __str__(self) -> str:
        return ", ".join(self.words[:-1]) + f" or {self.words[-1]}"


def _text(number: float) -> str:
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


Count = Annotated[int, Range(1, MOST, whole=True)]
Whole = Annotated[int, Range(0, MOST, whole=True)]
Size = Annotated[int, Range(1, 2**16, whole=True)]  # of what is in memory at once
Seed = Annotated[int, Range(0, LAST_SEED, whole=True)]
Number = Annotated[float, Range(-math.inf, math.inf)]
Positive = Annotated[float, Range(0, math.inf, open_low=True)]
NotPositive = Annotated[float, Range(-math.inf, 0)]
NotNegative = Annotated[float, Range(0, math.inf)]
Seconds = Annotated[float, Range(0, math.inf, open_low=True, endless=True)]
Share = Annotated[float, Range(0, 1)]
SomeShare = Annotated[float, Range(0, 1, open_low=True)]  # and never nothing
PartShare = Annotated[float, Range(0, 1, open_high=True)]  # and never all
ProperShare = Annotated[float, Range(0, 1, open_low=True, open_high=True)]
_TEMPERATURES = Range(
    1e-3, 1e3
)  # beyond, laws are the likeliest token or level, and their logits overflow
Temperature = Annotated[float, _TEMPERATURES]
Temperatures = Annotated[tuple[float, ...], _TEMPERATURES]
TemperatureOrZero = Annotated[float, Range(1e-3, 1e3, zero=True)]


def ranges_of(kind: type) -> Mapping[str, Range | OneOf]:
    """What the fields of a dataclass may be, by name, where they say it."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        name: hint.__metadata__[0] for name, hint in hints.items() if hasattr(hint, "__metadata__")
    }


def asked_for(**settings: T | None) -> dict[str, T]:
    """Settings that were given; None stands for those that were not."""
    return {name: value for name, value in settings.items() if value is not None}


def as_int(value: T) -> T | int:
    """A whole number of another library as Python's; everything else as it is."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else value


def seed_after(seed: int, steps: int) -> int:
    """The seed so many after another; after the last comes 0."""
    return (seed + steps) % (LAST_SEED + 1)
