"""What is asked of a run, as flags and arguments say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmppl.lm import LanguageModel
from lmppl.settings import Budget, Seed, Size


@dataclass(frozen=True)
class Request:
    """What is asked of a run, beside the program and its data."""

    engine: str = "auto"
    settings: Mapping[str, int] = field(
        default_factory=dict
    )  # fields of Settings that were asked for
    options: Mapping[str, Any] = field(
        default_factory=dict
    )  # strings are parsed by the option's type
    seed: Seed = 0
    batch_size: Size = 64  # rows at once
    folder: Path | None = None  # where an engine that learns keeps what it learns
    resume: bool = False  # go on from the folder's last checkpoint
    adapter: Path | None = None  # a folder with what was learned before: draw from it
    only_learn: bool = False  # draw for no row in the end: an adapter is all that is asked for
    # what all rows together may cost; what is not asked for is sized by it
    budget: Budget | None = None
    quick: bool = False  # where nothing is asked of `auto`, it may take what ends soon
    lms: Mapping[str, str | LanguageModel] = field(
        default_factory=dict
    )  # models in place of the program's, by name
