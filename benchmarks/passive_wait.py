"""What it costs on an idle machine, and beside a busy process, how torch's threads wait: asleep, or after spinning for
a while, or spinning.

    $ python benchmarks/passive_wait.py [--rounds 5] [--counts 0,1000,10000] [--busy] [--out FILE]

Each round runs every count of spins in a process of its own, in an order that turns round by round, and threads that
spin on and on as what the others are compared with. Times are of the run alone, without loading: the shorter of two.
With `--busy`, a process keeps one core busy, and threads that spin are left out: they take minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import date
from pathlib import Path

from shipped import busy

ROOT = Path(__file__).resolve().parent.parent
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPINNING = "infinity"


def measure():
    """Seconds of the shorter of two runs after a first one."""
    import lmppl

    program = lmppl.compile(ROOT / "programs" / "opposites.lm")
    times = []
    for draws in (2, 8, 8):
        began = time.perf_counter()
        program.infer("importance", chains=2, num_samples=draws, X="hot", budget="none")
        times.append(time.perf_counter() - began)
    return min(times[1:])


def measured(count):
    """The same in a process of its own, whose threads spin so many times before they sleep."""
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    chosen = {"GOMP_SPINCOUNT": count, "OMP_WAIT_POLICY": "active" if count == SPINNING else "passive"}
    done = subprocess.run(
        [sys.executable, __file__, "--measure"], env={**kept, **chosen, "PYTHONPATH": str(ROOT)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def table(rounds, against, command, load):
    """Seconds of every round, and the median of each count's ratios to the one it is compared with."""
    counts = list(rounds[0])
    ratios = {count: statistics.median(times[count] / times[against] for times in rounds) for count in counts}
    rows = [f"| {' | '.join(f'{times[count]:.2f}' for count in counts)} |" for times in rounds]
    return "\n".join([
        f"{date.today()}, `{command}`, {os.cpu_count()} cores, load {load:.1f} before the first run.",
        "Seconds of `opposites` by importance sampling, 2 × 8 draws, smollm2-135m, by spins of a waiting thread.", "",
        f"| {' | '.join(counts)} |", f"|{'--:|' * len(counts)}", *rows,
        f"| {' | '.join(f'**{ratios[count]:.3f}**' for count in counts)} |", "",
        f"The last line has the medians of the ratios to {against}.", "",
    ])  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--counts", default="0,1000,10000", help="spins before a thread sleeps")
    parser.add_argument("--busy", action="store_true", help="beside a process that keeps one core busy")
    parser.add_argument("--out", type=Path, help="a file that the table is added to")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure()))
        return
    counts = [*asked.counts.split(","), *([] if asked.busy else [SPINNING])]
    load, rounds = os.getloadavg()[0], []
    with busy() if asked.busy else nullcontext():
        for number in range(asked.rounds):
            turned = counts[number % len(counts) :] + counts[: number % len(counts)]
            found = {count: measured(count) for count in turned}
            rounds.append({count: found[count] for count in counts})
            print(rounds[-1], file=sys.stderr, flush=True)
    against = counts[0] if asked.busy else SPINNING
    text = table(rounds, against, f"python benchmarks/passive_wait.py {' '.join(sys.argv[1:])}".strip(), load)
    print(text)
    if asked.out:
        with asked.out.open("a", encoding="utf-8") as file:
            file.write(f"\n{text}")


if __name__ == "__main__":
    main()
