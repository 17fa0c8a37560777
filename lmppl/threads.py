"""How torch's threads wait: asleep, after a few microseconds of spinning. Threads that spin on and
on beside another busy process make everything ten times slower; threads that sleep at once cost 8 %
on an idle machine (benchmarks/results/passive-wait.md).

OpenMP reads its environment once, when torch is loaded, so this must be set before; `import lmppl`
does it.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

# of the standard, of GNU's and of LLVM's OpenMP
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SPINS = "1000"  # some microseconds, before a thread of GNU's OpenMP sleeps


def wait_passively(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads of OpenMP sleep while they wait, unless the user has said how they wait."""
    if not any(name in environment for name in WAITING):
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment["GOMP_SPINCOUNT"] = SPINS


def share_of_threads(processes: int) -> int:
    """Threads of each of so many processes, where they share what one would have: as many as
    OMP_NUM_THREADS says, or one a core.
    """
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    whole = int(said) if said.isdecimal() else cores or 1
    return max(1, whole // processes)


def use_threads(count: int) -> None:
    """Let this process compute with so many threads. Before torch is loaded."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(count)
