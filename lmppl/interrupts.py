"""Ctrl-C where nothing is there yet to be tidied, or nothing any more: the command ends at once,
without a traceback.

Importing a package comes before any `try` of its command, so the package asks for this in its first
line.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130  # exit code


def is_command() -> bool:
    """Whether this process was started as `lmppl` or `python -m lmppl`, and not to use lmppl from
    Python.
    """
    return os.path.basename(sys.argv[0] if sys.argv else "") in ("lmppl", "-m", "lmppl.exe")


def end_at_once() -> None:
    """From here on Ctrl-C ends the process; ignored is left ignored."""
    _replace(_end)


def raise_again() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt; ignored is left ignored."""
    _replace(signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(INTERRUPTED)


def _replace(handler: Callable[[int, FrameType | None], object]) -> None:
    ours = (_end, signal.default_int_handler)
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) in ours
    ):
        signal.signal(signal.SIGINT, handler)
