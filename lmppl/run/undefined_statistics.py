"""What is said of statistics that are no number, or infinite, in some draws, and of derived values
that are absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from lmppl import ir
from lmppl.diagnosis import Draw
from lmppl.screen import quoted


def said(
    program: ir.Program, draws: Sequence[Draw], reasons: Callable[[int], Mapping[str, str]]
) -> list[str]:
    """One line a statistic that is no number, or infinite, in some draws. reasons: of the draw of
    this place.
    """
    lines = []
    for statistic in program.statistics:
        name, line = statistic.name, program.source.position(statistic.span.start)[0]
        values = [draw.statistics[name] for draw in draws]
        if missing := [i for i, value in enumerate(values) if math.isnan(value)]:
            reason = reasons(missing[0]).get(name, "")
            rest = (
                "its row of the table is about the others"
                if len(missing) < len(draws)
                else "it has no summary"
            )
            lines.append(
                f"statistic `{name}` (line {line}) is no number in {len(missing)} of "
                f"{len(draws)} draws, such as "
                f"{_shown(draws[missing[0]])}{f' ({reason})' if reason else ''}: {rest}"
            )
        for infinite, sign in ((-math.inf, "−∞"), (math.inf, "∞")):
            if count := values.count(infinite):
                lines.append(
                    f"statistic `{name}` (line {line}) is {sign} in {count} of {len(draws)} "
                    f"draws, and so is its mean: "
                    "look at its quantiles"
                )
    return lines


def absences(
    program: ir.Program, draws: Sequence[Draw], reasons: Callable[[int], Mapping[str, str]]
) -> list[str]:
    """One line a derived value that is absent in some draws. reasons: of the draw of this place."""
    lines = []
    for derived in program.derived:
        name, line = derived.name, program.source.position(derived.span.start)[0]
        missing = [i for i, draw in enumerate(draws) if draw.derived[name] is None]
        if missing:
            reason = reasons(missing[0]).get(name, "")
            said = f"`{name}` (line {line}) is absent in {len(missing)} of {len(draws)} draws"
            example = _shown(draws[missing[0]])
            lines.append(f"{said}, such as {example}{f': {reason}' if reason else ''}")
    return lines


def _shown(draw: Draw) -> str:
    return (
        ", ".join(f"{name} = {quoted(text):.60}" for name, text in draw.values.items())
        or "the data as they are"
    )
