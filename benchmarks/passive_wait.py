"""What it costs on an idle machine that torch's threads sleep while they wait: the same run with threads that spin.

    $ python benchmarks/passive_wait.py [--pairs 6] [--out benchmarks/results/passive-wait.md]

Runs alternate, each in a process of its own; times are of the run alone, without loading. Ratios are of a pair.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SPINNING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "infinity"}


def measure():
    """Seconds of two runs, the second of which counts."""
    import lmppl

    program = lmppl.compile(ROOT / "programs" / "opposites.lm")
    times = []
    for _ in range(2):
        began = time.perf_counter()
        program.infer("importance", chains=2, num_samples=16, X="hot", budget="none")
        times.append(time.perf_counter() - began)
    return times[-1]


def measured(environment):
    """The same in a process of its own."""
    kept = {name: value for name, value in os.environ.items() if name not in SPINNING}
    done = subprocess.run(
        [sys.executable, __file__, "--measure"], env={**kept, **environment, "PYTHONPATH": str(ROOT)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure()))
        return
    load = os.getloadavg()[0]
    pairs = [(measured({}), measured(SPINNING)) for _ in range(asked.pairs)]
    ratio = statistics.median(asleep / spinning for asleep, spinning in pairs)
    rows = [f"| {asleep:.2f} | {spinning:.2f} | {asleep / spinning:.3f} |" for asleep, spinning in pairs]
    table = "\n".join([
        "# Threads that sleep while they wait, on an idle machine", "",
        f"{date.today()}, `python benchmarks/passive_wait.py --pairs {asked.pairs}`, {os.cpu_count()} cores, load "
        f"{load:.1f} before the first run. Seconds of `opposites` by importance sampling, 2 × 16 draws, smollm2-135m.",
        f"The median of the ratios is **{ratio:.3f}**.", "",
        "| asleep, s | spinning, s | ratio |", "|--:|--:|--:|", *rows, "",
    ])  # fmt: skip
    print(table)
    if asked.out:
        asked.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
