"""Disks that are full from the n-th file operation on: said as a finding, no draw lost, right once there is room."""

from __future__ import annotations

import json
from pathlib import Path

import learning

from faults.commands import Stage, timeless, unclean
from faults.kills import LONGEST, Tally
from faults.operations import TAKES_ROOM, Fault, logged

FAILURE = 2  # exit code


def at_operation(stage: Stage, point: int) -> Tally:
    """Run a command whose disk is full from its operation number `point` on, then again with room."""
    tally = Tally()
    process = learning.start(stage.folder, *stage.arguments, before=Fault("full", point))
    process.join(LONGEST)
    said, printed = stage.said(), stage.said("stdout.txt")
    done = logged(stage.folder)
    failed = next((line for line in done[point - 1 :] if line.split()[0] in TAKES_ROOM), None)
    if failed is None:  # nothing took room any more
        if process.exitcode != 0:
            tally.unclean.append(f"exit code {process.exitcode} where no room was needed: {said[-300:]}")
    elif process.exitcode != FAILURE or "error[" not in said or unclean(said):
        tally.unclean.append(f"full at {failed}: exit code {process.exitcode}: {said[-300:]}")
    elif _draws_are_due(stage, failed, done[: point - 1]) and _drawn(printed) != _draws(stage.alone):
        tally.unclean.append(f"full at {failed}: the draws are not printed")
    again = learning.start(stage.folder, *stage.arguments)
    again.join(LONGEST)
    if again.exitcode != 0:
        tally.unclean.append(f"full at {failed}, then with room: exit code {again.exitcode}: {stage.said()[-300:]}")
    tally.differences = [f"full at {failed}: {name}" for name in stage.differing()]
    stage.clear()
    return tally


def _draws_are_due(stage: Stage, failed: str, done: list[str]) -> bool:
    """Whether a run had made its draws: its folder was tried before them, and what failed is writing it."""
    partial = f"{stage.kept.name}.partial"
    return stage.arguments[0] == "run" and f"remove {partial}/tried" in done and failed.split()[1].startswith(partial)


def _drawn(printed: str) -> list[object]:
    return [timeless(json.loads(line)) for line in printed.splitlines() if line.startswith('{"row"')]


def _draws(folder: Path) -> list[object]:
    return [timeless(json.loads(line)) for line in (folder / "draws.jsonl").read_text(encoding="utf-8").splitlines()]
