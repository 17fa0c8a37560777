"""How many draws an engine can make within a budget: from what its earlier, smaller runs have cost.

Cost is taken to be a line in the number of draws, through the last two runs; through the origin after one. Three
targets, each four times the one before, give points of a curve of quality against cost; the last is the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from lmppl.compare.entries import Entry
from lmppl.engines import engine

Unit = Literal["tokens", "seconds"]

FIRST = 8  # draws a chain of the first run, which shows what a draw costs
TARGETS = (1 / 16, 1 / 4, 1)  # shares of the budget
NEAR = 0.15  # a last run this close to the budget, as a share of it, is not sized again
CORRECTIONS = 2
FLAT = 1.02  # growth of cost below which an engine is taken to have no size
MOST_DRAWS = 2_500  # a chain: all are kept, and some engines draw at next to no cost


@dataclass(frozen=True)
class Budget:
    """What one run may cost, a data row: LM tokens (decoded and scored), or seconds."""

    amount: float
    unit: Unit = "tokens"


@dataclass(frozen=True)
class Point:
    """A run's size, and what it cost a data row in the budget's unit."""

    draws: int
    cost: float


def settings_of(entry: Entry, draws: int) -> tuple[dict[str, int], dict[str, object]]:
    """Settings and options of a run with so many draws a chain: warmup and particles grow along, unless asked for."""
    settings = {"num_samples": draws, "num_warmup": draws // 2, **entry.settings}
    names = {item.name for item in fields(engine(entry.engine).options)}
    grown = {"particles": settings["num_samples"]} if "particles" in names else {}
    return settings, {**grown, **entry.options}


def sizes(cost_of: Callable[[int], float], budget: Budget) -> list[int]:
    """Draws a chain of every run of a curve, smallest first. cost_of runs the engine, or knows what a run has cost."""
    points = [Point(FIRST, cost_of(FIRST))]
    for target in TARGETS:
        draws = _draws_for(points, target * budget.amount)
        if draws < (2 if target < 1 else 1.1) * points[-1].draws:
            continue
        points.append(Point(draws, cost_of(draws)))
        if 0 < points[-1].cost <= FLAT * points[-2].cost:
            return [points[0].draws]  # nothing that is asked of it makes it work more
    for _ in range(CORRECTIONS):
        last = points[-1]
        if abs(last.cost - budget.amount) <= NEAR * budget.amount or len(points) < 2:
            break
        draws = _draws_for(points, budget.amount)
        if draws == last.draws or draws < FIRST:
            break
        points[-1:] = [Point(draws, cost_of(draws))]
    return [point.draws for point in points]


def _draws_for(points: Sequence[Point], target: float) -> int:
    last = points[-1]
    earlier = points[-2] if len(points) > 1 else Point(0, 0.0)
    slope = (last.cost - earlier.cost) / (last.draws - earlier.draws)
    if slope <= 0:
        return MOST_DRAWS if last.cost < target else last.draws
    return min(max(1, int(last.draws + (target - last.cost) / slope)), MOST_DRAWS)


def parse_budget(text: str) -> Budget | None:
    """`20000`, `20k`, `90s`, or `none`: every engine at its own settings. Raises ValueError."""
    text = text.strip().lower()
    if text == "none":
        return None
    unit: Unit = "seconds" if text.endswith("s") else "tokens"
    number = text.removesuffix("s") if unit == "seconds" else text
    factor = 1000 if number.endswith("k") else 1
    amount = float(number.removesuffix("k")) * factor
    if not 0 < amount < float("inf"):
        raise ValueError(text)
    return Budget(amount, unit)
