"""What many rows cost: CPU time a row, memory, and the size of the JSON document.

    python benchmarks/rows.py [--rows 1000,3000,10000] [--out benchmarks/results/rows.md]

One choice of two options behind a given of 1 to 20 characters, which all differ, by `exact`, on a transformer of five
tokens: so what lmppl does for a row outweighs what the model does. Each number of rows is run in a process of its own;
memory is its peak beyond that of a run of 20 rows,
when all is drawn and when the document is there. Passes are the network's own CPU time, which the other columns leave
out.
"""

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = 'lm LM = "./tiny"\ngiven X\nZ ~ LM("a{X}") in ["a", "b"]\n'
COLUMNS = (
    "| rows | CPU ms a row, besides passes | passes | JSON, ms a row | JSON, MB | memory when drawn, MB "
    "| with its JSON, MB |"
)


def measure(count, folder):
    """One run, as a mapping."""
    import lmppl
    from lmppl.lm.transformers.huggingface import HuggingFaceModel

    passes = 0.0
    plain = HuggingFaceModel.run

    def run(model, **arguments):
        nonlocal passes
        started = time.process_time()
        try:
            return plain(model, **arguments)
        finally:
            passes += time.process_time() - started

    HuggingFaceModel.run = run
    program = lmppl.compile(folder / "p.lm")
    texts = ("".join(text) for n in range(1, 21) for text in itertools.product("abc", repeat=n))
    rows = [{"X": text} for text in itertools.islice(texts, count)]
    program.infer(data=rows[:20], engine="exact")
    before, passes, started = _peak(), 0.0, time.process_time()
    posterior = program.infer(data=rows, engine="exact")
    spent, peak = time.process_time() - started, _peak()
    started = time.process_time()
    document = json.dumps(posterior.document())
    return {
        "rows": count,
        "own": (spent - passes) / count * 1e3,
        "passes": passes / count * 1e3,
        "json": (time.process_time() - started) / count * 1e3,
        "size": len(document.encode()) / 1e6,
        "memory": peak - before,
        "written": _peak() - before,
    }


def _peak():
    """Of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(found, command):
    lines = [
        "# Many rows", "", f"{date.today().isoformat()}, `{command}`, on {_machine()}.", "",
        COLUMNS, "|" + "--:|" * (COLUMNS.count("|") - 1),
    ]  # fmt: skip
    for one in found:
        lines.append(
            f"| {one['rows']:,} | {one['own']:.2f} | {one['passes']:.2f} | {one['json']:.2f} | {one['size']:.1f} "
            f"| {one['memory']:.0f} | {one['written']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _machine():
    load = f"load {os.getloadavg()[0]:.1f} at the end"
    return f"{os.cpu_count()} cores ({platform.machine()}), {load}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,3000,10000")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.rows.split(",")]
    if arguments.one:
        print(json.dumps(measure(counts[0], arguments.one)))
        return
    sys.path.insert(0, str(ROOT / "tests"))
    from tiny import save

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder / "tiny", words=("a", "b", "c", "."))
        (folder / "p.lm").write_text(PROGRAM)
        found = []
        for count in counts:
            command = [sys.executable, __file__, "--rows", str(count), "--one", name]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(found[-1], file=sys.stderr)
    text = table(found, f"python benchmarks/rows.py --rows {arguments.rows}")
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
