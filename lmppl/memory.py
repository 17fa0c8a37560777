"""Whether a run's draws fit into this machine, told before anything is loaded."""

from __future__ import annotations

from typing import Any

from lmppl import run_findings
from lmppl.engines.contract import Settings
from lmppl.errors import LmpplError

BYTES = 2_000  # that a draw or particle takes at least, with its scores


def require_memory(engine: str, settings: Settings, options: Any) -> None:
    """Raise LmpplError where the draws or particles of one data row take more memory than is free."""
    import psutil

    kept = max(settings.num_samples, getattr(options, "particles", 0)) * settings.chains
    needed, free = kept * BYTES, psutil.virtual_memory().available
    if needed > free:
        raise LmpplError(run_findings.too_many_draws(engine, kept, needed, free))
