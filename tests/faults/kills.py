"""Commands that are killed at random and begun again, against the same command left alone.

`python tests/faults/kills.py --kills 100 --out benchmarks/results/faults.md` for all commands; tests run a few. Each
command is started, killed by SIGKILL, SIGTERM or SIGINT after a random time, and started again, until it ends by
itself; then its folder must be the one that was left alone, bit for bit, but for times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import learning
import tiny

PROGRAM = 'lm LM = "./model"\ngiven X\nZ ~ LM(X)^1.5 max 3 tokens\nobserve " b" ~ LM(" a{Z}")\n'
LABELS = 'lm LM = "./model"\ngiven X\nlearn LM\nR ~ LM(X) max 2 tokens\nY ~ LM("{X}{R}") in [" a", " b"]\n'
FITS = ("-o", "steps=12", "-o", "save_every=3", "-o", "draws=4", "-o", "rank=2")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ENDINGS = (-signal.SIGKILL, -signal.SIGTERM, 130)  # exit codes of what was stopped
TIMES = ("seconds", "finished", "log", "spent", "finding")  # what may differ
COMMANDS = {
    "run": ("run", "p.lm", "--data", "d.jsonl", "--engine", "smc", "--num-samples", "300", "--force", "--out"),
    "gflownet": ("run", "p.lm", "--data", "d.jsonl", "--engine", "gflownet", "--num-samples", "20", *FITS, "--resume"),
    "em": ("em", "labels.lm", "--data", "labels.jsonl", "--engine", "importance", "--num-samples", "30", "--rounds",
           "1", "--fit", "steps=4", "--fit", "rank=2", "--out"),
    "compare": ("compare", "p.lm", "--data", "d.jsonl", "--engines", "importance,gflownet", "--budget", "200",
                "--seeds", "1", "-o", "gflownet.steps=6", "-o", "gflownet.save_every=2", "--out"),
}  # fmt: skip


@dataclass
class Tally:
    """What came of a command's kills."""

    kills: int = 0
    ended: int = 0  # how often it came to its end
    differences: list[str] = field(default_factory=list)
    wrong_codes: list[str] = field(default_factory=list)  # of stopped commands, with what they said


def furnished(folder: Path, model: Path) -> Path:
    """A folder with the programs, their data and a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model").symlink_to(model)
    (folder / "p.lm").write_text(PROGRAM, encoding="utf-8")
    (folder / "labels.lm").write_text(LABELS, encoding="utf-8")
    (folder / "d.jsonl").write_text('{"X": " a"}\n{"X": " b a"}\n', encoding="utf-8")
    (folder / "labels.jsonl").write_text('{"X": " a", "Y": " a"}\n{"X": " b a", "Y": " b"}\n', encoding="utf-8")
    return folder


def content(folder: Path) -> dict[str, object]:
    """What is in a folder, by name; JSON without what may differ."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name in (".lock", "log.jsonl"):
            continue
        raw = path.read_bytes()
        found[name] = _timeless(json.loads(raw)) if path.suffix == ".json" else raw
    return found


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in (*TIMES, "cost", "files")}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def alone(folder: Path, name: str) -> tuple[dict[str, object], float]:
    """The folder of a command that nobody disturbs, and how long it took."""
    began = time.monotonic()
    learning.run(folder, *COMMANDS[name], "kept")
    seconds = time.monotonic() - began
    (folder / "kept").rename(folder / f"{name}-alone")
    return content(folder / f"{name}-alone"), seconds


def kill_until_done(
    folder: Path, name: str, whole: dict[str, object], seconds: float, rng: random.Random, most: int
) -> Tally:
    """Start a command, stop it at a random moment, and start it again, until it ends or was stopped `most` times."""
    tally = Tally()
    while True:
        process = learning.start(folder, *COMMANDS[name], "kept")
        if tally.kills < most:
            process.join(rng.uniform(0, 1.2 * seconds))
        number = rng.choice(SIGNALS)
        if process.exitcode is None and tally.kills < most:
            stop(process, number)
            tally.kills += 1
        process.join(200)
        if process.exitcode == 0:
            break
        said = (folder / "stderr.txt").read_text(encoding="utf-8", errors="replace")
        if process.exitcode not in ENDINGS or "Traceback" in said or "internal" in said:
            tally.wrong_codes.append(f"{number.name}: exit code {process.exitcode}: {said[-300:]}")
            if process.exitcode is None or tally.kills >= most:
                process.kill()
                break
    tally.ended = 1
    tally.differences = differing(content(folder / "kept"), whole) if (folder / "kept").exists() else ["no folder"]
    left = [path.name for path in folder.iterdir() if path.name.startswith((".kept", "kept."))]
    tally.differences += [f"left behind: {one}" for one in left]
    shutil.rmtree(folder / "kept", ignore_errors=True)
    return tally


def stop(process, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, number)


def differing(found: dict[str, object], whole: dict[str, object]) -> list[str]:
    """Names of files that differ, or are on one side alone."""
    return sorted(name for name in {**found, **whole} if found.get(name) != whole.get(name))


def main() -> None:
    """Kill every command so often, and write the table."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--kills", type=int, default=100, help="of each command")
    flags.add_argument("--each", type=int, default=4, help="most kills of one run of a command")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--commands", default=",".join(COMMANDS))
    flags.add_argument("--out", type=Path)
    asked = flags.parse_args()
    rng, lines, bad = random.Random(asked.seed), [], 0
    with tempfile.TemporaryDirectory() as work:
        model = tiny.save(Path(work) / "model", seed=6)
        for name in asked.commands.split(","):
            folder = furnished(Path(work) / name, model)
            learning.run(folder, "check", "p.lm")  # the first process loads everything
            whole, seconds = alone(folder, name)
            tallies: list[Tally] = []
            while sum(tally.kills for tally in tallies) < asked.kills:
                tallies.append(kill_until_done(folder, name, whole, seconds, rng, asked.each))
                for said in [*tallies[-1].differences, *tallies[-1].wrong_codes]:
                    print(f"{name}: {said}", file=sys.stderr, flush=True)
            kills, differences = sum(t.kills for t in tallies), sum(bool(t.differences) for t in tallies)
            codes = sum(len(t.wrong_codes) for t in tallies)
            bad += differences + codes
            lines.append(f"| `{name}` | {kills} | {len(tallies)} | {differences} | {codes} |")
            print(lines[-1], flush=True)
    table = [
        "# Commands that are killed at random", "",
        f"`python tests/faults/kills.py --kills {asked.kills} --seed {asked.seed}`, on the tiny model: SIGKILL (half),",
        "SIGTERM and SIGINT at a random moment, then the same command again, until it ends. Its folder is compared",
        "with that of a run left alone, file by file and bit by bit, but for times and costs.", "",
        "| command | kills | runs ended | that differ | unclean ends |", "|---|--:|--:|--:|--:|", *lines, "",
    ]  # fmt: skip
    if asked.out:
        asked.out.write_text("\n".join(table), encoding="utf-8")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
