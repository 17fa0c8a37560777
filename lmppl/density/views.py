"""States spelled out: the texts and tokens that contexts show, and what expressions read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lmppl.errors import LmpplError
from lmppl.expressions import Environment, EvaluationError, written
from lmppl.findings import run as run_findings
from lmppl.lm import Tokens
from lmppl.source import Source


@dataclass(frozen=True)
class View:
    """One state, spelled out."""

    texts: Mapping[str, str]
    tokens: Mapping[str, Tokens]
    choices: Mapping[str, int]
    absent: frozenset[str]  # latents that are not there: their texts and tokens are empty
    environment: Environment
    source: Source  # where findings point

    def derived(self, name: str) -> str:
        """A derived value as a text; nothing where it is absent. Raises LmpplError."""
        try:
            return written(self.environment.value(name))
        except EvaluationError as reason:
            raise LmpplError(
                run_findings.no_derived_value(name, reason, self.texts, self.source)
            ) from None
