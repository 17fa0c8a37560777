"""States that masks leave over, where these are few: a pattern of some words, a number of some
digits.
"""

from __future__ import annotations

from lmppl.density import State, Target

LISTED = 512  # states that are enumerated rather than searched for
FEW = 256  # states that `auto` enumerates


def finite_states(target: Target, most: int) -> list[State] | None:
    """Every state that masks leave possible; None where they are more than `most`, or where some
    text has no masks.
    """
    states: list[State] = [{}]
    for latent in target.latents:
        values = target.latent(latent.name).few_values(most)
        if values is None or len(states) * len(values) > most:
            return None
        states = [
            {**state, latent.name: value}
            for state in states
            for value in target.among(latent.name, state, values)
        ]
    return states
