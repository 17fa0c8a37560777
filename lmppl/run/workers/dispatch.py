"""Orders for workers, handed out as these become free; and one display of what all of them do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from lmppl.errors import LmpplError
from lmppl.findings import workers as findings
from lmppl.run.workers.crew import Crew, Done, Failed, Lost, Order, Shard, Told
from lmppl.screen import Progress

NO_ROW = -1  # of orders that are about no row
APART = " · "  # parts what is done from what changes while it is: see screen/progress.py


@dataclass
class Display:
    """Progress of all workers as one."""

    progress: Progress
    what: str
    total: int
    done: int = 0
    said: dict[int, Told] = field(default_factory=dict)  # last, by worker

    def show(self) -> None:
        parts = [_in_words(told) for _, told in sorted(self.said.items())]
        self.progress(APART.join([self.what, *parts]), self.done, self.total)


def _in_words(told: Told) -> str:
    what = told.what.partition(APART)[0]
    return f"{what} {told.done}/{told.total}" if told.total else what


def hand_out(
    crew: Crew,
    orders: Iterable[Order],
    display: Display,
    heard: Callable[[Any], None] = lambda message: None,
) -> list[Any]:
    """Have orders carried out, each by the next worker that is free; what was found, in the order
    of its end. heard: is told each row that was
    drawn.

    Where some fail, those on earlier rows are waited for, and the error of the first row is raised,
    as one process would have it.
    """
    waiting, idle = deque(orders), deque(range(crew.size))
    running: dict[int, Order] = {}
    reached: dict[int, int] = {}  # the row that a worker is at
    found: list[Any] = []
    failures: list[tuple[int, Exception]] = []
    display.show()
    while True:
        while waiting and idle and not failures:
            worker, order = idle.popleft(), waiting.popleft()
            running[worker], reached[worker] = order, _first_row(order)
            crew.send(worker, order)
        first = min((row for row, _ in failures), default=None)
        if not any(first is None or _first_row(order) < first for order in running.values()):
            break
        worker, message = crew.receive()
        if isinstance(message, Told):
            display.said[worker] = message
            display.show()
        elif isinstance(message, Done):
            idle.append(worker)
            display.said.pop(worker, None)
            del running[worker]
            found.append(message.found)
        elif isinstance(message, Failed | Lost):
            order, row = running.pop(worker, None), reached.get(worker, NO_ROW)
            failures.append(_failure(worker, order, row, message))
        else:
            reached[worker] += 1
            heard(message)
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]
    return found


def _first_row(order: Order) -> int:
    return order.about.first if isinstance(order.about, Shard) else NO_ROW


def _failure(
    worker: int, order: Order | None, reached: int, message: Failed | Lost
) -> tuple[int, Exception]:
    """The row that an error is about, and the error. reached: the row that the worker was at."""
    if isinstance(message, Failed):
        return (reached if message.row is None else message.row), message.error
    shard = order.about if order is not None and isinstance(order.about, Shard) else None
    at = None if shard is None else str(shard) if message.by_shard else f"row {reached + 1}"
    return reached, LmpplError(findings.worker_lost(worker, at, message.how))
