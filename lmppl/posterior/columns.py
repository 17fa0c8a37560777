"""What each draw has, by column, and names of columns that every format takes.

A name that a program declares is kept; `factor` and `tokens` stand before what is derived from one.
All formats name the same thing alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lmppl.posterior.result import Result, RowPosterior

OWN = (
    "label",
    "engine",
    "run",
    "row",
    "chain",
    "draw",
    "log_density",
    "log_weight",
    "weight",
    "log_proposal",
)
RESERVED = {*OWN, "energy"}  # ArviZ takes `energy` for that of Hamiltonian Monte Carlo


class Key(NamedTuple):
    """What a column is about: a given or latent (`value`), a derived value, a factor, the length of
    a latent, a statistic, or lmppl.
    """

    kind: Literal["own", "value", "derived", "factor", "tokens", "statistic"]
    name: str  # as the program has it


Record = Mapping[Key, Any]


@dataclass(frozen=True)
class Run:
    """A run to export; `labels` are columns that tell the runs of a comparison apart."""

    posterior: Result
    labels: Mapping[str, str] = field(default_factory=dict)


def records(number: int, row: RowPosterior) -> list[Record]:
    """The draws of a data row, in order: an impossible one has a log density of minus infinity and
    weight 0.
    """
    found = []
    for draw, weight in zip(row.draws, row.weights, strict=True):
        found.append(
            {
                **_keyed("own", {"row": number, "chain": draw.chain, "draw": draw.draw}),
                **_keyed("value", {**row.givens, **draw.values}),
                Key("own", "log_density"): draw.log_density,
                **_keyed("factor", draw.factors),
                **_keyed("own", {"log_weight": draw.log_weight, "weight": float(weight)}),
                Key("own", "log_proposal"): draw.log_proposal,
                **_keyed("tokens", {name: len(tokens) for name, tokens in draw.tokens.items()}),
                **_keyed("statistic", draw.statistics),
                **_keyed("derived", draw.derived),
            }
        )
    return found


def _keyed(kind: Any, values: Mapping[str, Any]) -> dict[Key, Any]:
    return {Key(kind, name): value for name, value in values.items()}


def column_names(keys: Iterable[Key]) -> dict[Key, str]:
    """A name for each column, of letters, digits and underscores; what would be named twice ends in
    underscores.
    """
    names: dict[Key, str] = {}
    taken = set(RESERVED)
    for key in dict.fromkeys(keys):
        if key.kind == "own":
            names[key] = key.name
            continue
        name = _plain(key.name)
        if key.kind in ("factor", "tokens") and not name.startswith(f"{key.kind}_"):
            name = f"{key.kind}_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        names[key] = name
    return names


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_") or "_"  # netCDF takes no empty name
