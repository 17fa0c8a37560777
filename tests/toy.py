"""A language model without a network, in float64: exact enough to check laws to the last digits."""

import zlib

import numpy as np

from lmppl.lm.base import BaseDecoder
from lmppl.lm.pieces import PieceTokenizer

WORDS = (" a", " b", ".", "<end>")


class ToyTokenizer(PieceTokenizer):
    """Takes the first word that a text begins with, and the word of number 0 where it begins with none."""

    def encode(self, text, *, markers, opening=False):
        tokens = []
        while text:
            token = next((i for i, word in enumerate(WORDS) if text.startswith(word)), 0)  # a lone space, say
            tokens.append(token)
            text = text[len(WORDS[token]) :]
        return tuple(tokens)


class ToyModel(BaseDecoder):
    """The law after a prefix is drawn once from the prefix's checksum."""

    def __init__(self, seed=0, padding=0):
        pieces = [*(word.encode() for word in WORDS), *[b""] * padding]
        super().__init__(ToyTokenizer(pieces, len(WORDS) - 1), identifier="toy")
        self.seed, self._laws_of = seed, {}

    def law(self, prefix):
        """(V,) log probabilities of the token after a prefix."""
        if prefix not in self._laws_of:
            rng = np.random.default_rng(zlib.crc32(repr((self.seed, prefix)).encode()))
            logits = rng.normal(0, 1.5, self.vocabulary_size)
            self._laws_of[prefix] = logits - np.logaddexp.reduce(logits)
        return self._laws_of[prefix]

    def next_laws(self, rows):
        return [np.stack([self.law(tokens[:t]) for t in range(first, len(tokens) + 1)]) for tokens, first in rows]
