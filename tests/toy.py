"""A language model that is a table in float64: exact enough to check laws to the last digits."""

import zlib
from typing import ClassVar

import numpy as np
import torch

from lmppl.lm.protocol import Cost, Past
from lmppl.lm.tree import score_one_by_one

WORDS = (" a", " b", ".", "<end>")


class ToyModel:
    """Implements lm.protocol.LanguageModel; the law after a prefix is drawn once from the prefix's checksum."""

    name, identifier, revision, tokenizer_fingerprint = "LM", "toy", "local", "toy"
    fingerprint: ClassVar = {}
    vocabulary_size, end, window = len(WORDS), len(WORDS) - 1, 10_000
    caches = True
    slow = False
    token_bytes = tuple(word.encode() for word in WORDS)

    def __init__(self, seed=0):
        self.seed, self.cost, self._laws = seed, Cost(), {}

    def law(self, prefix):
        """(V,) log probabilities of the token after a prefix."""
        if prefix not in self._laws:
            rng = np.random.default_rng(zlib.crc32(repr((self.seed, prefix)).encode()))
            logits = rng.normal(0, 1.5, self.vocabulary_size)
            self._laws[prefix] = logits - np.logaddexp.reduce(logits)
        return self._laws[prefix]

    def encode(self, text, *, markers, opening=False):
        tokens = []
        while text:
            token = next((i for i, word in enumerate(WORDS) if text.startswith(word)), 0)  # a lone space, say
            tokens.append(token)
            text = text[len(WORDS[token]) :]
        return tuple(tokens)

    def decode(self, tokens):
        return "".join(WORDS[token] for token in tokens)

    def expect(self, stem):
        pass

    def forget_prompts(self):
        pass

    def pieces(self, tokens):
        return [WORDS[token] for token in tokens]

    def begin(self, tokens):
        return tokens or (self.end,)

    def score(self, prompt, continuations, starts):
        return [
            np.array([self.law(prompt + row[:t])[row[t]] for t in range(start, len(row))])
            for row, start in zip(continuations, starts, strict=True)
        ]

    def score_all(self, asked):
        return [self.score(prompt, *(zip(*rows, strict=True) if rows else ((), ()))) for prompt, rows in asked]

    def prepare(self, prompts):
        pass

    def score_prefixes(self, prompt, continuations, starts, closing=None):
        closing = self.end if closing is None else closing
        ends = [
            np.array([self.law(prompt + row[:t])[closing] for t in range(start, len(row) + 1)])
            for row, start in zip(continuations, starts, strict=True)
        ]
        return list(zip(self.score(prompt, continuations, starts), ends, strict=True))

    def laws(self, prompt, continuations, starts):
        rows = [
            [self.law(prompt + row[:t]) for t in range(start, len(row))]
            for row, start in zip(continuations, starts, strict=True)
        ]
        return [torch.from_numpy(np.array(row).reshape(-1, len(WORDS))) for row in rows]

    def score_trees(self, prompt, groups):
        return score_one_by_one(self, prompt, groups)

    def stream(self, prompt, suffixes):
        return ToyStream(self, prompt, [prompt + tuple(suffix) for suffix in suffixes])

    def push(self, streams, tokens):
        for stream, pushed in zip(streams, tokens, strict=True):
            stream.push(pushed)

    def resume(self, prompt, pasts, lengths):
        return self.stream(prompt, [past.tokens[:length] for past, length in zip(pasts, lengths, strict=True)])


class ToyStream:
    def __init__(self, model, prompt, rows):
        self.model, self.prompt, self.rows = model, prompt, rows

    def log_probs(self):
        return torch.from_numpy(np.stack([self.model.law(row) for row in self.rows]))

    def push(self, tokens):
        self.rows = [(*row, int(token)) for row, token in zip(self.rows, tokens, strict=True)]

    def keep(self, rows):
        self.rows = [self.rows[row] for row in rows]

    joins = True

    def take(self, rows):
        return [Past(self.rows[row][len(self.prompt) :], None) for row in rows]

    def join(self, other):
        self.rows = [*self.rows, *other.rows]
