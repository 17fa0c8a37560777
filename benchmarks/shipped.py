"""Every shipped program by `auto`, with no options but its data, beside a process that keeps one core busy.

    $ python benchmarks/shipped.py [--seeds 3] [--programs json,haiku]

Each program × seed is a line of results/shipped-cpu.jsonl, written as soon as it is known; what is there is not run
again. The table results/shipped-cpu.md is made anew from all lines.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
LINES, TABLE = RESULTS / "shipped-cpu.jsonl", RESULTS / "shipped-cpu.md"
MOST = 600  # seconds after which a run is given up


@contextmanager
def busy() -> Iterator[None]:
    """A process that does something else all the time."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def data_of(program: Path) -> Path | None:
    """The rows that come with a program."""
    return next((path for path in (program.with_suffix(".jsonl"), program.with_suffix(".csv")) if path.exists()), None)


def measured(program: Path, seed: int) -> dict[str, Any]:
    """One run in a process of its own: when it first said something, when it was done, and what it says."""
    data = data_of(program)
    command = [sys.executable, "-m", "lmppl", "run", str(program), *(["--data", str(data)] if data else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:  # a pipe could fill
        line, said, code = timed([*command, "--seed", str(seed), "--json"], environment, output)
        line = {"program": program.stem, "seed": seed, **line, "load": os.getloadavg()[0]}
        if code != 0:
            return {**line, "verdict": f"exit code {code}", "said": said[-3:]}
        output.seek(0)
        document = json.load(output)
    checks = {
        f"{c['name']}: {c['status']}"
        for row in document["rows"]
        for c in row["diagnostics"]["checks"]
        if c["status"] != "pass"
    }
    options, cost = document["options"], document["cost"]
    return {
        **line, "verdict": document["verdict"], "checks": sorted(checks), "engine": document["engine"],
        "sizes": f"{options['chains']} × {options['num_samples']}", "rows": len(document["rows"]),
        "tokens": cost["tokens_decoded"] + cost["tokens_scored"],
        "cut": sum(any("time is over" in w for w in row["warnings"]) for row in document["rows"]),
    }  # fmt: skip


def timed(
    command: Sequence[str], environment: dict[str, str], output: IO[str]
) -> tuple[dict[str, float], list[str], int]:
    """Seconds to the first line and to the end of a command, what it says beside its output, and its exit code."""
    began, before = time.perf_counter(), _cpu()
    process = subprocess.Popen(
        command, stdout=output, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )
    times: list[float] = []
    said: list[str] = []

    def listen() -> None:
        for line in process.stderr or ():
            times.append(time.perf_counter() - began)
            said.append(line.rstrip())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        process.wait(MOST)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    seconds = time.perf_counter() - began
    listener.join(5)
    found = {"first_line": min(times, default=seconds), "seconds": seconds, "cpu": _cpu() - before}
    return found, said, process.returncode


def _cpu() -> float:
    """Seconds of processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read() -> list[dict[str, Any]]:
    """What is known so far."""
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()] if LINES.exists() else []


def table(lines: Sequence[dict[str, Any]]) -> str:
    """All lines as a page."""
    columns = (
        "program | seed | first line, s | done, s | CPU, s | verdict | engine | draws | rows | tokens | cut | load "
        "| not passed"
    )
    head = (
        "# The shipped programs by `auto`\n\n"
        "`python benchmarks/shipped.py`: `lmppl run PROGRAM --data ITS-ROWS --seed S`, smollm2-135m, two cores beside\n"
        "a process that keeps one of them busy. Seconds are of the whole command, `CPU` those that it got of both\n"
        "cores. `load` is the machine's mean load in the last minute as the run ended: 2 to 3 where nothing else ran;\n"
        "more where others worked, and times with it: most lines of November 2026 are of two cores with five to ten\n"
        "other jobs, of which these had about one core (CPU over seconds). `cut`: rows that were not done in time and\n"
        "are left with the draws that they had.\n\n"
        f"| {columns} |\n{'|---' * (1 + columns.count('|'))}|\n"
    )
    order = sorted(lines, key=lambda line: (line["program"], line["seed"]))
    return head + "".join(
        f"| {x['program']} | {x['seed']} | {x['first_line']:.1f} | {x['seconds']:.0f} | {x['cpu']:.0f} | "
        f"{x['verdict']} | "
        f"{x.get('engine', '–')} | {x.get('sizes', '–')} | {x.get('rows', '–')} | {x.get('tokens', '–')} | "
        f"{x.get('cut', '–')} | {x['load']:.1f} | {', '.join(x.get('checks', [])) or '–'} |\n"
        for x in order
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--programs", default="", help="names, all where there are none")
    asked = parser.parse_args()
    names = [name for name in asked.programs.split(",") if name]
    programs = [path for path in sorted((ROOT / "programs").glob("*.lm")) if not names or path.stem in names]
    with busy():
        for seed in range(asked.seeds):
            for program in programs:
                if any((line["program"], line["seed"]) == (program.stem, seed) for line in read()):
                    continue
                line = measured(program, seed)
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
                print(json.dumps(line, ensure_ascii=False), flush=True)
                TABLE.write_text(table(read()), encoding="utf-8")
    TABLE.write_text(table(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
