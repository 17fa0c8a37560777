"""The `lmppl` command: reads flags, calls the stages, prints. A module a kind of command.

Exit codes: 0 clean, 1 findings in a program or a failed check of a run (`diagnose`), an engine
(`sbc`) or a model (`doctor`), 2 usage or failure, 130 interrupted. No traceback reaches a user.
"""

from __future__ import annotations

import io
import os
import sys
import traceback

from lmppl.cli import compare, doctor, em, house, infer, serve, text, trust  # noqa: F401  (each hangs its commands on the group)
from lmppl.cli.app import FAILURE, app, show_bug, show_findings
from lmppl.cli.say import say
from lmppl.errors import Diagnostic, LmpplError, error, first_line, ran_out_of_memory
from lmppl.interrupts import INTERRUPTED

LESS = (
    "less at once: a smaller --batch-size; for training -o draws= or -o rows=; or `dtype = "
    '"bfloat16"` of the model'
)


def main() -> None:
    """Entry point of the `lmppl` command."""
    _prepare_streams()
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        say("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILURE)
    except Exception as reason:
        _show(reason)
        sys.exit(FAILURE)


def _prepare_streams() -> None:
    # of several processes that train together, the first speaks
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what an encoding lacks is written as an escape
            stream.reconfigure(errors="backslashreplace")


def _show(reason: Exception) -> None:
    """Say why a command has failed. What is neither the user's nor the system's doing is ours."""
    if isinstance(reason, LmpplError):
        show_findings(reason.diagnostics, "full")
    elif isinstance(reason, OSError):
        show_findings([_of_system(reason)], "full")
    elif ran_out_of_memory(reason):
        found = first_line(reason)
        show_findings([error("out-of-memory", "memory ran out", found=found, help=LESS)], "full")
    else:
        if "LMPPL_TRACEBACK" in os.environ:
            traceback.print_exc()
        show_bug(f"{type(reason).__name__}: {reason}")


def _of_system(reason: OSError) -> Diagnostic:
    """What the system would not do, and with which file."""
    name = f" `{reason.filename!s:.80}`" if reason.filename is not None else ""
    return error("system", f"the system refused{name}: {reason.strerror or first_line(reason)}")
