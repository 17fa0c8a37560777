"""A folder that one writer at a time fills."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lmppl.errors import LmpplError, error


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder, made where it is not there. what: "comparison" and the like, for people to read.

    Raises LmpplError where another process holds it, or it cannot be written, then or later.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(blocking=False)
    except Timeout:
        help = "wait for it, or name another folder with --out"
        raise LmpplError(error("folder-in-use", f"another {what} writes into `{folder}`", help=help)) from None
    except OSError as reason:
        raise LmpplError(error("unwritable-folder", _unwritable(folder, what, reason))) from None
    try:
        yield
    except OSError as reason:
        raise LmpplError(
            error("unwritable-folder", _unwritable(folder, what, reason), help="what is done is kept")
        ) from None
    finally:
        lock.release()


def _unwritable(folder: Path, what: str, reason: OSError) -> str:
    return f"the {what} cannot be written to `{folder}`: {reason.strerror or reason}"
