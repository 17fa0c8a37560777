"""Masks over next tokens: which tokens keep a text inside the languages that a constraint demands of it.

A mask rules out only tokens after which no text whatever could meet the constraint, so a sampler that obeys it
reaches everything that has positive density. Its law has another normaliser at every token; samplers record it
in their log q, and weights come out right. Compiled by llguidance; one matcher a row and grammar.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl import run_findings
from lmppl.automata import overflow
from lmppl.errors import LmpplError
from lmppl.lm.protocol import LanguageModel, Tokens
from lmppl.necessary import Atom, Condition, Every

Matchers = list[Any]  # one llguidance matcher an atom; None where the text has left its language


class Masks:
    """The masks of one text latent under one tokenizer."""

    def __init__(self, condition: Condition, model: LanguageModel) -> None:
        self.condition = condition
        self.vocabulary_size = model.vocabulary_size
        self.end = model.end
        self._tokenizer = _tokenizer(model)
        self._atoms = list(dict.fromkeys(_atoms(condition)))
        self._start = [_matcher(self._tokenizer, atom.grammar) for atom in self._atoms]
        # padding of the vocabulary has no text: such a token changes nothing
        self.silent = np.array([not piece for piece in model.token_bytes or ()], dtype=bool)

    @property
    def impossible(self) -> bool:
        """Whether no text at all is possible."""
        return not self.start([()]).allowed().any()

    def start(self, kept: Sequence[Tokens]) -> MaskRows:
        """Masks of texts that begin with these tokens."""
        rows = MaskRows(self, [self._fresh() for _ in kept])
        for b, tokens in enumerate(kept):
            rows.feed(b, tokens)
        return rows

    def along(self, tokens: Tokens) -> torch.Tensor:
        """(T, V) which tokens may come next before each of these."""
        row = self.start([()])
        found = [torch.zeros(0, self.vocabulary_size, dtype=torch.bool)]
        for token in tokens:
            found.append(row.allowed())
            row.feed(0, (token,))
        return torch.cat(found)

    def _fresh(self) -> Matchers:
        return [matcher.deep_copy() for matcher in self._start]

    def evaluate(self, matchers: Matchers) -> NDArray[np.bool_] | None:
        """(V,) which tokens are allowed, the end included; None where none can lead to a text that is in."""
        return self._evaluate(self.condition, matchers)

    def _evaluate(self, condition: Condition, matchers: Matchers) -> NDArray[np.bool_] | None:
        if isinstance(condition, Atom):
            return self._allowed(matchers[self._atoms.index(condition)])
        parts = [self._evaluate(part, matchers) for part in condition.parts]
        known = [part for part in parts if part is not None]
        if isinstance(condition, Every):
            return np.logical_and.reduce(known) if len(known) == len(parts) else None
        return np.logical_or.reduce(known) if known else None

    def _allowed(self, matcher: Any) -> NDArray[np.bool_] | None:
        if matcher is None:
            return None
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        _require_sound(matcher)
        if matcher.is_stopped() and not matcher.is_accepting():
            return None
        allowed = np.unpackbits(bits, count=self.vocabulary_size, bitorder="little").view(bool)
        allowed = allowed | self.silent
        allowed[self.end] = matcher.is_accepting()  # its own bytes may seem to belong to a complement
        return allowed


class MaskRows:
    """The masks of B growing texts, in step with a stream."""

    def __init__(self, masks: Masks, rows: list[Matchers]) -> None:
        self._masks, self._rows = masks, rows

    def allowed(self) -> torch.Tensor:
        """(B, V) which tokens may come next. A row that is lost has none."""
        nothing = np.zeros(self._masks.vocabulary_size, dtype=bool)
        masks = [self._masks.evaluate(matchers) for matchers in self._rows]
        return torch.from_numpy(np.stack([nothing if mask is None else mask for mask in masks]))

    def push(self, tokens: NDArray[np.int64], rows: NDArray[np.bool_] | None = None) -> None:
        """One token more a row, or in some rows only. (B,)"""
        for b, token in enumerate(tokens):
            if rows is None or rows[b]:
                self.feed(b, (int(token),))

    def feed(self, row: int, tokens: Sequence[int]) -> None:
        """Some tokens more of one row; the end token changes nothing."""
        spoken = [token for token in tokens if token != self._masks.end and not self._masks.silent[token]]
        matchers = self._rows[row]
        for a, matcher in enumerate(matchers):
            if matcher is not None and spoken and matcher.try_consume_tokens(spoken) < len(spoken):
                _require_sound(matcher)
                matchers[a] = None

    def join(self, other: MaskRows) -> None:
        """Go on with another batch's rows behind these."""
        self._rows = [*self._rows, *other._rows]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with these rows only, in this order; a row may be named more than once."""
        seen: set[int] = set()
        kept = []
        for row in (int(row) for row in rows):
            again = row in seen
            kept.append([m and m.deep_copy() for m in self._rows[row]] if again else self._rows[row])
            seen.add(row)
        self._rows = kept


def _require_sound(matcher: Any) -> None:
    """Raises LmpplError where an automaton has outgrown its limits: it would rule out every token."""
    if reason := overflow(matcher):
        _matcher.cache_clear()  # copies share what has overflowed
        raise LmpplError(run_findings.automaton_too_large(reason))


def _atoms(condition: Condition) -> list[Atom]:
    return [condition] if isinstance(condition, Atom) else [atom for part in condition.parts for atom in _atoms(part)]


@functools.lru_cache(maxsize=256)
def _matcher(tokenizer: Any, grammar: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(tokenizer, grammar, log_level=0)


class _Vocabulary:
    """What llguidance asks of a tokenizer: the bytes of every token, and which one ends a text."""

    def __init__(self, pieces: Sequence[bytes], end: int) -> None:
        # a first byte FF means a special token there, so one that is text becomes another byte that is no character
        self.tokens = [piece.replace(b"\xff", b"\xfe") or b"\xff\xfe" for piece in pieces]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, [end]

    def __call__(self, text: str) -> list[int]:
        return []


_TOKENIZERS: dict[str, Any] = {}


def _tokenizer(model: LanguageModel) -> Any:
    """One llguidance tokenizer for all models that share a vocabulary."""
    key = f"{model.tokenizer_fingerprint} {model.vocabulary_size} {model.end}"
    if key not in _TOKENIZERS:
        from llguidance import LLTokenizer, TokenizerWrapper

        assert model.token_bytes is not None
        _TOKENIZERS[key] = LLTokenizer(TokenizerWrapper(_Vocabulary(model.token_bytes, model.end)))  # type: ignore[arg-type]
    return _TOKENIZERS[key]
