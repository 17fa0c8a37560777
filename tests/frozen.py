"""What commands print, kept to show that a change of the layout has changed nothing.

    $ python tests/frozen.py --write          before the change
    $ python tests/frozen.py                  after it: names what differs, and ends with exit code 1
    $ python tests/frozen.py smc --keep DIR   cases that have the word; what they print goes into a folder

A case is a command line on tiny models: what it prints, the files that it writes and its exit code become a line of
frozen.jsonl, as a checksum. Times are left out. Bits of numbers are those of one kind of processor: on another one,
write the file before the change there. `--default` is for the shipped programs on the default model.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", NO_COLOR="1", COLUMNS="100", OMP_NUM_THREADS="1", GOMP_SPINCOUNT="0")
TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT), str(TESTS), str(TESTS / "laws")]

KEPT = TESTS / "frozen.jsonl"
PLACE = Path(tempfile.gettempdir()) / "lmppl-frozen"  # always the same: some files name the model's folder
TIMES = re.compile(r"\d{4}-\d\d-\d\d[T ][\d:.+Z-]*|\d+(\.\d+)? ?(ms|s|min|h)\b")
CLOCKS = {"seconds", "training_seconds", "tokens_per_second", "finished", "spent", "files", "checksum", "versions"}
SEEDS = (0, 1, 2)
SIZES = {
    "exact": ("--chains", "1", "--num-samples", "4"),
    "importance": ("--chains", "2", "--num-samples", "4"),
    "rejection": ("--chains", "2", "--num-samples", "2", "-o", "max_proposals=300"),
    "mcmc": ("--chains", "2", "--num-samples", "3", "--num-warmup", "3"),
    "annealed": ("--chains", "2", "--num-samples", "2", "-o", "particles=4"),
    "smc": ("--chains", "2", "--num-samples", "3", "-o", "particles=5"),
    "prompting": ("--chains", "1", "--num-samples", "4"),
    "auto": ("--budget", "400tokens"),
}
LEARNING = ("--num-samples", "4", "-o", "steps=3", "-o", "draws=3", "-o", "rank=2")
FORMS = ("llama", "mistral", "gemma", "metaspace")
HARD = (("tempered", "until", "nothing"), ("tempered", "free", "observe"), ("plain", "until", "choice"),
        ("tempered", "free", "regex"), ("plain", "until", "between"))  # fmt: skip
LABELS = 'lm LM = "./LM"\ngiven X\nlearn LM\nR ~ LM(X) max 2 tokens\nY ~ LM("{X}{R}") in [" a", " b"]\n'
ROWS = '{"X": " a", "Y": " a"}\n{"X": " b a", "Y": " b"}\n'
TEXTS = '{"X": " a", "Z": " a b"}\n{"X": " b a", "Z": " b"}\n'
SIMULATED = 'lm LM = "./LM"\nZ ~ LM(" a") max 2 tokens\nobserve " b" ~ LM(" a{Z}") max 2 tokens\n'
STATED = 'lm LM = "./LM"\ngiven X\nparam t = 2\nZ ~ LM(X)^(1/t) max 2 tokens\nobserve " b" ~ LM(" a{Z}")\n'
MISTAKES = (
    "run absent.lm", "run x.lm --set X=a --engine none", "run x.lm --set X=a -o none=1", "run x.lm --set Q=1",
    "run x.lm", "run x.lm --data absent.jsonl", "run x.lm --set X=a --chains 0",
    "run x.lm --set X=a --engine smc -o particles=-1",
    "run x.lm --set X=a --budget 3", "run x.lm --set X=a --lm LM=./absent", "summary absent", "report absent",
    "export run --to none", "run x.lm --set X=a --engine rejection -o temperature=nan", "explain x.lm --value Z=zzz",
    "em labels.lm --data absent.jsonl", "compare x.lm --set X=a --engines none", "none", "run",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A command line, the folder of its models, and what it writes."""

    name: str
    arguments: tuple[str, ...]
    writes: str = ""  # a file or folder


def cases() -> Iterator[Case]:
    """All on tiny models, in an order in which folders are there when they are read."""
    import grid

    for i, cell in enumerate(grid.CELLS):
        for engine in ("exact", "importance", "rejection", "mcmc", "annealed", "smc"):
            for seed in SEEDS:
                yield run(f"{'-'.join(cell)}", f"{i}.lm", engine, seed)
    for form in FORMS:
        for i, cell in enumerate(HARD):
            for engine in ("exact", "importance", "mcmc", "smc"):
                yield run(f"{form}-{'-'.join(cell)}", f"{form}-{i}.lm", engine, 0)
    for seed in SEEDS:
        for engine in ("auto", "prompting"):
            yield run("stated", "x.lm", engine, seed, "--set", "X= a")
        yield run("rows", "x.lm", "smc", seed, "--data", "rows.jsonl")
        for engine in ("gflownet", "ppo", "sft"):
            out = f"{engine}-{seed}"
            data = "texts.jsonl" if engine == "sft" else "rows.jsonl"
            flags = ("--data", data, "--seed", str(seed), *LEARNING, "--json", "--draws", "--out", out)
            yield Case(f"learning-{out}", ("run", "x.lm", "--engine", engine, *flags), out)
    for seed in SEEDS:
        flags = ("--adapter", f"gflownet-{seed}", "--set", "X= a", "--seed", str(seed))
        yield run(f"adapter-{seed}", "x.lm", "importance", seed, *flags)
    yield Case(
        "folder", ("run", "x.lm", "--data", "rows.jsonl", "--engine", "mcmc", *SIZES["mcmc"], "--out", "run"), "run"
    )
    for command in ("summary run --json", "summary run -v", "diagnose run", "report run --out page.html",
                    "export run --to csv --out run.csv", "export run --to jsonl --out lines.jsonl"):  # fmt: skip
        name = command.split()[-1] if "--out" in command else ""
        yield Case(command, tuple(command.split()), name)
    flags = ("--engine", "importance", "--num-samples", "6", "--rounds", "1", "--fit", "steps=2", "--fit", "rank=2")
    yield Case("em", ("em", "labels.lm", "--data", "rows.jsonl", *flags, "--json", "--out", "em"), "em")
    flags = ("--engines", "importance,mcmc,gflownet", "--budget", "60", "--seeds", "1", "-o", "gflownet.steps=2")
    yield Case(
        "compare", ("compare", "x.lm", "--data", "rows.jsonl", *flags, "--json", "--out", "compared"), "compared"
    )
    yield Case("sbc", ("sbc", "s.lm", "--engine", "importance", "--simulations", "3", "--json"))
    yield Case("bounds", ("bounds", "s.lm", "--simulations", "3", "--num-samples", "5", "--json"))
    for path in sorted(ROOT.glob("programs/*.lm")) + sorted(TESTS.glob("golden/check/*.lm")):
        for command in ("check --output-format json", "explain", "graph", "format --stdout"):
            words = command.split()
            place = str(path.relative_to(ROOT))
            yield Case(f"{command} {place}", (words[0], place, *words[1:]))
    for command in MISTAKES:
        yield Case(f"mistake {command}", tuple(command.split()))
    for command in (
        "--version",
        "--help",
        "engines",
        *(f"engines {engine}" for engine in ("smc", "exact", "gflownet")),
    ):
        yield Case(f"words {command}", tuple(command.split()))


def of_default_model() -> Iterator[Case]:
    """The shipped programs by two engines, on few draws."""
    for path in sorted(ROOT.glob("programs/*.lm")):
        data = next((d for d in (path.with_suffix(".jsonl"), path.with_suffix(".csv")) if d.exists()), None)
        flags = ("--data", str(data.relative_to(ROOT))) if data else ()
        for engine in ("importance", "smc", "mcmc"):
            for seed in SEEDS:
                yield run(f"shipped-{path.stem}", str(path.relative_to(ROOT)), engine, seed, *flags)


def run(name: str, program: str, engine: str, seed: int, *flags: str) -> Case:
    """A run that prints all of its draws."""
    flags = ("--engine", engine, *SIZES[engine], "--seed", str(seed), "--json", "--draws", *flags)
    return Case(f"{name}-{engine}-{seed}", ("run", program, *flags))


def furnish(folder: Path) -> None:
    """Models, programs and data that the cases name."""
    import grid
    import tiny

    for name, seed in (("LM", 6), ("OTHER", 1)):
        tiny.save(folder / name, seed=seed)
        tiny.save(folder / f"{name}-json", grid.NUMBERS, seed=seed)
    for name in ("list.lark", "number.json", "helpers.py"):
        shutil.copy(grid.FOLDER / name, folder)
    for i, cell in enumerate(grid.CELLS):
        (folder / f"{i}.lm").write_text(placed(grid.text(*cell), "-json" if cell[2] == "json" else ""), "utf-8")
    for form in FORMS:
        tiny.save(folder / f"LM-{form}", seed=6, chosen=tiny.sentencepiece(form=form))
        for i, cell in enumerate(HARD):
            (folder / f"{form}-{i}.lm").write_text(placed(grid.text(*cell), f"-{form}"), "utf-8")
    for name, text in (("labels.lm", LABELS), ("rows.jsonl", ROWS), ("x.lm", STATED),
                       ("texts.jsonl", TEXTS), ("s.lm", SIMULATED)):  # fmt: skip
        (folder / name).write_text(text, "utf-8")
    (folder / "programs").symlink_to(ROOT / "programs")
    (folder / "grammars").symlink_to(ROOT / "grammars")
    (folder / "tests").symlink_to(TESTS)


def placed(text: str, suffix: str) -> str:
    """A program of the grid, whose models are folders."""
    return re.sub(r'lm (\w+) = "tiny"', lambda found: f'lm {found[1]} = "./{found[1]}{suffix}"', text)


def result(case: Case) -> dict[str, object]:
    """What a command gives: its exit code, what it prints, its files."""
    from lmppl.cli import main

    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["lmppl", *case.arguments]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv = before
    said = [re.sub(r"/\S*/lmppl/\S*:", "", line) for line in err.getvalue().splitlines() if line[:7] != "lmppl: "]
    return {
        "code": code,
        "out": placeless(out.getvalue()),
        "err": placeless("\n".join(said)),
        "files": files(case.writes),
    }


def files(name: str) -> dict[str, str]:
    """Contents of what a command has written, by name; what is no text as a checksum."""
    path = Path(name)
    if not name or not path.exists():
        return {}
    found = {}
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file() and one.suffix in (".json", ".jsonl", ".csv", ".html"):
            found[str(one)] = placeless(one.read_text(encoding="utf-8"))
        elif one.is_file() and one.name != ".lock":
            found[str(one)] = hashlib.sha256(one.read_bytes()).hexdigest()
    return found


def placeless(text: str) -> str:
    """A text without times, and without the name of the folder that all is in."""
    return timeless(text).replace(os.getcwd(), "FOLDER")


def timeless(text: str) -> str:
    """A text without times, whether it is JSON, lines of JSON, or for people."""
    try:
        return json.dumps(without(json.loads(text)))
    except ValueError:
        pass
    try:
        return "\n".join(json.dumps(without(json.loads(line))) for line in text.splitlines())
    except ValueError:
        return TIMES.sub("TIME", text)


def without(value: object) -> object:
    """A JSON value without what tells of time."""
    if isinstance(value, dict):
        return {key: without(inner) for key, inner in value.items() if key not in CLOCKS}
    if isinstance(value, list):
        return [without(inner) for inner in value]
    return TIMES.sub("TIME", value) if isinstance(value, str) else value


def digest(found: dict[str, object]) -> str:
    """A checksum of what a command gives."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def main() -> int:
    """Run the cases; write the file, or compare with it."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("words", nargs="*", help="of the cases to run; all where there are none")
    flags.add_argument("--write", action="store_true", help="keep what comes out")
    flags.add_argument("--default", action="store_true", help="the shipped programs on the default model alone")
    flags.add_argument("--keep", type=Path, help="a folder for what the commands print")
    asked = flags.parse_args()
    keep = asked.keep.resolve() if asked.keep else None
    kept = (
        {line["case"]: line for line in map(json.loads, KEPT.read_text("utf-8").splitlines())} if KEPT.exists() else {}
    )
    import torch

    torch.set_num_threads(1)
    differing = []
    lock = PLACE.with_suffix(".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time: all have the same place
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    os.chdir(PLACE)
    furnish(PLACE)
    for case in of_default_model() if asked.default else cases():
        if not all(word in case.name for word in asked.words):
            continue
        found = result(case)
        line = {"case": case.name, "code": found["code"], "digest": digest(found)}
        if kept.get(case.name) != line:
            differing.append(case.name)
            print(f"differs: {case.name}", flush=True)
        if asked.write:
            kept[case.name] = line
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            name = re.sub(r"[^\w.-]+", "_", case.name)
            (keep / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False), "utf-8")
    os.chdir("/")
    shutil.rmtree(PLACE)
    if asked.write:
        KEPT.write_text("".join(json.dumps(line) + "\n" for line in kept.values()), "utf-8")
    print(f"{len(differing)} cases differ")
    return int(bool(differing) and not asked.write)


if __name__ == "__main__":
    sys.exit(main())
