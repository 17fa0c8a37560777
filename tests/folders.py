"""Mutated folders through every command that reads them: findings come back, or what was asked for, and no bug.

Folders of runs, of training, of comparisons and of em, made with the tiny model, then mutated: values of their JSON put
in place of others, removed, doubled, made huge or odd; bytes and lines of their files. Most get new checksums, as a
folder has that somebody else has written.

python tests/folders.py --count 10000 --seed 0
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

from lmppl.cli import main as command
from lmppl.storage.checksums import CHECKSUM, listed, sealed

CHOICE = 'given X\nZ ~ LM("{X} a") in [" a", " b", "."]\nobserve " a" ~ LM("{Z}")\npredict Z\nstatistic n = tokens(Z)\n'
TEXT = 'Z ~ LM(" a") max 3 tokens\nconstrain contains(Z, "b")\nstatistic n = tokens(Z)\n'
LEARNED = 'given X\nW ~ LM("{X}") max 2 tokens\nobserve " b" ~ LM("{W}")\nlearn LM\n'
FAST = ("--chains", "2", "--num-samples", "6")
MADE = {  # program and arguments of every folder
    "exact": (CHOICE, "run", "--engine", "exact", "--data", "d.jsonl", *FAST),
    "importance": (TEXT, "run", "--engine", "importance", *FAST),
    "annealed": (TEXT, "run", "--engine", "annealed", "-o", "particles=4", *FAST),
    "smc": (TEXT, "run", "--engine", "smc", "-o", "particles=4", *FAST),
    "mcmc": (TEXT, "run", "--engine", "mcmc", "--num-warmup", "4", "-o", "lag=1", "-o", "pairs=2", *FAST),
    "prompting": (TEXT, "run", "--engine", "prompting", *FAST),
    "gflownet": (TEXT, "run", "--engine", "gflownet", "-o", "steps=3", "-o", "draws=4", *FAST),
    "compare": (CHOICE, "compare", "--engines", "exact,importance", "--data", "d.jsonl", "--seeds", "1",
                "--budget", "none", "-o", "importance.chains=2", "-o", "importance.num_samples=6"),
    "em": (LEARNED, "em", "--data", "d.jsonl", "--rounds", "1", "--fit", "steps=2", *FAST),
}  # fmt: skip
READ_AT = {"em": "em/rounds/1/draws"}  # the run in a folder that is not one itself
READING = (
    ("summary",), ("summary", "-v"), ("summary", "--json", "--draws"), ("diagnose",), ("diagnose", "--json"),
    ("export", "--to", "csv"), ("export", "--to", "jsonl"), ("export", "--to", "parquet"), ("export", "--to", "arviz"),
    ("report",),
)  # fmt: skip
ODD = (
    None, True, False, 0, -1, 1, 3, 0.5, -0.0, 1e308, 5e-324, 10**400, -(2**63), 2**64, "", "a", "-inf", "nan", "inf",
    "\x1b[2J\x07", "\u202e</script><!--", "../../etc/passwd", "/dev/zero", "\0", "é" * 300, "{Z}", [], {}, [[]],
    [None], [0, "a"], {"": None}, {"a": {"b": [1]}}, [1e308, -1e308], "exact", "mcmc", "Z", "0" * 5000,
)  # fmt: skip


def run_command(folder, *arguments):
    """The exit code of a command in this process, and what it has printed: on both streams, and on the second alone."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["lmppl", *arguments]),
        mock.patch.dict(os.environ, {"LMPPL_TRACEBACK": "1", "COLUMNS": "100"}),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            command()
            code = 0
        except SystemExit as stopped:
            code = stopped.code or 0
    return code, out.getvalue(), err.getvalue()


def make(folder, model, names=tuple(MADE)):
    """Sound folders to mutate, each under its name."""
    (folder / "model").symlink_to(model)
    (folder / "d.jsonl").write_text('{"X": " a"}\n{"X": " b."}\n')
    for name in names:
        body, *arguments = MADE[name]
        (folder / "p.lm").write_text(f'lm LM = "./model"\n{body}')
        code, out, err = run_command(folder, arguments[0], "p.lm", *arguments[1:], "--out", name)
        assert code == 0, out + err
    return [folder / READ_AT.get(name, name) for name in names]


# --- mutations ------------------------------------------------------------------------------------


def places(value, path=()):
    """Paths of all values in a JSON value."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def changed(document, chance):
    """A JSON value with one change somewhere; all depths are as likely."""
    known = list(places(document))
    depth = chance.choice(sorted({len(path) for path in known}))
    path = chance.choice([path for path in known if len(path) == depth])
    new = chance.choice((chance.choice(ODD), at(document, chance.choice(known))))
    if chance.random() < 0.7:  # of the same kind: what is refused at once tells nothing of the commands
        alike = [
            value for value in (*ODD, *map(partial(at, document), known)) if type(value) is type(at(document, path))
        ]
        new = chance.choice(alike)
    if not path:
        return new if chance.random() < 0.1 else document
    holder, key, kind = at(document, path[:-1]), path[-1], chance.randrange(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, json.loads(json.dumps(holder[key])))
    elif kind == 1:
        holder[chance.choice(["Z", "a", "", "\x1b", "checks", "support"])] = new
    elif kind == 2 and isinstance(holder[key], list):
        holder[key] = holder[key][: chance.randrange(len(holder[key]) + 1)]
    else:
        holder[key] = json.loads(json.dumps(new))
    return document


def change_bytes(path, chance):
    raw = path.read_bytes()
    start = chance.randrange(len(raw) + 1)
    end = start + chance.choice((0, 1, 1, 5, 200))
    pieces = (b"", b"\xff", b"\x00", b"{", b"[" * 3000, b"9" * 5000, b"NaN", b"\n", raw[:40], b"\xe2\x80\xa8")
    path.write_bytes(raw[:start] + chance.choice(pieces) + raw[end:])


def change_json(path, chance, lines):
    """Change a file of JSON, or of JSON lines; NaN and the like may be in it afterwards."""
    text = path.read_text(encoding="utf-8")
    if not lines:
        document = json.loads(text)
        for _ in range(chance.choice((1, 1, 2, 4))):
            document = changed(document, chance)
        path.write_text(json.dumps(document), encoding="utf-8")
        return
    documents = [json.loads(line) for line in text.splitlines()]
    for _ in range(chance.choice((1, 1, 2, 4))):
        number = chance.randrange(len(documents))
        documents[number] = changed(documents[number], chance)
    if chance.random() < 0.1:
        chance.shuffle(documents)
    path.write_text("".join(f"{json.dumps(document)}\n" for document in documents), encoding="utf-8")


def seal(folder):
    """Give the documents in a folder checksums that fit what it holds now, as another program could."""
    for path in folder.rglob("*.json"):
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(document, dict) and CHECKSUM in document:
                document.pop(CHECKSUM)
                if path.name == "run.json":
                    document["files"] = listed(path.parent, ("draws.jsonl",))
                path.write_text(json.dumps(sealed(document)), encoding="utf-8")


def mutate(folder, chance):
    """Change one or two files of a folder, and most often its checksums with them."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".html", ".nc"))
    own = [path for path in files if path.name in ("run.json", "draws.jsonl", "compare.json")]
    for _ in range(chance.choice((1, 1, 1, 2))):
        path = chance.choice(own if own and chance.random() < 0.85 else files)
        if chance.random() < 0.15:
            change_bytes(path, chance)
        else:
            with contextlib.suppress(ValueError, IndexError, RecursionError, TypeError):
                change_json(path, chance, path.suffix == ".jsonl")
    if chance.random() < 0.03:
        chance.choice(files).unlink(missing_ok=True)
    with contextlib.suppress(RecursionError, ValueError, TypeError):
        if chance.random() < 0.9:
            seal(folder)


# --- what comes of it -----------------------------------------------------------------------------


ALL = len(READING)


def read(folder, chance, amount=ALL):
    """Every command that reads a folder, or some of them: those that end in a bug, and how many ended in what code."""
    faults, codes = [], []
    asked = chance.sample(READING, amount) if amount < ALL else READING
    for verb, *flags in asked:
        code, out, err = run_command(folder.parent, verb, folder.name, *flags)
        codes.append(code)
        if code not in (0, 1, 2) or "Traceback" in out + err or "internal" in err:
            faults.append((verb, *flags, code, err[-1500:]))
        elif "\x1b" in out + err:
            faults.append((verb, *flags, code, "an escape sequence"))
    return faults, codes


def mutant(sound, chance, scratch):
    """A mutated copy of a sound folder."""
    copy = scratch / "mutant"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sound, copy)
    mutate(copy, chance)
    return copy


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--amount", type=int, default=ALL, help="commands that read each folder")
    parser.add_argument("--kinds", nargs="+", default=list(MADE), choices=list(MADE))
    parser.add_argument("--keep", type=Path, default=Path("build/folders"), help="sound folders, to be used again")
    asked = parser.parse_args()
    sound = _sound(asked.keep)
    seen, started = dict.fromkeys(("mutants", "read", "findings", "failures", "bugs"), 0), time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        for number in range(asked.first, asked.first + asked.count):
            chance = random.Random(f"{asked.seed} {number}")
            folder = mutant(
                chance.choice([path for path, name in zip(sound, MADE, strict=True) if name in asked.kinds]),
                chance,
                Path(place),
            )
            faults, codes = read(folder, chance, asked.amount)
            seen["mutants"] += 1
            for name, code in (("read", 0), ("findings", 1), ("failures", 2)):
                seen[name] += codes.count(code)
            seen["bugs"] += len(faults)
            for fault in faults:
                print(number, *fault, flush=True)
            if number % 200 == 199:
                print(seen, f"{time.monotonic() - started:.0f} s", flush=True)
    print(seen, f"{time.monotonic() - started:.0f} s")
    sys.exit(min(seen["bugs"], 1))


def _sound(keep):
    """Sound folders: kept from before, or made."""
    if not keep.exists():
        import tiny

        keep.mkdir(parents=True)
        make(keep.resolve(), tiny.save(keep.resolve() / "tiny"))
    return [keep.resolve() / READ_AT.get(name, name) for name in MADE]


if __name__ == "__main__":
    main()
