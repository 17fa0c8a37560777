"""Every text that masks leave over, where these are few: a pattern of some words, a number of some
digits.

The density is over tokens, so a text counts once for each way to write it in tokens. What all begin
with is followed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmppl import ir
from lmppl.density import State, Target
from lmppl.lm import Tokens

LISTED = 512  # states that are enumerated rather than searched for
FEW = 256  # states that `auto` enumerates
# prefixes that are followed, for each text that there may be: most may lead nowhere within the
# limit
INNER = 4


def finite_states(target: Target, most: int) -> list[State] | None:
    """Every state that masks leave possible; None where they are more than `most`, or where some
    text has no masks.
    """
    states: list[State] = [{}]
    for latent in target.latents:
        values: Sequence[Tokens | int] | None = (
            range(len(latent.options))
            if isinstance(latent, ir.ChoiceLatent)
            else _texts(target, latent.name, most)
        )
        if values is None or len(states) * len(values) > most:
            return None
        states = [{**state, latent.name: value} for state in states for value in values]
    return states


def _texts(target: Target, name: str, most: int) -> list[Tokens] | None:
    """Every legal text of a latent that its masks allow; None where there are too many, or no
    masks.

    None as well where too many prefixes have to be followed to tell.
    """
    bound = target.text_latent(name)
    if bound.masks is None or bound.stopping.tools is not None:
        return None
    found: list[Tokens] = []
    open_texts: list[Tokens] = [()]
    followed = 0
    while open_texts:
        tokens = open_texts.pop()
        if bound.stopping.closes(tokens):
            found += [tokens] if bound.stopping.legal(tokens) else []
            continue
        allowed = np.flatnonzero(bound.masks.start([tokens]).allowed()[0].numpy())
        followed += 1
        if max(len(found) + len(open_texts) + len(allowed), followed / INNER) > most:
            return None
        open_texts += [(*tokens, int(token)) for token in allowed if token != bound.stopping.end]
        if bound.stopping.end_allowed and bound.stopping.end in allowed:
            found.append(tokens)
    return found
