"""What people see of training: a line with its numbers and the time left; a log; a tracker where
one is asked for.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmppl.engines.amortised.trainer import Report
from lmppl.errors import LmpplError, error
from lmppl.findings import learning as learning_findings
from lmppl.findings import run as run_findings
from lmppl.screen import VARYING, Progress
from lmppl.shapes import Document, fields, maybe, number, text
from lmppl.storage import CHECKSUM, checkpoints, is_broken, sealed

SMOOTH = 20  # steps that shown numbers are means of
LOG = "log.jsonl"
STEP = fields({}, {CHECKSUM: text}, rest=maybe(number))  # a line of it


class Display:
    """A line of numbers, each the mean of the last steps."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self._progress, self._steps = progress, steps
        self._latest: deque[Report] = deque(maxlen=SMOOTH)

    def show(self, report: Report) -> None:
        self._latest.append(report)
        loss, variance, ess = (self._mean(name) for name in ("loss", "variance", "ess"))
        numbers = f"loss {loss:.3g}"
        if not math.isnan(variance):  # examples have none
            numbers += f", Var(log γ − log q) {variance:.3g}, ESS {100 * ess:.0f} %"
        self._progress(
            f"training{VARYING}{numbers}, {self._mean('tokens_per_second'):.0f} tokens/s",
            report.step,
            self._steps,
        )

    def _mean(self, name: str) -> float:
        values = [vars(report)[name] for report in self._latest]
        known = [value for value in values if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan


class Log:
    """One JSON line a step in FOLDER/training, and the same numbers to a tracker of
    Accelerate's.
    """

    def __init__(self, folder: Path | None, tracker: str, step: int) -> None:
        self._path = None if folder is None else folder / "training" / LOG
        self._tracker = _tracker(tracker, folder) if tracker and folder is not None else None
        self._step = step

    def __enter__(self) -> Log:
        if self._path is not None:
            with _writable(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                whole = (
                    self._path.read_text(encoding="utf-8").splitlines()
                    if self._path.exists()
                    else []
                )
                kept = whole[: self._step]  # what was written after the checkpoint is done again
                partial = self._path.with_name(f"{self._path.name}.partial")
                partial.write_text("".join(f"{line}\n" for line in kept if line), encoding="utf-8")
                partial.replace(self._path)
        return self

    def write(self, report: Report) -> None:
        numbers = {
            name: value if math.isfinite(value) else None for name, value in vars(report).items()
        }
        if self._path is not None:
            with _writable(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(sealed(numbers)) + "\n")
        if self._tracker is not None:
            self._tracker.log(_finite(numbers), step=report.step)

    def __exit__(self, *reason: object) -> None:
        if self._tracker is not None:
            self._tracker.end_training()


def read_log(folder: Path) -> list[Document]:
    """What training into a folder has logged, a mapping a step; a last line that a kill has cut is
    left out.

    Raises LmpplError where other lines are not as they were written, or some are missing.
    """
    path = folder / "training" / LOG
    raw = path.read_bytes() if path.is_file() else b""
    lines = raw.splitlines(keepends=True)
    found = [_line(line) for line in (lines if raw.endswith(b"\n") else lines[:-1])]
    kept = [line for line in found if line is not None]
    learned = max(
        (int(step) for place in checkpoints(folder) if (step := place.name[5:]).isdecimal()),
        default=0,
    )
    if len(kept) < max(len(found), learned):
        raise LmpplError(
            run_findings.run_damaged(folder, f"`{path}` is not the file that was written")
        )
    return kept


def _line(raw: bytes) -> dict[str, Any] | None:
    """What a line of the log says; None where it is not as it was written."""
    try:
        STEP(line := json.loads(raw))
    except (ValueError, RecursionError):
        return None
    return None if is_broken(line) else line


def _finite(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if value is not None and name != "step"}


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turns what the system says of a file into an LmpplError."""
    try:
        yield
    except OSError as reason:
        message = f"the log of training cannot be written to `{path}`: {reason.strerror or reason}"
        raise LmpplError(
            error("unwritable-folder", message, help="earlier checkpoints are as they were")
        ) from None


def require_tracker(name: str, folder: Path | None) -> None:
    """Raise LmpplError where there is no such tracker, its package is missing, or there is no
    folder for it.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    from accelerate.utils import is_tensorboard_available

    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    if name not in known:
        raise LmpplError(learning_findings.unknown_tracker(name, known))
    if name == "tensorboard" and not is_tensorboard_available():
        raise LmpplError(learning_findings.missing_tracker(name))
    if folder is None:
        raise LmpplError(learning_findings.tracker_without_folder(name))


def _tracker(name: str, folder: Path) -> Any:
    """An accelerator that only logs. Raises LmpplError where the tracker's package is missing."""
    from accelerate import Accelerator

    try:
        accelerator = Accelerator(cpu=True, log_with=name, project_dir=str(folder / "training"))
        accelerator.init_trackers("lmppl")
    except (ImportError, ValueError):
        raise LmpplError(learning_findings.missing_tracker(name)) from None
    return accelerator
