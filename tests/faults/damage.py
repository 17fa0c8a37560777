"""Files of a finished folder that are damaged: who reads it refuses, naming the file, or says what was said before."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import learning

from faults.commands import COMMANDS, KEPT, Stage, timeless, unclean
from faults.kills import LONGEST, Tally

OUT = "read-out"  # what a reader writes
DRAWN = ("--json", "--draws")
_FOLDER = {
    "summary": ("summary", KEPT, *DRAWN),
    "diagnose": ("diagnose", KEPT, "--json"),
    "export": ("export", KEPT, "--to", "csv", "--out", OUT),
    "report": ("report", KEPT, "--out", OUT),
}
READERS = {
    "run": _FOLDER,
    "gflownet": {
        **_FOLDER,
        "--resume": (*COMMANDS["gflownet"], *DRAWN),
        "--adapter": ("run", "p.lm", "--data", "d.jsonl", "--engine", "gflownet", "--num-samples", "20", "--adapter",
                      KEPT, *DRAWN),
        "proposal=": ("run", "p.lm", "--data", "d.jsonl", "--engine", "importance", "--num-samples", "20", "-o",
                      f"proposal={KEPT}", *DRAWN),
    },
    "em": {
        "em": (*COMMANDS["em"], "--json"),
        "--learned": ("run", "labels.lm", "--data", "labels.jsonl", "--engine", "importance", "--num-samples", "20",
                      "--learned", KEPT, *DRAWN),
        "summary": ("summary", f"{KEPT}/rounds/0/draws", *DRAWN),
    },
    "compare": {
        "compare": (*COMMANDS["compare"], "--json"),
        "summary": ("summary", KEPT, "--json"),
        "report": ("report", KEPT, "--out", OUT),
    },
}  # fmt: skip


def flip(path: Path, rng: random.Random, other: Path) -> None:
    """One bit, somewhere."""
    raw = bytearray(path.read_bytes())
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    path.write_bytes(raw)


def digit(path: Path, rng: random.Random, other: Path) -> None:
    """One digit is another one: what is hardest to see. Where there is none, a bit."""
    raw = bytearray(path.read_bytes())
    places = [i for i, byte in enumerate(raw) if ord("0") <= byte <= ord("9")]
    if not places:
        return flip(path, rng, other)
    place = rng.choice(places)
    raw[place] = ord("0") + (raw[place] - ord("0") + rng.randrange(1, 10)) % 10
    path.write_bytes(raw)


def cut(path: Path, rng: random.Random, other: Path) -> None:
    """The end is gone: from somewhere on, or the last line."""
    raw = path.read_bytes()
    lines = raw.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) if rng.random() < 0.5 else raw[: rng.randrange(len(raw))])


def empty(path: Path, rng: random.Random, other: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path, rng: random.Random, other: Path) -> None:
    path.unlink()


def swap(path: Path, rng: random.Random, other: Path) -> None:
    """The file of that name of a folder that the same command has made under another seed, at the same place."""
    here = next((parent for parent in path.parents if parent.name == KEPT), path).parent
    whole = path.read_bytes()
    others = {one.read_bytes().replace(bytes(other.parent), bytes(here)) for one in other.rglob(path.name)} - {whole}
    path.write_bytes(rng.choice(sorted(others))) if others else gone(path, rng, other)


WAYS: tuple[Callable[[Path, random.Random, Path], None], ...] = (flip, digit, cut, empty, gone, swap)


def read(stage: Stage, reader: str) -> tuple[int | None, object, object]:
    """What a reader says of the folder: its exit code, what it prints, and what it writes."""
    (stage.folder / OUT).unlink(missing_ok=True)
    process = learning.start(stage.folder, *READERS[stage.name][reader])
    process.join(LONGEST)
    written = (stage.folder / OUT).read_bytes() if (stage.folder / OUT).exists() else None
    return process.exitcode, _meaning(stage.said("stdout.txt")), written


def _meaning(printed: str) -> object:
    try:
        return timeless(json.loads(printed))
    except ValueError:
        return printed


def befallen(stage: Stage, other: Stage, rng: random.Random, known: dict[str, object]) -> Tally:
    """Damage one file of a finished folder in one way, and read it by one reader.

    other: of another seed; known: what readers say of the folder as it is, filled as they are asked.
    """
    reader = rng.choice(sorted(READERS[stage.name]))
    if reader not in known:
        shutil.copytree(stage.alone, stage.kept)
        known[reader] = read(stage, reader)
        stage.clear()
    shutil.copytree(stage.alone, stage.kept)
    files = sorted(path for path in stage.kept.rglob("*") if path.is_file() and path.stat().st_size)
    path, way = rng.choice(files), rng.choice(WAYS)
    way(path, rng, other.alone)
    found, said = read(stage, reader), stage.said()
    stage.clear()
    case, tally = f"{way.__name__} {path.relative_to(stage.kept)}, {reader}", Tally()
    refused = found[0] not in (0, None) and "error[" in said
    if unclean(said) or found[0] is None:
        tally.unclean.append(f"{case}: exit code {found[0]}: {said[-300:]}")
    elif found != known[reader] and not refused:
        tally.differences.append(f"{case}: other results, exit code {found[0]}")
    elif refused and found != known[reader] and path.name not in "".join(said.split()):
        tally.unclean.append(f"{case}: the file is not named: {said[-300:]}")
    return tally
