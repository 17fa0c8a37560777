"""The folder of a comparison: runs by what they were made from, what is known of them, and who may
write.

`runs/ENGINE-HASH/` is a run folder, `fits/ENGINE-HASH/` one with what was learned. The hash is of
everything that decides a run's draws, so a comparison that was cut short, or that another engine
joins, finds what is done already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmppl.compare.shape import require_comparison
from lmppl.errors import Diagnostic, LmpplError, error
from lmppl.posterior import finite, require_known, write_whole
from lmppl.shapes import Document, Misfit, fields, whole
from lmppl.storage import is_broken, is_sealed, locked, sealed

DOCUMENT = "compare.json"
SHOWN = "texts.json"  # what a page shows of texts
FORMAT = 1


@dataclass(frozen=True)
class Store:
    """A comparison's folder."""

    folder: Path

    def place(self, kind: str, engine: str, made_from: Mapping[str, Any]) -> Path:
        """Where a run of this content belongs. kind: "runs" or "fits"."""
        return self.folder / kind / f"{engine}-{digest(made_from)}"

    def kept(self, path: Path, key: str, make: Callable[[], Any]) -> Any:
        """A JSON value that was worked out under this key before, or is now."""
        known = read_json(path)
        if is_sealed(known) and known.get("key") == key:
            return known["value"]
        value = finite(make())
        write_json(path, sealed({"key": key, "value": value}))
        return value


def key_of_texts(runs: Iterable[str]) -> str:
    """The key of the texts that a page shows. runs: names of the folders that they are of."""
    return digest(sorted(runs))


def digest(value: Any) -> str:
    """A short name for a JSON value."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The folder for one writer. Raises LmpplError where it holds something else, or another writes
    into it.
    """
    _require_own(folder)
    with locked(folder, "comparison"):
        yield Store(folder)


def _require_own(folder: Path) -> None:
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or names - {DOCUMENT, ".lock", "runs", "fits", "report.html"} - _ours(
        names
    ):
        message = f"`{folder}` exists and is no folder of a comparison: it is left as it is"
        raise LmpplError(error("folder-in-use", message, help="name another folder with --out"))


def _ours(names: set[str]) -> set[str]:
    """Files beside a comparison's own: what was exported from it, and copies that a kill has
    left.
    """
    return names if names & {DOCUMENT, "runs", "fits"} else set()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(path, json.dumps(value, ensure_ascii=False, allow_nan=False))


def read_json(path: Path) -> Any:
    """A JSON file's value; None where there is none that is whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def load_comparison(folder: str | Path) -> Document:
    """The document of a comparison's folder. Raises LmpplError."""
    path = Path(folder) / DOCUMENT
    if not path.exists():
        message = f"`{folder}` is no folder of a comparison: it holds no {DOCUMENT}"
        raise LmpplError(
            error(
                "no-comparison",
                message,
                help="give a folder that `lmppl compare --out` has written",
            )
        )
    document = read_json(path)
    try:
        fields({"format": whole})(document)
        require_known(document, path, FORMAT)
        require_comparison(document)
    except Misfit as reason:
        raise LmpplError(broken(path, str(reason))) from None
    if is_broken(document):
        raise LmpplError(broken(path, "it is not the file that was written"))
    return document


def broken(path: Path, problem: str) -> Diagnostic:
    """A file of a comparison that cannot be believed. problem: what is wrong with it."""
    return error(
        "broken-comparison",
        f"`{path}` is damaged: {problem:.160}",
        help="run `lmppl compare` again",
    )
