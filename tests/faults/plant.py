"""Plants the bugs of planted.py one at a time in a copy of the checkout, and runs the tests that must see each.

    python tests/faults/plant.py [WORDS]

WORDS: of the bugs to plant; all where there are none. Each bug is a line of benchmarks/results/planted.jsonl as soon as
it is known, and one that was seen is not planted again: take the file away to begin anew. The table beside it is made
from its lines. Ends with exit code 1 where fewer than 95 % are seen.
"""

from __future__ import annotations

import compileall
import dataclasses
import json
import multiprocessing
import os
import py_compile
import shlex
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}

import peft  # noqa: F401  what takes seconds to load is loaded once, for all bugs
import pyro.ops.stats  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401
from planted import BUGS, Bug

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LINES, TABLE = RESULTS / "planted.jsonl", RESULTS / "planted.md"
COPIED = ("lmppl", "tests", "grammars", "programs", "docs", "benchmarks", "pyproject.toml", "README.md")
SEEN = {0: "missed", 1: "seen"}  # by pytest's exit code; another one is no answer
ENOUGH = 0.95
MOST = 600  # seconds for the tests of a bug
SAID = "said.txt"  # what the tests of the last bug printed


def main() -> int:
    """Plant what has not been planted, and write the table."""
    words = sys.argv[1:]
    known = {_key(line): line for line in _read()}
    wanted = [bug for bug in BUGS if all(word in f"{bug.file} {bug.what}" for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _copy(place)
        for bug in wanted:
            if (key := _key(dataclasses.asdict(bug))) not in known or known[key]["found"] != "seen":
                known[key] = {**dataclasses.asdict(bug), **planted(bug, place)}
                print(f"{known[key]['found']:8} {known[key]['seconds']:4.0f} s  {bug.file}: {bug.what}", flush=True)
                _write([known[k] for b in BUGS if (k := _key(dataclasses.asdict(b))) in known])
    found = [known[_key(dataclasses.asdict(bug))]["found"] for bug in wanted]
    print(f"{found.count('seen')} of {len(found)} bugs are seen")
    return int(found.count("seen") < ENOUGH * len(found))


def planted(bug: Bug, place: Path) -> dict[str, object]:
    """What the tests say of a copy of the checkout with a bug in it; the copy is then as it was."""
    path = place / "lmppl" / bug.file
    text = path.read_text(encoding="utf-8")
    assert text.count(bug.old) == 1, f"{bug.file}: {bug.old}"
    path.write_text(text.replace(bug.old, bug.new), encoding="utf-8")
    began = time.perf_counter()
    process = multiprocessing.get_context("fork").Process(target=_test, args=(place, shlex.split(bug.tests)))
    process.start()
    process.join(MOST)
    found = "no end" if process.exitcode is None else SEEN.get(process.exitcode, f"exit code {process.exitcode}")
    with suppress(ProcessLookupError):  # what it has left running, too
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    path.write_text(text, encoding="utf-8")
    said = (place / SAID).read_text(encoding="utf-8", errors="replace").splitlines()
    by = next((line.split()[1] for line in said if line.startswith(("FAILED ", "ERROR "))), "")
    if (found == "seen") != bool(by):  # no test has failed, but what runs them
        found = f"not run: {said[-1] if said else ''}"
    return {"found": found, "by": by, "seconds": round(time.perf_counter() - began, 1)}


def _test(place: Path, arguments: list[str]) -> None:
    """Run tests in a process forked off this one, which has loaded the libraries, and nothing of lmppl."""
    os.setsid()
    output = os.open(place / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(place / "tests")
    os.environ |= {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(place))
    loaded = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # what is there already keeps its asserts
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *loaded, *arguments]))


def _copy(place: Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, place / name)
    compiled = py_compile.PycInvalidationMode.CHECKED_HASH  # by content: a bug may be as long as what it replaces
    compileall.compile_dir(place / "lmppl", quiet=1, invalidation_mode=compiled)


def _key(line: dict[str, object]) -> tuple[object, ...]:
    return tuple(line[field.name] for field in dataclasses.fields(Bug))


def _read() -> list[dict[str, object]]:
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()] if LINES.exists() else []


def _write(lines: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    LINES.write_text(text, encoding="utf-8")
    seen = sum(line["found"] == "seen" for line in lines)
    head = (
        "# Planted bugs, and the tests that see them\n\n"
        "`make faults`: each bug of tests/faults/planted.py by itself in a copy of the checkout, and the tests that\n"
        f"must fail then. {seen} of {len(lines)} are seen. Seconds are those of one process that has its libraries\n"
        "loaded, to the first failure, on two cores that had much other work.\n\n"
        "| file | fault | found | by | s |\n|---|---|---|---|---|\n"
    )
    rows = [f"| {x['file']} | {x['what']} | {x['found']} | {x['by'] or '–'} | {x['seconds']:.0f} |" for x in lines]
    TABLE.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
