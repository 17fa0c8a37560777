"""What an engine that Ctrl-C has stopped gives of its draws, and says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lmppl.engines.contract import Sample


def one_chain(samples: Sequence[Sample]) -> list[Sample]:
    """Independent draws of chains that have unlike many, as one chain."""
    return [replace(sample, chain=0, draw=number) for number, sample in enumerate(samples)]


def whole_draws(samples: Sequence[Sample], chains: int) -> list[Sample]:
    """The draws that every chain has, chain by chain; none where some chain has none."""
    counts = [0] * chains
    for sample in samples:
        counts[sample.chain] += 1
    kept = [sample for sample in samples if sample.draw < min(counts)]
    return sorted(kept, key=lambda sample: (sample.chain, sample.draw))


def of_draws(done: int, asked: int, each: str = "") -> str:
    """The warning: how many draws there are."""
    return f"interrupted after {done} of {asked} draws{each}: what is reported is of those"
