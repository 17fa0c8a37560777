"""Talks to genlm-control, which lives in a Python of its own: starts it, asks it, and says what is
wrong with it.

A process is kept while lmppl runs, since it takes longer to start and to load a model than to draw.
It is ended with lmppl, and whenever a question is not answered to the end: it fails, or someone
presses Ctrl-C.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings

LIBRARY, VERSION = "genlm-control", "0.4.1"
VARIABLE = "LMPPL_GENLM_PYTHON"
SCRIPT = Path(__file__).with_name("side.py")

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class _Side:
    """A process of the other Python."""

    python: str
    process: subprocess.Popen[bytes]
    complaints: IO[bytes]  # its stderr


_KEPT: dict[str, _Side] = {}  # by the Python's path


def interpreter(chosen: str) -> str:
    """The Python that has the library: the one chosen, or the environment's. Raises LmpplError
    where there is none.
    """
    python = chosen or os.environ.get(VARIABLE, "")
    if not python:
        raise LmpplError(run_findings.no_other_python(LIBRARY, VERSION, VARIABLE))
    return os.path.expanduser(python)


def ask(python: str, request: Mapping[str, object], count: int) -> Generator[Answer]:
    """So many answers to a request, each as soon as it is there. Close it where it is left early.
    Raises LmpplError.
    """
    side = _KEPT.get(python) or _start(python)
    whole = False
    try:
        _write(side, request)
        for _ in range(count):
            yield _read(side)
        whole = True
    finally:
        if not whole:
            _end(side)


def _start(python: str) -> _Side:
    complaints = tempfile.TemporaryFile()  # noqa: SIM115
    # its own packages only, and sets in one order, on which the library's draws depend
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME")
    }
    variables |= {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1"}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            [python, str(SCRIPT)], stdin=pipe, stdout=pipe, stderr=complaints, env=variables
        )
    except OSError as reason:
        complaints.close()
        problem = f"`{python}` cannot be run: {reason.strerror or reason}"
        raise LmpplError(run_findings.other_python_fails(LIBRARY, problem, VARIABLE)) from None
    side = _KEPT[python] = _Side(python, process, complaints)
    whole = False
    try:
        _require_library(side)
        whole = True
    finally:
        if not whole:
            _end(side)
    return side


def _require_library(side: _Side) -> None:
    versions = _read(side).get("versions")
    if not isinstance(versions, dict):
        raise LmpplError(_failed(side, "does not answer as it should"))
    if versions.get(LIBRARY) != VERSION:
        found = versions.get(LIBRARY)
        raise LmpplError(
            run_findings.other_library(LIBRARY, VERSION, found and str(found), side.python)
        )


def _write(side: _Side, request: Mapping[str, object]) -> None:
    assert side.process.stdin is not None
    try:
        side.process.stdin.write(json.dumps(request).encode() + b"\n")
        side.process.stdin.flush()
    except OSError:
        raise LmpplError(_failed(side, "ended before it was asked")) from None


def _read(side: _Side) -> Answer:
    """The next answer."""
    assert side.process.stdout is not None
    line = side.process.stdout.readline()
    if not line:
        code = side.process.wait()
        raise LmpplError(
            _failed(side, f"ended with exit code {code}" if code else "ended without an answer")
        )
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        found = line.decode(errors="replace").strip()
        raise LmpplError(_failed(side, f"does not answer as it should, but `{found:.80}`"))
    return answer


def _failed(side: _Side, what: str) -> Any:
    """The finding, with the last line that the process has written to stderr."""
    side.complaints.seek(0)
    lines = [
        line.strip()
        for line in side.complaints.read().decode(errors="replace").splitlines()
        if line.strip()
    ]
    return run_findings.other_python_fails(
        LIBRARY, f"`{side.python}` {what}", VARIABLE, lines[-1] if lines else None
    )


def _end(side: _Side) -> None:
    """End the process and forget it."""
    _KEPT.pop(side.python, None)
    side.process.kill()
    side.process.wait()
    for file in (side.process.stdin, side.process.stdout, side.complaints):
        assert file is not None
        with suppress(OSError):  # what was not written when it died
            file.close()


@atexit.register
def end_all() -> None:
    """End every process that is kept."""
    for side in list(_KEPT.values()):
        _end(side)
