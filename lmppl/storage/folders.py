"""The folder of a run: one writer's, tried before anything is run, and replaced whole or not at
all.

A run is written beside its place and renamed, so the place's parent must take a new folder. What is
tried here is what is done in the end. What a killed writer has left beside the place is put right
by the next.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lmppl.errors import Diagnostic, LmpplError, error
from lmppl.storage.locks import alone

# what engines learn
LEARNED = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "policy.json",
    "training",
)
UNFINISHED = "unfinished"  # the folder of rows that are done, in a run that has not ended
TRIED = 65_536  # bytes that are written and removed to see that a disk takes some
HELD = ("run.json", UNFINISHED, *LEARNED)  # by which a folder is known as a run's
LOOKS, GAP = 50, 0.02  # at a folder that is being replaced, and seconds between them
ANOTHER = "name another folder with --out"
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


@contextmanager
def writing(folder: str | Path, *, force: bool = False, resume: bool = False) -> Iterator[Path]:
    """The place of a run, links followed, once it is known that a run can be written there; nobody
    else's until then.

    force: it may hold another run, which is replaced in the end; resume: one that goes on. Leaves
    everything as it was. Raises LmpplError.
    """
    if not str(folder).strip():
        raise LmpplError(error("no-folder", "`--out` names no folder", expected="a folder's name"))
    with held(folder) as final:
        yield _claimed(folder, force, resume) if _first() else final


@contextmanager
def held(folder: str | Path) -> Iterator[Path]:
    """The place of a folder, for one process at a time, with leftovers put right. Raises
    LmpplError.
    """
    try:
        final = place(folder)
    except (OSError, ValueError) as reason:
        raise LmpplError(_unwritable(Path(folder), reason)) from None
    if not _first():
        yield final
        return
    with alone(final, "run"):
        recover(final)
        yield final


def _first() -> bool:
    """Of several processes that train together, whether this is the one that writes."""
    return os.environ.get("RANK", "0") == "0"


def _claimed(folder: str | Path, force: bool, resume: bool) -> Path:
    """The place of a run, once it is known that a run can be written there. Raises LmpplError."""
    final = _require_own(folder)
    already = [name for name in HELD if (final / name).exists()]
    if already and not (force or resume):
        raise LmpplError(_holds_a_run(final, already))
    _try(final)
    return final


def _require_own(folder: str | Path) -> Path:
    """The place that a folder's name leads to. Raises LmpplError where it is something other than a
    run's folder.
    """
    try:
        final = place(folder)
        mode = final.stat().st_mode if final.exists() else None
        others = mode is not None and stat.S_ISDIR(mode) and any(final.iterdir())
    except (OSError, ValueError) as reason:
        raise LmpplError(_unwritable(Path(folder), reason)) from None
    if mode is not None and not stat.S_ISDIR(mode):
        kind = next((name for test, name in _KINDS if test(mode)), "a file")
        message = f"`{folder}` is {kind}, no folder: it is left as it is"
        raise LmpplError(error("folder-in-use", message, help=ANOTHER))
    if others and not any((final / name).exists() for name in HELD):
        message = f"`{folder}` exists and is no run folder: it is left as it is"
        raise LmpplError(error("folder-in-use", message, help=ANOTHER))
    return final


def place(folder: str | Path) -> Path:
    """Where a folder's name leads, links followed: `.` has no name to write beside. Raises OSError
    for a loop.
    """
    found = Path(os.path.realpath(folder))
    if found.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return found


@contextmanager
def replacing(folder: str | Path) -> Iterator[tuple[Path, Path]]:
    """An empty folder to fill, and the place that it takes at the end in one step. Raises
    LmpplError.
    """
    final = place(folder)
    partial = _partial(final)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial, final
        _replace(partial, final)
    except OSError as reason:
        raise LmpplError(_unwritable(final, reason)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recover(folder: str | Path) -> None:
    """Put a folder back that a kill has left moved aside, and remove what it has left half done.
    For who writes.
    """
    final = place(folder)
    _put_back(final)
    for left in (_partial(final), _earlier(final)):
        shutil.rmtree(left, ignore_errors=True)


def readable(folder: str | Path) -> Path:
    """A folder that is to be read, put back if a kill has left it moved aside, but not while
    another writes it.
    """
    found = Path(folder)
    with suppress(OSError, ValueError):
        final = place(found)
        for _ in range(LOOKS):
            if final.exists() or not _earlier(final).is_dir():
                break
            with suppress(LmpplError), alone(final, "run"):
                _put_back(final)
            time.sleep(GAP)
    return found


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of training, oldest first."""
    found = (folder / "training").glob("step-*")
    return sorted(path for path in found if path.is_dir() and not path.name.endswith(".partial"))


def _put_back(final: Path) -> None:
    earlier = _earlier(final)
    if earlier.is_dir() and not (final.exists() and any(final.iterdir())):
        earlier.rename(final)


def _partial(final: Path) -> Path:
    return final.parent / f"{final.name}.partial"


def _earlier(final: Path) -> Path:
    return final.parent / f"{final.name}.earlier"


def _replace(partial: Path, final: Path) -> None:
    """Put a complete folder in its place. An earlier one is moved aside first, so that one is
    always whole.
    """
    earlier = _earlier(final)
    shutil.rmtree(earlier, ignore_errors=True)
    if final.exists():
        final.rename(earlier)
    partial.rename(final)
    shutil.rmtree(earlier, ignore_errors=True)


def _try(final: Path) -> None:
    """Make a folder beside the place, write into it, and remove both. Raises LmpplError."""
    if os.path.ismount(final):
        message = (
            f"`{final}` is where a disk is mounted: a run is put in its place as a whole, "
            f"which cannot be done"
        )
        raise LmpplError(
            error("unwritable-folder", message, help=f"name a folder in it: --out {final / 'run'}")
        )
    made = [parent for parent in final.parents if not parent.exists()]
    tried = _partial(final)
    try:
        tried.mkdir(parents=True)
        with (tried / "tried").open("wb") as file:
            file.write(bytes(TRIED))
            file.flush()
            os.fsync(file.fileno())
    except OSError as reason:
        raise LmpplError(_unwritable(final, reason)) from None
    finally:
        shutil.rmtree(tried, ignore_errors=True)
        for parent in made:
            with suppress(OSError):  # another has put something there, or it was never made
                parent.rmdir()


def _holds_a_run(final: Path, names: Sequence[str]) -> Diagnostic:
    if "run.json" in names:
        message, help = (
            f"`{final}` holds another run",
            f"--force puts the new one in its place; or {ANOTHER}",
        )
    else:
        what = "rows that are done" if UNFINISHED in names else "what an engine has learned"
        message = f"`{final}` holds {what}, in a run that has not ended"
        help = f"go on with --resume {final}; --force begins anew; or {ANOTHER}"
    return error("folder-in-use", message, help=help)


def _unwritable(final: Path, reason: Exception) -> Diagnostic:
    problem = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return error(
        "unwritable-folder", f"the results cannot be written to `{final}`: {problem}", help=ANOTHER
    )
