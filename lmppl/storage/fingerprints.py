"""What a thing is by its content: of files, of JSON values, and where two descriptions differ.

SHA-256 throughout. That of a large file is kept in the user's cache, beside the file's size and
times, so that it is worked out once; that of a file which was written a moment ago is not, as it
may change within a tick.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

LARGE = 2**20  # bytes from which on what a file is is kept
SETTLED = 2.0  # seconds without a change after which another one has another time
Difference = tuple[
    str, Any, Any
]  # where, as in "models.LM.weights"; what stood there, and what does now


def cache_root() -> Path:
    """Where everything that can be had again is kept: $LMPPL_CACHE, or the user's cache folder."""
    chosen = os.environ.get("LMPPL_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("lmppl"))


def of_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if found.st_size < LARGE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        about = {"path": os.path.realpath(path), "size": found.st_size, "inode": found.st_ino}
        about |= {"modified": found.st_mtime_ns, "changed": found.st_ctime_ns}
        place = cache_root() / "fingerprints" / f"{of_value(about['path'])[:32]}.json"
        if (known := _kept(place, about)) is not None:
            return known
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        same = os.fstat(file.fileno()).st_mtime_ns == found.st_mtime_ns
    if same and time.time() - max(found.st_mtime, found.st_ctime) > SETTLED:
        _keep(place, {**about, "sha256": digest})
    return digest


def of_value(value: object) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differences(then: object, now: object, where: str = "") -> Iterator[Difference]:
    """Every place where two JSON values differ; mappings are gone into, everything else is compared
    as it is.
    """
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in {**then, **now}:
            yield from differences(
                then.get(name), now.get(name), f"{where}.{name}" if where else str(name)
            )
    elif then != now:
        yield where, then, now


def _kept(place: Path, about: Mapping[str, Any]) -> str | None:
    """What is kept of a file that is still as it was."""
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
        digest = document.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return digest if document == about and isinstance(digest, str) else None


def _keep(place: Path, document: Mapping[str, Any]) -> None:
    """Keep it for the next time, which can do without: a full disk is no reason to stop."""
    partial = place.with_name(f"{place.name}.partial-{os.getpid()}")
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(document), encoding="utf-8")
        partial.replace(place)
    with suppress(OSError):
        partial.unlink(missing_ok=True)
