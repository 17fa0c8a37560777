"""What goes between who spreads rows and workers: orders one way, what was found the other.

All of it is plain values, so that it can go to another process or another machine. A row comes as
the text that run folders hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from lmppl import ir
from lmppl.data import Row
from lmppl.errors import Diagnostic, LmpplError, first_line, ran_out_of_memory
from lmppl.run.request import Request
from lmppl.shapes import Document


@dataclass(frozen=True)
class Ways:
    """How models are loaded, as `load_models` has it."""

    device: str = "auto"
    learned: Mapping[str, Path] = field(default_factory=dict)
    torch_compile: bool = False
    cuda_graphs: bool = True


@dataclass(frozen=True)
class Opening:
    """What a worker begins with: the program, its models, and what is asked for."""

    program: ir.Program
    request: Request  # whose models are identifiers
    ways: Ways


@dataclass(frozen=True)
class Shard:
    """Rows of the data that one worker draws one after the other."""

    first: int  # number of the first row in the data
    rows: Sequence[Row]

    def __str__(self) -> str:
        if len(self.rows) == 1:
            return f"row {self.first + 1}"
        return f"rows {self.first + 1} to {self.first + len(self.rows)}"


@dataclass(frozen=True)
class Plan:
    """An engine and its sizes, by a budget or as they were asked for. cost: of finding them."""

    engine: str
    reason: str
    settings: Mapping[str, int]
    options: Mapping[str, Any]
    budget: Document | None = None
    cost: Mapping[str, float] = field(default_factory=dict)


Verb = Literal["open", "check", "plan", "take", "draw"]


@dataclass(frozen=True)
class Order:
    """What a worker is to do. about: what it is to do that with."""

    verb: Verb
    about: Any = None


@dataclass(frozen=True)
class About:
    """What a worker says of itself once it is open. models: as `describe_model` has them."""

    models: Mapping[str, Document]
    slow: bool


@dataclass(frozen=True)
class Told:
    """Progress of a worker."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Done:
    """An order is carried out."""

    found: Any = None


@dataclass(frozen=True)
class Failed:
    """An order could not be carried out. row: its number in the data, where it was one row's
    doing.
    """

    error: Exception
    row: int | None = None


@dataclass(frozen=True)
class Lost:
    """A worker is there no more. how: what is known of its end; by_shard: its rows would have come
    together, so that nobody knows which of them it was at.
    """

    how: str
    by_shard: bool = False


class Crew(Protocol):
    """Some workers, by number from 0 on."""

    size: int

    def send(self, worker: int, order: Order) -> None:
        """Give a worker something to do; one order at a time."""
        ...

    def receive(self) -> tuple[int, Any]:
        """What comes next, from whom: WrittenRow, Told, Done, Failed or Lost."""
        ...

    def close(self) -> None:
        """End all workers, whatever they do."""
        ...


class OfWorker(RuntimeError):
    """An error of a worker that is no finding: its kind and its message."""


def portable(reason: Exception) -> Exception:
    """An error as one that another process can be told of."""
    if isinstance(reason, LmpplError):
        return LmpplError(*reason.diagnostics)
    if ran_out_of_memory(reason):
        return MemoryError(first_line(reason))
    if isinstance(reason, OSError):
        return OSError(reason.errno, reason.strerror or first_line(reason), reason.filename)
    return OfWorker(f"{type(reason).__name__}: {reason}")


def findings_of(reason: Exception) -> Sequence[Diagnostic]:
    """The findings of an error."""
    return reason.diagnostics if isinstance(reason, LmpplError) else ()
