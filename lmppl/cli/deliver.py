"""The end of a run: written, printed, and whatever fails, nothing that was drawn is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lmppl.cli.app import show
from lmppl.cli.say import say, say_line

if TYPE_CHECKING:
    from lmppl.posterior import Posterior


@contextmanager
def delivering(
    folder: Path | None, as_json: bool, verbose: bool, draws: bool = False
) -> Iterator[Callable[[Posterior], None]]:
    """Hand a run over: what was handed over last is written and printed at the end, also where an
    error ends it.

    An error, or Ctrl-C, goes on its way after that. A second Ctrl-C ends at once.
    """
    found: list[Posterior] = []
    try:
        yield found.append
    except KeyboardInterrupt as reason:
        if not found:
            raise
        _deliver(found[-1], folder, as_json, verbose, draws)
        raise KeyboardInterrupt(*reason.args, str(found[-1].interrupted)) from None
    except Exception:
        if found:
            _deliver(found[-1], folder, as_json, verbose, draws)
        raise
    else:
        _deliver(found[-1], folder, as_json, verbose, draws)


def _deliver(
    posterior: Posterior, folder: Path | None, as_json: bool, verbose: bool, draws: bool
) -> None:
    """Write and print a run. Where one of them fails every draw is printed, and the first failure
    is raised.
    """
    from lmppl.posterior import save

    failures: list[Exception] = []
    try:
        if folder is not None:
            save(posterior, folder)
    except Exception as reason:
        failures.append(reason)
    draws, printed = draws or bool(failures), False  # what is not written is printed whole
    try:
        show(posterior, as_json, verbose, draws)
        printed = as_json and draws
    except BrokenPipeError:
        raise
    except Exception as reason:
        failures.append(reason)
    if failures:
        if not printed:
            _print_draws(posterior)
        raise failures[0]


def _print_draws(posterior: Posterior) -> None:
    from lmppl.posterior import draw_lines

    say("lmppl: something failed at the end: here is every draw, a line of JSON each", err=True)
    for line in draw_lines(posterior):
        say_line(line)
    sys.stdout.flush()
