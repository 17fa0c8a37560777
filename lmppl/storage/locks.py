"""One writer at a time: of a folder that is filled bit by bit, or of a place where a whole folder
is put in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lmppl.errors import LmpplError, error


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder, made where it is not there. what: "comparison" and the like, for people to
    read.

    Raises LmpplError where another process holds it, or it cannot be written, then or later.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquired(folder / ".lock", folder, what)
    except OSError as reason:
        raise LmpplError(error("unwritable-folder", _unwritable(folder, what, reason))) from None
    try:
        yield
    except OSError as reason:
        raise LmpplError(
            error(
                "unwritable-folder", _unwritable(folder, what, reason), help="what is done is kept"
            )
        ) from None
    finally:
        lock.release()


@contextmanager
def alone(place: Path, what: str) -> Iterator[None]:
    """Hold a place that a folder is renamed to, by a file beside it. Nothing of that is left in the
    end.

    Raises LmpplError where another process holds it, or nothing can be written beside it.
    """
    made = [parent for parent in place.parents if not parent.exists()]
    path = place.parent / f".{place.name}.lock"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path, place, what)
    except OSError as reason:
        _remove_empty(made)
        raise LmpplError(error("unwritable-folder", _unwritable(place, what, reason))) from None
    try:
        yield
    finally:
        with suppress(
            OSError
        ):  # still held: who opened it in the meantime sees that it is gone, and gives up
            path.unlink()
        lock.release()
        _remove_empty(made)


def _acquired(path: Path, folder: Path, what: str) -> FileLock:
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        help = "wait for it, or name another folder with --out"
        raise LmpplError(
            error("folder-in-use", f"another {what} writes into `{folder}`", help=help)
        ) from None
    return lock


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # another has put something there, or it was never made
            folder.rmdir()


def _unwritable(folder: Path, what: str, reason: OSError) -> str:
    return f"the {what} cannot be written to `{folder}`: {reason.strerror or reason}"
