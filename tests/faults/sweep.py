"""Faults in large: every kind on every command, a line of JSON a case, and the table of them.

    python tests/faults/sweep.py [--number 100] [--kinds random,damage] [--commands run,em]

Kinds: random (kills at random moments), operations (a kill before each file operation), replacing (the same, over
another run), full (a disk that is full from each file operation on), damage (files of finished folders), writers (two
at once). Each case is a line of benchmarks/results/faults.jsonl as soon as it is known, and what was right is not done
again: take the file away to begin anew. The table beside it is made from its lines. Exit code 1 where one is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import learning

from faults import damage, full, kills, writers
from faults.commands import COMMANDS, Stage, staged
from faults.operations import Fault, logged

RESULTS = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "results"
LINES, TABLE = RESULTS / "faults.jsonl", RESULTS / "faults.md"
MOST = 8  # kills of one run of a command
KINDS = {
    "random": "SIGKILL (half), SIGTERM or SIGINT at random moments, up to eight times",
    "operations": "SIGKILL before a file operation, and before another one of the next try",
    "replacing": "the same, over another run, which must be whole until it is replaced",
    "full": "no room on the disk from a file operation on",
    "damage": "a file of a finished folder: a bit, a digit, its end, all of it, or another run's; then a reader",
    "writers": "the same command twice at once",
}


class Stages:
    """The stages that cases need, each made when it is first asked for."""

    def __init__(self, work: Path) -> None:
        self._work, self._made = work, {}

    def __call__(self, name: str, seed: int = 0) -> Stage:
        if (name, seed) not in self._made:
            self._made[name, seed] = staged(self._work / f"{name}-{seed}", name, seed)
        return self._made[name, seed]

    def operations(self, name: str) -> int:
        """How many file operations a command has."""
        if ("operations", name) not in self._made:
            stage = self(name)
            process = learning.start(stage.folder, *stage.arguments, before=Fault("none"))
            process.join(kills.LONGEST)
            self._made["operations", name] = len(logged(stage.folder))
            stage.clear()
        return self._made["operations", name]


Case = Callable[[random.Random], kills.Tally]


def cases(kind: str, name: str, number: int, stages: Stages) -> Iterator[tuple[int, Case]]:
    """The cases of a kind and a command, by number; of file operations as many as there are, evenly spread."""
    known: dict[str, object] = {}
    if kind in ("operations", "full", "replacing"):
        if kind == "replacing" and name != "run":
            return
        count = stages.operations(name)
        for point in sorted({1 + i * count // number for i in range(number)}):
            yield point, _at(kind, name, point, count, stages)
        return
    for case in range(number):
        if kind == "random":
            yield case, lambda rng: kills.at_random(stages(name), rng, MOST)
        elif kind == "damage":
            yield case, lambda rng: damage.befallen(stages(name), stages(name, 1), rng, known)
        else:
            yield case, lambda rng: writers.at_once(stages(name), rng)


def _at(kind: str, name: str, point: int, count: int, stages: Stages) -> Case:
    if kind == "full":
        return lambda rng: full.at_operation(stages(name), point)
    over = stages(name, 1) if kind == "replacing" else None
    return lambda rng: kills.at_operations(stages(name), [point, rng.randint(1, count)], over)


def done(kind: str, name: str, case: int, run: Case) -> dict[str, Any]:
    """A case, and what came of it."""
    began = time.monotonic()
    tally = run(random.Random(f"{kind} {name} {case}"))
    return {
        "kind": kind, "command": name, "case": case, "kills": tally.kills, "differences": tally.differences,
        "unclean": tally.unclean, "seconds": round(time.monotonic() - began, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip


def read(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Lines by their case; of a case that was done twice the last."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {(line["kind"], line["command"], line["case"]): line for line in map(json.loads, lines)}


def table(lines: Iterable[dict[str, Any]], words: str) -> str:
    """What is committed: a row a kind and command."""
    lines = list(lines)
    dates = sorted({line["date"] for line in lines})
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}"
    text = [
        "# Commands that faults befall", "",
        f"`{words}`, on the tiny model; {machine}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}.", "",
        "A command is disturbed, then begun again by the same words until it ends. Its folder is compared with that of",
        "the command left alone, file by file and bit by bit, but for times and costs. Of damaged files: a reader must",
        "refuse and name the file, or say what it said before. Unclean is a traceback, `error[internal]`, a wrong exit",
        "code, or a file that is not named.", "",
        "| fault | command | cases | kills | that differ | unclean |", "|---|---|--:|--:|--:|--:|",
    ]  # fmt: skip
    for kind in KINDS:
        for name in COMMANDS:
            own = [line for line in lines if (line["kind"], line["command"]) == (kind, name)]
            if own:
                numbers = (
                    sum(line["kills"] for line in own),
                    *(sum(bool(line[what]) for line in own) for what in ("differences", "unclean")),
                )
                text.append(f"| {kind} | `{name}` | {len(own)} | {' | '.join(map(str, numbers))} |")
    return "\n".join([*text, "", *(f"- {kind}: {what}" for kind, what in KINDS.items()), ""])


def main() -> None:
    """Do what is not done, and write the table."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--number", type=int, default=100, help="kills at random, or cases, of each command")
    flags.add_argument("--kinds", default=",".join(KINDS))
    flags.add_argument("--commands", default=",".join(COMMANDS))
    flags.add_argument("--lines", type=Path, default=LINES)
    flags.add_argument("--table", type=Path, default=TABLE)
    asked = flags.parse_args()
    known = read(asked.lines)
    with tempfile.TemporaryDirectory() as work:
        stages = Stages(Path(work))
        for kind in asked.kinds.split(","):
            for name in asked.commands.split(","):
                _all(kind, name, asked, known, stages)
    asked.table.write_text(table(known.values(), f"python tests/faults/sweep.py --number {asked.number}"), "utf-8")
    sys.exit(any(line["differences"] or line["unclean"] for line in known.values()))


def _all(kind: str, name: str, asked: argparse.Namespace, known: dict[Any, Any], stages: Stages) -> None:
    """The cases of a kind and a command; kills are counted, other cases are so many."""
    killed = 0
    for case, run in cases(kind, name, asked.number, stages):
        key = kind, name, case
        if key not in known or known[key]["differences"] or known[key]["unclean"]:
            known[key] = done(kind, name, case, run)
            with asked.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[key], ensure_ascii=False) + "\n")
            for said in (*known[key]["differences"], *known[key]["unclean"]):
                print(f"{kind} {name} {case}: {said}", flush=True)
        killed += known[key]["kills"]
        if kind == "random" and killed >= asked.number:
            break
    print(f"{kind} {name}: done, {killed} kills", flush=True)


if __name__ == "__main__":
    main()
