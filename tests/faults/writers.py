"""Two commands that write into one folder, started at moments apart: one wins, the other says so, or it is done."""

from __future__ import annotations

import random

import learning

from faults.commands import Stage, unclean
from faults.kills import LONGEST, Tally

IN_USE, FAILURE = "error[folder-in-use]", 2


def at_once(stage: Stage, rng: random.Random) -> Tally:
    """Start a command twice; the second up to as long after the first as a command takes."""
    tally, apart = Tally(), rng.uniform(0, rng.choice((0.2, 1.1)) * stage.seconds)
    first = learning.start(stage.folder, *stage.arguments, streams=("stdout.txt", "first.txt"))
    first.join(apart)
    second = learning.start(stage.folder, *stage.arguments, streams=("second-stdout.txt", "second.txt"))
    for process in (first, second):
        process.join(LONGEST)
    codes = first.exitcode, second.exitcode
    said = stage.said("first.txt"), stage.said("second.txt")
    for code, words in zip(codes, said, strict=True):
        if unclean(words) or not (code == 0 or (code == FAILURE and IN_USE in words)):
            tally.unclean.append(f"{apart:.2f} s apart, exit codes {codes}: {words[-300:]}")
    if 0 not in codes:
        tally.unclean.append(f"{apart:.2f} s apart, exit codes {codes}: nobody wins")
    tally.differences = [f"{apart:.2f} s apart, exit codes {codes}: {name}" for name in stage.differing()]
    stage.clear()
    return tally
