"""Commands that faults befall, on the tiny model, and what their folders hold: a run left alone is what is right."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import learning
import tiny

from lmppl.storage.checksums import is_broken

PROGRAM = 'lm LM = "./model"\ngiven X\nZ ~ LM(X)^1.5 max 3 tokens\nobserve " b" ~ LM(" a{Z}")\n'
LABELS = 'lm LM = "./model"\ngiven X\nlearn LM\nR ~ LM(X) max 2 tokens\nY ~ LM("{X}{R}") in [" a", " b"]\n'
FITS = ("-o", "steps=6", "-o", "save_every=2", "-o", "draws=4", "-o", "rank=2")
TIMES = ("seconds", "finished", "made", "files", "checksum")
COSTS = ("cost", "spent", "efficiency", "training", "training_tokens", "training_seconds")  # work done twice adds up
KEPT = "kept"  # the folder of every command
COMMANDS = {
    "run": ("run", "p.lm", "--data", "d.jsonl", "--engine", "smc", "--num-samples", "60", "--force", "--out", KEPT),
    "gflownet": ("run", "p.lm", "--data", "d.jsonl", "--engine", "gflownet", "--num-samples", "10", *FITS, "--resume",
                 KEPT),
    "em": ("em", "labels.lm", "--data", "labels.jsonl", "--engine", "importance", "--num-samples", "10", "--rounds",
           "1", "--fit", "steps=2", "--fit", "rank=2", "--out", KEPT),
    "compare": ("compare", "p.lm", "--data", "d.jsonl", "--engines", "importance,gflownet", "--budget", "100",
                "--seeds", "1", "-o", "gflownet.steps=4", "-o", "gflownet.save_every=2", "-o", "gflownet.draws=4",
                "--out", KEPT),
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A folder that a command works in, and what comes of it when nobody disturbs it."""

    folder: Path
    name: str
    arguments: tuple[str, ...]
    alone: Path  # its folder
    whole: dict[str, object]  # what is in that
    seconds: float

    @property
    def kept(self) -> Path:
        return self.folder / KEPT

    def differing(self) -> list[str]:
        """What is other in the folder than in that of the command left alone, and what was left beside it."""
        if not self.kept.is_dir():
            return ["no folder"]
        found = content(self.kept)
        found, whole = _common(found, self.whole), _common(self.whole, found)
        left = [path.name for path in self.folder.iterdir() if path.name.startswith((f".{KEPT}", f"{KEPT}."))]
        return differing(found, whole) + [f"left behind: {name}" for name in left]

    def clear(self) -> None:
        """Take away what a command has written."""
        for path in (*self.folder.glob(f"{KEPT}*"), *self.folder.glob(f".{KEPT}*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def said(self, stream: str = "stderr.txt") -> str:
        return (self.folder / stream).read_text(encoding="utf-8", errors="replace")


def staged(folder: Path, name: str, seed: int = 0) -> Stage:
    """A stage for a command, which is left alone there once."""
    model = folder.parent / "tiny-model"
    if not model.exists():
        tiny.save(model, seed=6)
    furnished(folder, model)
    learning.run(folder, "check", "p.lm")  # the first process loads everything
    arguments = COMMANDS[name] if seed == 0 else (*COMMANDS[name], "--seed", str(seed))
    began = time.monotonic()
    learning.run(folder, *arguments)
    seconds = time.monotonic() - began
    (folder / KEPT).rename(folder / "alone")
    return Stage(folder, name, arguments, folder / "alone", content(folder / "alone"), seconds)


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
        if path.is_dir() or path.name in (".lock", "log.jsonl"):
            continue
        raw = path.read_bytes()
        found[str(path.relative_to(folder))] = _document(raw) if path.suffix == ".json" else raw
    return found


def _common(found: dict[str, object], other: dict[str, object]) -> dict[str, object]:
    """Without checkpoints that the other has not, but for the last: after Ctrl-C one lies between two others."""
    steps = {name: str(Path(name).parent) for name in found if "/step-" in f"/{name}"}
    last = {str(Path(step).parent): step for step in sorted(steps.values())}.values()
    alike = {name for name in found if name not in steps or name in other or steps[name] in last}
    return {name: value for name, value in found.items() if name in alike}


def _document(raw: bytes) -> object:
    document = json.loads(raw)
    return "damaged" if is_broken(document) else timeless(document)


def timeless(value: object) -> object:
    """A JSON value without what may differ from run to run."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in (*TIMES, *COSTS)}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def differing(found: dict[str, object], whole: dict[str, object]) -> list[str]:
    """Names of files that differ, or are on one side alone; of JSON with the first place."""
    names = sorted(name for name in {**found, **whole} if found.get(name) != whole.get(name))
    return [f"{name}{_place(found.get(name), whole.get(name))}" for name in names]


def _place(one: object, other: object) -> str:
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return ""
    name = next(name for name in {**other, **one} if one.get(name) != other.get(name))
    return f" {name}{_place(one.get(name), other.get(name))}"


def unclean(said: str) -> bool:
    """Whether what a command has said of an error is no finding, or one of our own making."""
    return "Traceback" in said or "error[internal]" in said or "a bug in lmppl" in said
