"""Whether what is read is what was written: checksums of files beside a document, and of the
document itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmppl.shapes import Document
from lmppl.storage.fingerprints import of_file, of_value

CHECKSUM = "checksum"
DOCUMENT = "run.json"  # what lists the files


def sealed(document: Mapping[str, object]) -> Document:
    """A JSON document with a checksum of all else that is in it."""
    return {CHECKSUM: of_value(document), **document}


def of_streamed(document: Mapping[str, object], name: str, entries: Iterable[object]) -> str:
    """The checksum of a document that has a list of these entries by a name besides, whose entries
    are seen one at a time.
    """
    digest, within = hashlib.sha256(), "{"
    for key in sorted({*document, name}):
        digest.update(f"{within}{json.dumps(key)}: ".encode())
        if key != name:
            digest.update(json.dumps(document[key], sort_keys=True).encode())
        else:
            opening = "["
            for entry in entries:
                digest.update(f"{opening}{json.dumps(entry, sort_keys=True)}".encode())
                opening = ", "
            digest.update(b"[]" if opening == "[" else b"]")
        within = ", "
    digest.update(b"}")
    return digest.hexdigest()


def is_sealed(document: object) -> bool:
    """Whether a document has its checksum, and is as it was written."""
    if not isinstance(document, Mapping) or CHECKSUM not in document:
        return False
    return document[CHECKSUM] == of_value(
        {name: value for name, value in document.items() if name != CHECKSUM}
    )


def is_broken(document: object) -> bool:
    """Whether a document has a checksum, and another content. Those of earlier versions have
    none.
    """
    return isinstance(document, Mapping) and CHECKSUM in document and not is_sealed(document)


def listed(folder: Path, names: Iterable[str]) -> dict[str, Document]:
    """Sizes, numbers of lines and checksums of the files in a folder that are there. Raises
    OSError.
    """
    return {name: _entry(folder / name) for name in names if (folder / name).is_file()}


def damage(folder: Path, files: object) -> str | None:
    """What is wrong with the files of a folder by a list that `listed` has made; None where nothing
    is.
    """
    for name, entry in files.items() if isinstance(files, Mapping) else ():
        path, entry = folder / str(name), entry if isinstance(entry, Mapping) else {}
        if Path(str(name)).name != name:
            return f"`{folder}` lists a file that is not in it"
        if not path.is_file():
            return f"`{path}` is missing"
        if (found := _entry(path)) != entry:
            lines, written = found["lines"], entry.get("lines")
            counts = f": it has {lines} lines, and {written} were written"
            return (
                f"`{path}` is not the file that was written with `{folder / DOCUMENT}`"
                f"{counts if lines != written else ''}"
            )
    return None


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(2**20), b""))
    return {"bytes": path.stat().st_size, "lines": lines, "sha256": of_file(path)}
