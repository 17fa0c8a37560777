"""Looking ahead: how probable it is that a growing text will meet its constraints.

Words that must come up say nothing of the next token, and yet a text without them loses. Their
automaton tells which are still missing and how far into one the text is. Its states are taken for a
Markov chain: from a state, a token leads to another one as often as the models' laws have led there
on the average. So the probability of an end that is in the language, within the tokens that are
left, is a table: by state and by tokens left. Laws times this table are drawn from, and weights are
judged with it; it is a guess (an HMM of the automaton's states, in the way of GeLaTo and Ctrl-G; a
twist of sequential Monte Carlo), and what is drawn with it has exact weights, whatever it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.decoding.automata import Automaton
from lmppl.decoding.stopping import Stopping
from lmppl.decoding.token_tables import distances, read_tokens

MOST_ENTRIES = 2**24  # states × tokens, at two bytes: 32 MiB
PRIOR = 1.0  # laws that what is taken of a state before any is seen counts as
THROUGH = 0.2  # of what has begun, such as a word, the share that is taken to go on to its end
LOWEST = -300.0  # log of what is possible and seems not to be
DEFENSIVE = 0.1  # share of the law that looks at nothing

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ends:
    """An automaton that reads tokens and knows what ends a text. Its last two states are texts that
    are over: those in the language, and the others.
    """

    after: NDArray[np.int16]  # (S, V)
    cut: NDArray[np.bool_]  # (S,) whether a text that has no token left is in the language
    distance: NDArray[np.int32]  # (S,) fewest tokens to the last state but one; NEVER for none

    @cached_property
    def leads(self) -> NDArray[np.bool_]:
        """(S, S) whether some token leads from a state to another."""
        found = np.zeros((len(self.cut), len(self.cut)), dtype=bool)
        for state, row in enumerate(self.after):
            found[state, row] = True
        return found


class LookAhead:
    """The chance of an end in the language by state and tokens left, learned from laws that were
    met.
    """

    def __init__(self, ends: Ends, maximum: int, whole: bool) -> None:
        """whole: the language is all that can be said of the text before its end."""
        size, vocabulary_size = ends.after.shape
        self.ends, self.maximum, self.whole = ends, maximum, whole
        self._mass = np.zeros((size, size))  # of the laws met in a state, by where they lead
        self._met = np.zeros(size)  # how many
        self._law = np.zeros(vocabulary_size)  # sum of all
        self._known: Floats | None = None

    def learn(
        self, states: NDArray[np.int64], laws: torch.Tensor, times: NDArray[np.int64]
    ) -> None:
        """Take note of log laws (U, V) that texts in these states (U,) go on with; times: (U,) how
        many texts do.
        """
        self._known = None
        probabilities = laws.exp().double().cpu().numpy()
        for state, law, count in zip(states.tolist(), probabilities, times.tolist(), strict=True):
            self._mass[state] += count * self._led(state, law)
            self._met[state] += count
            self._law += count * law

    @property
    def chances(self) -> Floats:
        """(maximum + 1, S) log chance, by how many tokens are left."""
        if self._known is None:
            self._known = _chances(self.ends, self._steps(), self.maximum)
        return self._known

    def _led(self, state: int, law: Floats) -> Floats:
        """(S,) where a law leads from a state."""
        return np.bincount(self.ends.after[state], law, len(self._met)).astype(np.float64)

    def _steps(self) -> Floats:
        """(S, S) chance of each next state."""
        usual = np.stack([self._usual(state) for state in range(len(self._met))])
        return (self._mass + PRIOR * usual) / (self._met[:, None] + PRIOR)

    def _usual(self, state: int) -> Floats:
        """(S,) chance of each next state, by how often tokens come up at all.

        Where a usual token falls back, something has begun: a share of the texts goes on with it.
        """
        law = self._law if self._law.any() else np.ones(len(self._law))
        led = self._led(state, law / law.sum())
        on = np.where(self.ends.distance <= self.ends.distance[state], led, 0.0)
        if on.sum() > 0.5 or not on.any():
            return led
        return (1 - THROUGH) * led + THROUGH * on / on.sum()


def _chances(ends: Ends, steps: Floats, maximum: int) -> Floats:
    """(maximum + 1, S) log chance of an end in the language, by tokens left."""
    rows, possible = [ends.cut.astype(np.float64)], [ends.cut]
    for _ in range(maximum):
        rows.append(steps @ rows[-1])
        possible.append(np.any(ends.leads & possible[-1], axis=1))
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(np.stack(rows)), LOWEST)
    return np.where(np.stack(possible), logs, -np.inf)


@dataclass
class AheadRows:
    """Where U growing texts are, in step with a stream."""

    look_ahead: LookAhead
    states: NDArray[np.int64]  # (U,)
    length: int = 0

    def learn(self, laws: torch.Tensor, times: NDArray[np.int64]) -> None:
        """Take note of log laws (U, V) that the texts go on with; times: (U,) how many do."""
        self.look_ahead.learn(self.states, laws, times)

    def values(self, log_prior: torch.Tensor) -> Floats:
        """(U,) log of what each text is likely to gain by its next token and by its chance then.
        log_prior: (U, V)
        """
        return torch.logsumexp(log_prior + self._next(log_prior), -1).double().cpu().numpy()

    def _next(self, like: torch.Tensor) -> torch.Tensor:
        """(U, V) log chance behind each token."""
        left = self.look_ahead.maximum - self.length - 1
        ahead = self.look_ahead.chances[left][self.look_ahead.ends.after[self.states]]
        return torch.as_tensor(ahead, device=like.device, dtype=like.dtype)

    def twisted(self, laws: torch.Tensor) -> torch.Tensor:
        """(U, V) log laws that look ahead, of log laws. Nothing impossible is left in them, where
        anything is possible.
        """
        chances = self._next(laws)
        possible = laws.masked_fill(torch.isneginf(chances), -torch.inf)
        lost = torch.isneginf(possible).all(-1, keepdim=True)
        plain = torch.log_softmax(possible, -1) + np.log(DEFENSIVE)
        looking = torch.log_softmax(possible + chances, -1) + np.log1p(-DEFENSIVE)
        return torch.where(lost, laws, torch.logaddexp(plain, looking))

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with these rows only, in this order."""
        self.states = self.states[rows]

    def push(self, tokens: NDArray[np.int64]) -> None:
        """One token more a row. (U,)"""
        self.states = self.look_ahead.ends.after[self.states, tokens].astype(np.int64)
        self.length += 1


# --- automata that know what ends a text ----------------------------------------------------------


def ends_of(language: Automaton, stopping: Stopping, pieces: Sequence[bytes]) -> Ends | None:
    """A language's automaton with what ends a text; None where it would be large, or asks for
    nothing.

    pieces: bytes of each token.
    """
    awaited = b"" if stopping.until is None else stopping.until.encode()
    if language.accepts(awaited):
        return None
    steps, accepting, reached = _until(language, awaited)
    size = len(steps)
    if (size + 2) * len(pieces) > MOST_ENTRIES:
        return None
    after = read_tokens(steps, pieces).astype(np.int16)
    over = np.where(accepting, size, size + 1).astype(np.int16)
    after = np.where(reached[after], over[after], after)
    after[:, stopping.end] = over if stopping.end_allowed else size + 1
    last = np.array([[size], [size + 1]], dtype=np.int16)
    after = np.concatenate([after, np.broadcast_to(last, (2, len(pieces)))])
    cut = np.concatenate([accepting & stopping.end_allowed, [True, False]])
    return Ends(after, cut, distances(after, cut))


def _until(
    language: Automaton, awaited: bytes
) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.bool_]]:
    """The automaton (S, 256) that also waits for a text, which of its states are in the language,
    and which have met the text.
    """
    waiting = _waiting(awaited)
    numbers = {(0, 0): 0}
    rows: list[list[int]] = []
    for state, seen in (order := [(0, 0)]):
        row = []
        for pair in zip(language.after[state].tolist(), waiting[seen], strict=True):
            if pair not in numbers:
                numbers[pair] = len(numbers)
                order.append(pair)
            row.append(numbers[pair])
        rows.append(row)
    accepting = np.array([language.accepting[state] for state, _ in order], dtype=bool)
    reached = np.array([bool(awaited) and seen == len(awaited) for _, seen in order], dtype=bool)
    return np.array(rows, dtype=np.int32), accepting, reached


def _waiting(awaited: bytes) -> list[list[int]]:
    """How many bytes of a text are met, after how many and each byte; all of them is for good."""
    table = []
    for seen in range(len(awaited)):
        row = []
        for byte in range(256):
            text = awaited[:seen] + bytes([byte])
            row.append(
                next(
                    n for n in range(len(text), -1, -1) if awaited.startswith(text[len(text) - n :])
                )
            )
        table.append(row)
    return [*table, [len(awaited)] * 256]
