"""As few requests as tell the scores of many rows.

A row that another one begins with is read from that. Where several tokens end a text, the end of a
row is asked for behind it, as the sum of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmppl.lm.http.completions import Scored
from lmppl.lm.protocol import Row, Tokens
from lmppl.lm.tree import carriers

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scoring:
    """Rows of tokens with their prompts, each with the place of the first that counts (≥ 1)."""

    rows: Sequence[Row]
    requests: Sequence[Scored]
    carriers: dict[int, int]  # by row: the request that it is read from
    closing: dict[Tokens, int]  # by text: the request that tells of an end behind it
    ends: Tokens

    @staticmethod
    def of(rows: Sequence[Row], ends: Tokens) -> Scoring:
        """What is to be asked. ends: all tokens that end a text; the first stands for them."""
        several = ends if len(ends) > 1 else ()
        closed: dict[Tokens, None] = {}
        bare: dict[int, Row] = {}
        for number, (tokens, first) in enumerate(rows):
            closed |= dict.fromkeys(tokens[:at] for at in _places(tokens, first, several))
            last = len(tokens)
            while last > first and tokens[last - 1] in several:
                last -= 1
            if last > first:
                bare[number] = tokens[:last], first
        numbers = [*bare]
        requests, read_from, closing = [], {}, {}
        served = carriers([tokens for tokens, _ in bare.values()], [s for _, s in bare.values()])
        for one in served:
            read_from |= dict.fromkeys((numbers[guest] for guest in one.guests), len(requests))
            if one.inputs in closed:
                closing[one.inputs] = len(requests)
            requests.append(Scored(one.inputs, one.start, one.inputs in closed))
        for tokens in closed:
            if tokens not in closing:
                closing[tokens] = len(requests)
                requests.append(Scored(tokens, len(tokens), True))
        return Scoring(rows, requests, read_from, closing, ends)

    def read(self, told: Sequence[tuple[Floats, float]]) -> list[Floats]:
        """Per row, log probabilities of the tokens that count. told: of each request, those of its
        tokens and of an end behind them.
        """
        found = []
        for number, (tokens, first) in enumerate(self.rows):
            own = np.full(len(tokens) - first, -np.inf)
            if number in self.carriers:
                request = self.carriers[number]
                begin = first - self.requests[request].first
                some = told[request][0][begin : begin + len(own)]
                own[: len(some)] = some
            if len(self.ends) > 1:
                self._put_ends(own, tokens, first, told)
            found.append(own)
        return found

    def _put_ends(
        self, own: Floats, tokens: Tokens, first: int, told: Sequence[tuple[Floats, float]]
    ) -> None:
        """Let the first end stand for all, and the others have probability 0."""
        for at in _places(tokens, first, self.ends):
            stands = tokens[at] == self.ends[0]
            own[at - first] = told[self.closing[tokens[:at]]][1] if stands else -np.inf


def _places(tokens: Tokens, first: int, ends: Tokens) -> list[int]:
    """Where tokens end texts, from a place on."""
    return [at for at in range(first, len(tokens)) if tokens[at] in ends]
