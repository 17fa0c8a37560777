"""What a verdict asks of an engine: what its draws are, and what would help where they cannot be
believed.

Engines say this of themselves, in their table. Nothing here knows an engine.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alternatives:
    """Names of engines to try instead, the best first, by what is wrong with draws."""

    apart: tuple[str, ...] = ()  # chains disagree, or have not seen all that there is
    still: tuple[str, ...] = ()  # chains accept hardly a move
    few: tuple[str, ...] = ()  # weights are worth few draws
    heavy: tuple[str, ...] = ()  # weights have no variance that a mean can be trusted with
    fresh: tuple[str, ...] = ()  # those that take fresh draws only: no help where none is accepted
    general: tuple[str, ...] = ()  # those that can run every program


@dataclass(frozen=True)
class Traits:
    """What an engine says of its draws, and of how to make them better."""

    name: str = ""
    independent: bool = False  # draws are, by construction: there is no chain to follow
    whole: bool = False  # it finds the whole law: the number of draws costs nothing
    inferred: bool = True  # draws are meant to be the posterior's; else what a model writes
    caveat: str | None = None  # why draws are never the posterior's for certain
    nearer: str | None = None  # how its proposal comes nearer to the posterior: "train on …"
    longer: str = "Take more --num-samples"  # how states get more time to move
    alternatives: Alternatives = Alternatives()
