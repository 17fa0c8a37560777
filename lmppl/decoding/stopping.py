"""When a text latent ends, by `until` and `max`: one place for the density and for every sampler
that draws token by token.

Without `until`, a text of fewer than `maximum` tokens ended by the end token, which is scored and
is no part of the text; a text of exactly `maximum` tokens was cut and has none. With `until`, a
text ends with the first token at which its decoding contains the `until` text, and nothing else
ends it. Both cut what a tool writes; the end token cannot come before all of that is there.

What draws whole texts says the same in its own terms: masks (`expressions/constraint_language.py`),
models that sample (`lm/sampling.py`, whose texts are cut here), GenLM's potentials.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding.tools import FREE, Awaited, Tools
from lmppl.lm import Row, Tokens

# the value of a text that is not there: no model has such a token, and it is never drawn or scored
ABSENT: Tokens = (-1,)


def is_absent(tokens: Sequence[int]) -> bool:
    """Whether these are in place of a text that is not there."""
    return len(tokens) == 1 and tokens[0] == ABSENT[0]


@dataclass(frozen=True)
class Stopping:
    """The stopping process of one text latent under one tokenizer."""

    until: str | None
    maximum: int
    end: int
    decode: Callable[[Sequence[int]], str] = field(repr=False, compare=False)
    tools: Tools | None = field(default=None, repr=False, compare=False)
    _closing: dict[int, NDArray[np.bool_]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def end_allowed(self) -> bool:
        """Whether the end token may be drawn at all."""
        return self.until is None

    def closes(self, tokens: Sequence[int]) -> bool:
        """Whether a growing text is over after these tokens, no end token being needed."""
        return len(tokens) >= self.maximum or is_absent(tokens) or self.reached(tokens)

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last of these tokens brings the `until` text in (it was not there before)."""
        if self.until is None or not tokens or not self._awaited.possible(tokens[-1]):
            return False
        return self.until in self.decode(tokens)

    def legal(self, tokens: Sequence[int]) -> bool:
        """Whether a complete text can come out of the process."""
        if is_absent(tokens):
            return True
        if len(tokens) > self.maximum or self.end in tokens or not self._as_tools_write(tokens):
            return False
        if self.until is None:
            return True
        return self.until in self.decode(tokens) and self.until not in self.decode(tokens[:-1])

    def scored(self, tokens: Tokens) -> Tokens:
        """The tokens whose probabilities make up the text's: with the end token where one was
        drawn; none of a text that is not there.
        """
        if is_absent(tokens):
            return ()
        return (*tokens, self.end) if self.end_allowed and len(tokens) < self.maximum else tokens

    # --- what tools write ------------------------------------------------------------------------

    def due(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        """(T + 1,) the token that must come after each of the first t tokens, FREE where there is a
        choice.
        """
        if self.tools is None or is_absent(tokens):
            return np.full(len(tokens) + 1, FREE, dtype=np.int64)
        return self.tools.due(tokens)

    def due_next(self, tokens: Sequence[int]) -> int:
        """The token that must come after these, or FREE."""
        return FREE if self.tools is None else int(self.tools.due(tokens)[-1])

    def dues(self, texts: Sequence[Tokens]) -> NDArray[np.int64]:
        """(N,) the token that must come after each of these, or FREE."""
        return np.array([self.due_next(tokens) for tokens in texts], dtype=np.int64)

    def due_when_scored(self, tokens: Tokens) -> NDArray[np.int64]:
        """(S,) the token that must come at each scored position of a text, or FREE."""
        return self.due(tokens)[: len(self.scored(tokens))]

    def parts(self, tokens: Tokens) -> list[Row]:
        """A text's scored positions in stretches of choices: the tokens up to an end, and how many
        are before it.
        """
        scored = self.scored(tokens)
        if self.tools is None:
            return [(scored, 0)] if scored else []
        free = np.concatenate([[False], self.due_when_scored(tokens) == FREE, [False]])
        ends = np.flatnonzero(free[1:] != free[:-1]).reshape(-1, 2)
        return [(scored[:end], start) for start, end in ends.tolist()]

    def _as_tools_write(self, tokens: Sequence[int]) -> bool:
        """Whether tools wrote what they would, and the text was cut where they would go on."""
        if self.tools is None:
            return True
        return self.tools.wrote(tokens) and (self.due_next(tokens) == FREE or self.closes(tokens))

    # --- which tokens end a text -----------------------------------------------------------------

    def closing(self, vocabulary_size: int) -> NDArray[np.bool_]:
        """(V,) tokens that end the text whatever came before: the end token, or those with the
        `until` text in them.
        """
        if self.until is not None:
            return _holding(self.decode, self.until, vocabulary_size)
        return np.arange(vocabulary_size) == self.end

    def may_close(self, vocabulary_size: int) -> NDArray[np.bool_]:
        """(V,) False for tokens that end no text of fewer than `maximum` tokens."""
        if self.until is None:
            return np.arange(vocabulary_size) == self.end
        if vocabulary_size not in self._closing:
            able = [self._awaited.possible(token) for token in range(vocabulary_size)]
            self._closing[vocabulary_size] = np.array(able, dtype=bool)
        return self._closing[vocabulary_size]

    @functools.cached_property
    def _awaited(self) -> Awaited:
        assert self.until is not None
        return Awaited(self.until, self.decode)


@functools.lru_cache(maxsize=64)
def _holding(
    decode: Callable[[Sequence[int]], str], text: str, vocabulary_size: int
) -> NDArray[np.bool_]:
    """(V,) tokens that hold a text by themselves."""
    return np.array([text in decode([token]) for token in range(vocabulary_size)], dtype=bool)
