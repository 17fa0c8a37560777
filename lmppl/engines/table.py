"""The engine table: names here, one module each, imported when used. A new engine is a module and a
line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmppl.engines.contract import Engine

ENGINE_NAMES = (
    "annealed", "exact", "genlm-control", "gflownet", "importance", "mcmc", "ppo", "prompting",
    "rejection", "sft",
    "smc",
)  # fmt: skip


def engine(name: str) -> Engine:
    """The engine of this name, which must be in ENGINE_NAMES. Its module is `lmppl.engines.NAME`,
    `_` for `-`.
    """
    return import_module(f"lmppl.engines.{name.replace('-', '_')}").ENGINE
