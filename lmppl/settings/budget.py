"""What a run may cost, and how large an engine's run may be for that.

Cost is taken to be a line in the size of a run, through the last two runs; through the origin after
one. A size is a number of draws a chain; what else grows with it is said here, for `run` and for
comparisons alike.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["tokens", "seconds"]

MOST_DRAWS = 2_500  # a chain: all are kept, and some engines draw at next to no cost
FACTORS: dict[str, tuple[float, Unit]] = {
    "": (1, "tokens"), "k": (1000, "tokens"), "tokens": (1, "tokens"), "ktokens": (1000, "tokens"),
    "s": (1, "seconds"), "ks": (1000, "seconds"), "m": (60, "seconds"), "min": (60, "seconds"),
    "h": (3600, "seconds"),
}  # fmt: skip
FORMS = "tokens (20000tokens, 20k) or a time (90s, 5m)"  # what parse_budget takes


@dataclass(frozen=True)
class Budget:
    """What may be spent: LM tokens (decoded and scored), or seconds."""

    amount: float
    unit: Unit = "tokens"

    def __str__(self) -> str:
        return f"{self.amount:,.0f} tokens" if self.unit == "tokens" else f"{self.amount:,.3g} s"


@dataclass(frozen=True)
class Point:
    """A run's size, and what it cost in the budget's unit."""

    draws: int
    cost: float


def parse_budget(text: str) -> Budget | None:
    """`20000`, `20k`, `20000tokens`, `90s`, `5m`, or `none`: every engine at its own settings.
    Raises ValueError.
    """
    text = text.strip().lower()
    if text == "none":
        return None
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?) *([a-z]*)", text)
    if found is None or found[2] not in FACTORS:
        raise ValueError(text)
    factor, unit = FACTORS[found[2]]
    amount = float(found[1]) * factor
    if not 0 < amount < float("inf"):
        raise ValueError(text)
    return Budget(amount, unit)


def draws_for(points: Sequence[Point], target: float) -> int:
    """Draws a chain of a run that costs this much, from what smaller ones have cost; at least 1."""
    last = points[-1]
    earlier = points[-2] if len(points) > 1 else Point(0, 0.0)
    slope = (last.cost - earlier.cost) / (last.draws - earlier.draws)
    if slope <= 0:
        return MOST_DRAWS if last.cost < target else last.draws
    return min(max(1, int(last.draws + (target - last.cost) / slope)), MOST_DRAWS)


def grown(
    names: Collection[str], settings: Mapping[str, int], options: Mapping[str, Any], draws: int
) -> tuple[dict[str, int], dict[str, Any]]:
    """Settings and options of a run with so many draws a chain: warmup and particles grow along,
    unless asked for.

    names: options that the engine has. settings, options: what was asked for.
    """
    sized = {"num_samples": draws, "num_warmup": draws // 2, **settings}
    own = {"particles": sized["num_samples"]} if "particles" in names else {}
    return sized, {**own, **options}
