"""Commands that are killed and begun again: at random moments, or before their n-th file operation.

Each is started, stopped, and started again by the same words, until it ends by itself. Then its folder must be that of
the command left alone, bit for bit, but for times.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

import learning

from faults.commands import Stage, unclean
from faults.operations import Fault, logged

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDINGS = (-signal.SIGKILL, -signal.SIGTERM, 130)  # exit codes of what was stopped
LONGEST = 200  # seconds


@dataclass
class Tally:
    """What came of a command: how often it was stopped, what is other than it should be, what it should not have
    said."""

    kills: int = 0
    differences: list[str] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        return self.differences + self.unclean


def at_random(stage: Stage, rng: random.Random, most: int) -> Tally:
    """Start a command, stop it at a random moment, and start it again, until it ends or was stopped `most` times."""
    tally = Tally()
    while True:
        (stage.folder / "stderr.txt").unlink(missing_ok=True)
        process = learning.start(stage.folder, *stage.arguments)
        number = rng.choice(SIGNALS)
        process.join(rng.uniform(0, stage.seconds) if tally.kills < most else LONGEST)
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, number)
            process.join(LONGEST)
        if not (stage.folder / "stderr.txt").exists():
            continue  # it was stopped before the command began
        if _over(stage, process, tally, number.name):
            return _compared(stage, tally)


def at_operations(stage: Stage, points: Sequence[int], over: Stage | None = None) -> Tally:
    """Kill a command before its operation number `points[0]`, the next try before `points[1]`, and so on; then leave
    it to itself. over: of another seed, whose run lies in the place at first and must be whole until it is replaced."""
    tally = Tally()
    if over is not None:
        shutil.copytree(over.alone, stage.kept)
    for point in (*points, 0):
        fault = Fault("kill", point)
        process = learning.start(stage.folder, *stage.arguments, before=fault)
        process.join(LONGEST)
        done = logged(stage.folder)[point - 1 : point] if point else []
        if _over(stage, process, tally, f"before operation {point} {done}"):
            break
        if over is not None:
            learning.run(stage.folder, "summary", stage.kept.name)
    return _compared(stage, tally)


def _over(stage: Stage, process, tally: Tally, what: str) -> bool:
    """Whether a command has come to its end, or to one that it should not have."""
    if process.exitcode == 0:
        return True
    said = stage.said()
    if process.exitcode not in ENDINGS or unclean(said):
        tally.unclean.append(f"{what}: exit code {process.exitcode}: {said[-300:]}")
        process.kill()
        return True
    tally.kills += 1
    return False


def _compared(stage: Stage, tally: Tally) -> Tally:
    tally.differences = stage.differing()
    stage.clear()
    return tally
