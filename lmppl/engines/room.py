"""Whether what an engine would hold at once fits into this machine, told before memory goes."""

from __future__ import annotations

from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings

BYTES = 2_000  # that a draw, a particle or a state takes at least, with its scores
PREFIX_BYTES = 300  # that a prefix of a search takes
LITTLE = 100_000  # bytes that are there: to ask the machine for each of many small rows takes time


def require_room(engine: str, kept: int) -> None:
    """Raise LmpplError where so many draws of a data row take more memory than is free."""
    needed = kept * BYTES
    if needed > LITTLE and needed > (free := _free()):
        raise LmpplError(run_findings.too_many_draws(engine, kept, needed, free))


def require_room_to_search(held: int, more: int) -> None:
    """Raise LmpplError where a search that holds so many prefixes has no room for more of them."""
    free = _free()
    if more * PREFIX_BYTES > free:
        raise LmpplError(run_findings.too_many_prefixes(held, free))


def _free() -> int:
    """Bytes."""
    import psutil

    return psutil.virtual_memory().available
