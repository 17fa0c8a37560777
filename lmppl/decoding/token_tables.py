"""Tables of a terminal's automaton under a vocabulary: where each token leads, and how many tokens
are needed to end.

The distance is exact: a search backwards from the states that accept, over tokens, not bytes. So a
text that has few tokens left is led to an end that it can reach. Built where the automaton and the
vocabulary are small enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding.automata import Automaton

MOST_ENTRIES = 2**23  # states × tokens: 32 MiB
NEVER = np.iinfo(np.int32).max  # tokens to an end that cannot be reached


@dataclass(frozen=True)
class TokenTable:
    """An automaton that reads tokens and begins in state 0."""

    after: NDArray[np.int32]  # (S, V) the state after each token
    distance: NDArray[
        np.int32
    ]  # (S,) fewest tokens to a text that is in the language; 0 where it is in already


def token_table(automaton: Automaton, pieces: Sequence[bytes], end: int) -> TokenTable | None:
    """The table of an automaton; None where it would be large. pieces: bytes of each token; end: no
    part of a text.
    """
    states = len(automaton.accepting)
    if (states + 1) * len(pieces) > MOST_ENTRIES:
        return None
    steps = np.vstack(
        [automaton.after, np.full((1, 256), states, dtype=np.int32)]
    )  # the last state is lost
    after = read_tokens(steps, pieces)
    after[:, end] = states
    return TokenTable(after, distances(after, np.append(automaton.accepting, False)))


def read_tokens(steps: NDArray[np.int32], pieces: Sequence[bytes]) -> NDArray[np.int32]:
    """(S, V) the state after each token, of the state after each byte (S, 256)."""
    after = np.empty((len(steps), len(pieces)), dtype=np.int32)
    after[:] = np.arange(len(steps))[:, None]
    lengths = np.array([len(piece) for piece in pieces])
    for place in range(lengths.max(initial=0)):
        longer = np.flatnonzero(lengths > place)
        units = np.array([pieces[token][place] for token in longer.tolist()])
        after[:, longer] = steps[after[:, longer], units]
    return after


def distances(after: NDArray[np.integer], accepting: NDArray[np.bool_]) -> NDArray[np.int32]:
    """(S,) tokens from each state to the nearest one that accepts."""
    leads = np.zeros((len(after), len(after)), dtype=bool)  # from a state to a state, by one token
    for state, row in enumerate(after):
        leads[state, row] = True
    distance = np.where(accepting, 0, NEVER).astype(np.int32)
    reached, steps = accepting, 0
    while True:
        steps += 1
        new = leads[:, reached].any(1) & (distance == NEVER)
        if not new.any():
            return distance
        distance[new] = steps
        reached = new
