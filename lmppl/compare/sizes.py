"""How many draws an engine can make within a budget: from what its earlier, smaller runs have cost.

Three targets, each four times the one before, give points of a curve of quality against cost; the
last is the budget.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from lmppl.compare.entries import Entry
from lmppl.engines import engine
from lmppl.settings import Budget, Point, draws_for, grown

FIRST = 8  # draws a chain of the first run, which shows what a draw costs
TARGETS = (1 / 16, 1 / 4, 1)  # shares of the budget
NEAR = 0.15  # a last run this close to the budget, as a share of it, is not sized again
CORRECTIONS = 2
FLAT = 1.02  # growth of cost below which an engine is taken to have no size


def settings_of(entry: Entry, draws: int) -> tuple[dict[str, int], dict[str, object]]:
    """Settings and options of a run with so many draws a chain: warmup and particles grow along,
    unless asked for.
    """
    names = {item.name for item in fields(engine(entry.engine).options)}
    return grown(names, entry.settings, entry.options, draws)


def sizes(cost_of: Callable[[int], float], budget: Budget) -> list[int]:
    """Draws a chain of every run of a curve, smallest first. cost_of runs the engine, or knows what
    a run has cost.
    """
    points = [Point(FIRST, cost_of(FIRST))]
    for target in TARGETS:
        draws = draws_for(points, target * budget.amount)
        if draws < (2 if target < 1 else 1.1) * points[-1].draws:
            continue
        points.append(Point(draws, cost_of(draws)))
        if 0 < points[-1].cost <= FLAT * points[-2].cost:
            return [points[0].draws]  # nothing that is asked of it makes it work more
    for _ in range(CORRECTIONS):
        last = points[-1]
        if abs(last.cost - budget.amount) <= NEAR * budget.amount or len(points) < 2:
            break
        draws = draws_for(points, budget.amount)
        if draws == last.draws or draws < FIRST:
            break
        points[-1:] = [Point(draws, cost_of(draws))]
    return [point.draws for point in points]
