"""What backends differ in, as far as engines ask for it. Brings nothing, so that `lmppl check` can
name it.
"""

from __future__ import annotations

from enum import Enum

from lmppl import ir


class Capability(Enum):
    """Beyond the scores of given tokens, which every model has. The value says it in a sentence:
    "it has no …".
    """

    LAWS = "probabilities of every next token"
    DRAWS = "draws of its own"
    GRADIENTS = "weights that can be trained here"
    FOLDER = "folder that another process could load"


Capabilities = frozenset[Capability]
BY_DRAWS: Capabilities = frozenset({Capability.DRAWS})  # of servers, which tell no laws
BY_LAWS: Capabilities = frozenset({Capability.LAWS, Capability.DRAWS})  # what laws are enough for


def capabilities_under(able: Capabilities, law: ir.LocalLaw | None) -> Capabilities:
    """What a model can do under a local law: another process would not know of it."""
    return able if law is None else able - {Capability.FOLDER}
