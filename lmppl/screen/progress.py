"""What people see while they wait: the stage by its name, or that something has begun, from the
first second on.

On a terminal it is a bar; elsewhere a line a stage, and one every ten seconds, so that a log shows
that work goes on. A stage may last long without a word from the code that does it, so a thread of
its own speaks.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from lmppl.screen.escapes import visible

Progress = Callable[
    [str, int, int], None
]  # (what is being done, done, total); a total of 0: nobody knows
VARYING = " · "  # parts what is being done from numbers that change while it is
STARTING = "starting"  # until the first stage is named
PATIENCE = 1.0  # seconds before that is said: what is wrong with options is found sooner
EVERY = 10.0  # seconds between lines
_ROW = re.compile(r"row \d+ of \d+: ")


def quiet(what: str, done: int, total: int) -> None:
    """Progress that is shown nowhere."""


@contextmanager
def shown(every: float = EVERY) -> Iterator[Progress]:
    """Progress on standard error: a bar where it is a terminal, else lines, `every` so many
    seconds.
    """
    with _bar() if sys.stderr.isatty() else _lines(sys.stderr, every) as report:
        yield report


@contextmanager
def progress_of(asked: bool | Progress) -> Iterator[Progress]:
    """What a Python argument asks for: shown, not shown, or told to a function."""
    if asked is True:
        with shown() as report:
            yield report
    else:
        yield asked or quiet


class _Lines:
    """Lines about stages. A stage that comes back, row after row, is announced once."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._started = out, time.monotonic()
        self._announced: set[str] = set()
        self._now: tuple[str, int, int] = (STARTING, 0, 0)

    def report(self, what: str, done: int, total: int) -> None:
        self._now = (what, done, total)
        stage = _ROW.sub("", what.partition(VARYING)[0])
        if stage not in self._announced:
            self._announced.add(stage)
            self._print(what)

    def begin(self) -> None:
        """Say that something is done, where no stage has said so."""
        if not self._announced:
            self._print(STARTING)

    def again(self) -> None:
        what, done, total = self._now
        counted = f": {done:,} of {total:,}" if total > 1 else ""
        self._print(f"{what}{counted}, {time.monotonic() - self._started:.0f} s")

    def _print(self, text: str) -> None:
        try:
            print(f"lmppl: {visible(text)}", file=self._out, flush=True)
        except (OSError, ValueError):  # nobody reads any more; the work goes on
            self.report = quiet


@contextmanager
def _lines(out: TextIO, every: float) -> Iterator[Progress]:
    lines, over = _Lines(out), threading.Event()

    def speak() -> None:
        if not over.wait(min(PATIENCE, every)):
            lines.begin()
        while not over.wait(every):
            lines.again()

    speaker = threading.Thread(target=speak, name="lmppl-progress", daemon=True)
    speaker.start()
    try:
        yield lambda what, done, total: lines.report(what, done, total)
    finally:
        over.set()
        speaker.join()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bar,
    )

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task: Any = bar.add_task(STARTING, total=None)
        stage = ""

        def report(what: str, done: int, total: int) -> None:
            nonlocal stage
            what = visible(what)
            name = what.partition(VARYING)[0]
            if name != stage:
                stage = name
                bar.reset(task, description=what, total=total or None, completed=done)
            bar.update(task, description=what, total=total or None, completed=done)

        yield report
