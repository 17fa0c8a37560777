"""States spelled out: the texts and tokens that contexts show, and what expressions read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmppl.expressions import Environment
from lmppl.lm import Tokens


@dataclass(frozen=True)
class View:
    """One state, spelled out."""

    texts: Mapping[str, str]
    tokens: Mapping[str, Tokens]
    choices: Mapping[str, int]
    environment: Environment
