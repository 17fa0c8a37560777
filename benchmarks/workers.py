"""Rows over workers: what a second one brings, and whether many rows take more memory than few.

    python benchmarks/workers.py --speed [--turns 5] [--rows 64]
    python benchmarks/workers.py --many 100000 [--workers 2]
    (either with --out benchmarks/results/workers.md, which is written anew, or --add, to add to it)

`--speed`: rows of a text of the default model by `importance`, where nearly all time is the network's. One worker with
two threads and two with one thread each take turns; times are from the first row on, without loading. The ratio is that
of the medians.

`--many`: one choice behind a given that differs in every row, on a transformer of five tokens, by `exact`. The run is
killed twice, with all its processes, and gone on with; it must be, byte by byte, the run that nobody has killed. Memory
is that of the process which keeps rows, and of the largest worker, when a tenth of the rows are done and when nearly
all are.
"""

import argparse
import hashlib
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SPEED = 'lm LM = "smollm2-135m"\ngiven X\nZ ~ LM(X) max 12 tokens\nobserve " It was late." | X, Z\n'
MANY = 'lm LM = "./tiny"\ngiven X\nZ ~ LM("a{X}") in ["a", "b"]\n'
CUTS = (0.35, 0.7)  # of the rows: where the run is killed


def rows_a_second(program, rows, workers, threads):
    """Of one run, from the moment when models are loaded and rows are read."""
    import lmppl

    began = []

    def progress(what, done, total):
        if what.startswith("rows by") and not began:
            began.append(time.perf_counter())

    os.environ["OMP_NUM_THREADS"] = str(threads)
    lmppl.compile(program).infer(
        "importance", data=rows, workers=workers, num_samples=16, chains=4, progress=progress, device="cpu"
    )
    return len(rows) / (time.perf_counter() - began[0])


def speed(turns, count):
    texts = itertools.product(
        ("The ship", "A letter", "My brother", "The rain"), ("came", "was late", "left us", "is here")
    )
    starts = [" ".join(words) for words in texts]
    rows = [{"X": f"{starts[n % 16]}, on day {n}."} for n in range(count)]
    found = {1: [], 2: []}
    for turn in range(turns):
        for workers in (1, 2) if turn % 2 else (2, 1):
            found[workers].append(rows_a_second(SPEED, rows, workers, 2))
            print(workers, found[workers][-1], file=sys.stderr)
    one, two = (statistics.median(found[workers]) for workers in (1, 2))
    lines = [
        f"{count} rows, 64 draws of up to 12 tokens each, two threads in all, {turns} turns:", "",
        "| workers | rows/s, median | all turns |", "|--:|--:|---|",
    ]  # fmt: skip
    for workers, median in ((1, one), (2, two)):
        lines.append(f"| {workers} | {median:.2f} | {', '.join(f'{value:.2f}' for value in found[workers])} |")
    return [*lines, "", f"Ratio of the medians: **{two / one:.2f}**."]


class Watched:
    """A command, with the memory of its processes when so many rows are done."""

    def __init__(self, folder, place, workers, *more):
        command = [
            sys.executable,
            "-m",
            "lmppl",
            "run",
            "p.lm",
            "--data",
            "d.jsonl",
            "--engine",
            "exact",
            "--device",
            "cpu",
        ]
        command += ["--chains", "1", "--num-samples", "2", "--workers", str(workers), *more]
        self.rows = place / "unfinished" / "rows.jsonl"
        self.process = subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL)
        self.memory = []  # (rows, MB of who keeps, MB of the largest worker)

    def until(self, count):
        """Wait for so many rows, or for the end."""
        while self.process.poll() is None:
            done = sum(1 for _ in self.rows.open("rb")) if self.rows.exists() else 0
            self.look(done)
            if done >= count:
                break
            time.sleep(3)

    def look(self, done):
        try:
            keeper = psutil.Process(self.process.pid)
            sizes = [one.memory_info().rss / 1e6 for one in keeper.children()]
            self.memory.append((done, keeper.memory_info().rss / 1e6, max(sizes, default=0)))
        except psutil.Error:  # it has just ended
            pass

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def made(folder):
    """What a run comes to, but for its cost and dates."""
    draws = hashlib.sha256((folder / "draws.jsonl").read_bytes()).hexdigest()
    document = json.loads((folder / "run.json").read_text())
    return draws, document["rows"], document["options"]


def many(count, workers):
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import save

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "tiny", words=("a", "b", "c", "."))
        (folder / "p.lm").write_text(MANY)
        texts = ("".join(text) for n in range(1, 21) for text in itertools.product("abc", repeat=n))
        with (folder / "d.jsonl").open("w") as file:
            file.writelines(f'{{"X": "{text}"}}\n' for text in itertools.islice(texts, count))
        started = time.perf_counter()
        whole = Watched(folder, folder / "whole", workers, "--out", "whole")
        whole.until(count + 1)
        seconds = time.perf_counter() - started
        for cut, flag in zip(CUTS, ("--out", "--resume"), strict=True):
            begun = Watched(folder, folder / "killed", workers, flag, "killed")
            begun.until(cut * count)
            begun.kill()
        ended = Watched(folder, folder / "killed", workers, "--resume", "killed")
        ended.until(count + 1)
        assert (whole.process.returncode, ended.process.returncode) == (0, 0)
        equal = made(folder / "whole") == made(folder / "killed")
    lines = [
        f"{count:,} rows by {workers} workers, {seconds:.0f} s ({count / seconds:.0f} rows/s). Killed at "
        f"{CUTS[0]:.0%} and at {CUTS[1]:.0%} of the rows and gone on with, the run is "
        f"{'**equal**' if equal else '**NOT equal**'}: draws byte by byte, rows number by number.", "",
        "| rows done | keeps rows, MB | largest worker, MB |", "|--:|--:|--:|",
    ]  # fmt: skip
    drawing = [look for look in whole.memory if look[0]]
    for share in (0.1, 0.3, 0.5, 0.7, 0.95):
        done, keeper, worker = min(drawing, key=lambda look: abs(look[0] - share * count))
        lines.append(f"| {done:,} | {keeper:.0f} | {worker:.0f} |")
    return [*lines, f"| the end | {max(look[1] for look in whole.memory):.0f} at most | |"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--many", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", type=Path)
    arguments = parser.parse_args()
    lines = speed(arguments.turns, arguments.rows) if arguments.speed else many(arguments.many, arguments.workers)
    flags = [flag for flag in sys.argv[1:] if not flag.endswith(".md") and flag not in ("--out", "--add")]
    about = f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f} at the end"
    head = f"{date.today().isoformat()}, `python benchmarks/workers.py {' '.join(flags)}`, on {about}."
    text = "\n".join([head, "", *lines, ""])
    print(text)
    if arguments.out:
        arguments.out.write_text(f"# Rows over workers\n\n{text}")
    if arguments.add:
        with arguments.add.open("a") as file:
            file.write(f"\n{text}")


if __name__ == "__main__":
    main()
