"""A file that lines are added to, each with its checksum: what was written stays, whatever ends the
writer. What a kill has cut in two at the end is cut off when the file is opened again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

DIGITS = 16  # of the SHA-256 that stands before a line


class BrokenLine(ValueError):
    """A line within the file is not what was written."""


def sealed_line(text: str) -> bytes:
    """A text without line breaks, as it stands in the file."""
    raw = text.encode()
    return b"%s %s\n" % (_checksum(raw), raw)


def opened_line(line: bytes) -> bytes | None:
    """The text of a line; None where it is not as it was written."""
    checksum, _, raw = line[:-1].partition(b" ")
    return raw if line.endswith(b"\n") and checksum == _checksum(raw) else None


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Where each line begins, and its text; a last one that a kill has cut is left out. Raises
    BrokenLine where any other is not as it was written, and OSError.
    """
    with path.open("rb") as file:
        place = 0
        for number, line in enumerate(file, 1):
            if (text := opened_line(line)) is None:
                if line.endswith(b"\n") and file.read(1):
                    raise BrokenLine(f"line {number} of `{path}` is not as it was written")
                return
            yield place, text
            place += len(line)


def to_go_on(path: Path, size: int) -> BinaryIO:
    """The file open for more behind its first bytes, so many; what is behind them is cut off."""
    file = path.open("a+b")
    file.truncate(size)
    file.seek(size)
    return file


def _checksum(raw: bytes) -> bytes:
    return hashlib.sha256(raw).hexdigest()[:DIGITS].encode()
