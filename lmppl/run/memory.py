"""Whether what a run holds at once fits into this machine, told before anything is loaded."""

from __future__ import annotations

from typing import Any

from lmppl.engines import Settings, require_room


def require_memory(engine: str, settings: Settings, options: Any) -> None:
    """Raise LmpplError where the draws or particles of one data row take more memory than is
    free.
    """
    require_room(engine, texts_held(settings, options))


def texts_held(settings: Settings, options: Any) -> int:
    """Draws, particles, chains and the like that one data row holds at once, at least; of
    training, one step.
    """

    def option(name: str) -> int:
        return getattr(options, name, 0)

    replicate = max(settings.num_samples, option("particles"), option("seed_draws")) + option(
        "levels"
    )
    coupled = 2 * option("pairs") if option("lag") else 0
    learning = option("draws") * option("rows") + option("buffer")
    return settings.chains * replicate + coupled + learning + option("beams")
