"""When a text latent ends: one place for the density and for every sampler.

Without `until`, a text of fewer than `maximum` tokens ended by the end token, which is scored and is no
part of the text; a text of exactly `maximum` tokens was cut and has none. With `until`, a text ends with
the first token at which its decoding contains the `until` text, and nothing else ends it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmppl.lm.protocol import Tokens


@dataclass(frozen=True)
class Stopping:
    """The stopping process of one text latent under one tokenizer."""

    until: str | None
    maximum: int
    end: int
    decode: Callable[[Sequence[int]], str] = field(repr=False, compare=False)
    _may_complete: dict[int, bool] = field(default_factory=dict, repr=False, compare=False)
    _closing: dict[int, NDArray[np.bool_]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def end_allowed(self) -> bool:
        """Whether the end token may be drawn at all."""
        return self.until is None

    def closes(self, tokens: Sequence[int]) -> bool:
        """Whether a growing text is over after these tokens, no end token being needed."""
        return len(tokens) >= self.maximum or self.reached(tokens)

    def reached(self, tokens: Sequence[int]) -> bool:
        """Whether the last of these tokens brings the `until` text in (it was not there before)."""
        if self.until is None or not tokens or not self._could_complete(tokens[-1]):
            return False
        return self.until in self.decode(tokens)

    def legal(self, tokens: Sequence[int]) -> bool:
        """Whether a complete text can come out of the process."""
        if len(tokens) > self.maximum or self.end in tokens:
            return False
        if self.until is None:
            return True
        return self.until in self.decode(tokens) and self.until not in self.decode(tokens[:-1])

    def scored(self, tokens: Tokens) -> Tokens:
        """The tokens whose probabilities make up the text's: with the end token where one was drawn."""
        return (*tokens, self.end) if self.end_allowed and len(tokens) < self.maximum else tokens

    def closing(self, vocabulary_size: int) -> NDArray[np.bool_]:
        """(V,) tokens that end the text whatever came before: the end token, or those with the `until` text in them."""
        if self.until is not None:
            return _holding(self.decode, self.until, vocabulary_size)
        return np.arange(vocabulary_size) == self.end

    def may_close(self, vocabulary_size: int) -> NDArray[np.bool_]:
        """(V,) False for tokens that end no text of fewer than `maximum` tokens."""
        if self.until is None:
            return np.arange(vocabulary_size) == self.end
        if vocabulary_size not in self._closing:
            able = [self._could_complete(token) for token in range(vocabulary_size)]
            self._closing[vocabulary_size] = np.array(able, dtype=bool)
        return self._closing[vocabulary_size]

    def _could_complete(self, token: int) -> bool:
        """False only where no text ending in this token can have just completed `until`: saves decoding."""
        if token not in self._may_complete:
            assert self.until is not None
            piece = self.decode([token])
            last = self.until[-1]
            # a space may be hidden by the tokenizer, and part of a character decodes to U+FFFD
            self._may_complete[token] = last.isspace() or last in piece or "\ufffd" in piece
        return self._may_complete[token]


@functools.lru_cache(maxsize=64)
def _holding(decode: Callable[[Sequence[int]], str], text: str, vocabulary_size: int) -> NDArray[np.bool_]:
    """(V,) tokens that hold a text by themselves."""
    return np.array([text in decode([token]) for token in range(vocabulary_size)], dtype=bool)
