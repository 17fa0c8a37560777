"""Masks over next tokens: which tokens keep a text inside the languages that a constraint demands
of it.

A mask rules out only tokens after which no text whatever could meet the constraint, so a sampler
that obeys it reaches everything that has positive density. Its law has another normaliser at every
token; samplers record it in their log q, and weights come out right. A terminal whose automaton is
small has a table, which also tells how many tokens an end needs: what cannot end within the tokens
that are left is ruled out. Other grammars are followed by llguidance, one matcher a row and
grammar, which knows nothing of that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.decoding.automata import automaton
from lmppl.decoding.look_ahead import Ends, LookAhead, ends_of
from lmppl.decoding.stopping import Stopping
from lmppl.decoding.token_tables import NEVER, TokenTable, token_table
from lmppl.errors import LmpplError
from lmppl.expressions import Atom, Condition, Every, overflow
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Tokens

OVER = -1  # tokens to an end, of the end token itself where the text is in the language


class Masks:
    """The masks of one text latent under one tokenizer."""

    def __init__(self, condition: Condition, model: LanguageModel, maximum: int) -> None:
        """maximum: tokens that a text has at most; the last of them must bring it into the
        languages.
        """
        self.condition, self.maximum = condition, maximum
        self.vocabulary_size = model.vocabulary_size
        self.end = model.end
        self._vocabulary = _vocabulary(model)
        self._atoms = list(dict.fromkeys(_atoms(condition)))
        self._start = [_follower(self._vocabulary, atom.grammar) for atom in self._atoms]

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

    def _fresh(self) -> _Row:
        """A row of no token."""
        return _Row(0, [follower.copy() for follower in self._start])

    @functools.cached_property
    def leads(self) -> bool:
        """Whether it is known what brings a text to its end, and the empty text is not there
        already.
        """
        steps = self.steps(_Row(0, self._start))
        return steps is not None and steps.min() > OVER

    def along(self, tokens: Tokens) -> torch.Tensor:
        """(T, V) which tokens may come next before each of these."""
        nothing = torch.zeros(0, self.vocabulary_size, dtype=torch.bool)
        return torch.cat([nothing, *(row.allowed() for row in self.before_each(tokens))])

    def before_each(self, tokens: Tokens) -> Iterator[MaskRows]:
        """A text of one row, as it is before each of its tokens."""
        row = self.start([()])
        for token in tokens:
            yield row
            row.feed(0, (token,))

    def look_ahead(self, stopping: Stopping) -> LookAhead | None:
        """What looks ahead to an end in the languages; None where no small table does."""
        whole = isinstance(self.condition, Atom)
        every = self.condition.parts if isinstance(self.condition, Every) else [self.condition]
        for part in every:
            ends = isinstance(part, Atom) and _ends(self._vocabulary, part.grammar, stopping)
            if ends:
                return LookAhead(ends, self.maximum, whole)
        return None

    def evaluate(self, row: _Row) -> NDArray[np.bool_] | None:
        """(V,) which tokens are allowed, the end included; None where none can lead to a text that
        is in.
        """
        return self._evaluate(self.condition, row)

    def _evaluate(self, condition: Condition, row: _Row) -> NDArray[np.bool_] | None:
        if isinstance(condition, Atom):
            return row.followers[self._atoms.index(condition)].allowed(self.maximum - row.length)
        parts = [self._evaluate(part, row) for part in condition.parts]
        known = [part for part in parts if part is not None]
        if isinstance(condition, Every):
            return np.logical_and.reduce(known) if len(known) == len(parts) else None
        return np.logical_or.reduce(known) if known else None

    def steps(self, row: _Row) -> NDArray[np.int32] | None:
        """(V,) about how many tokens a text needs behind each token to be in; OVER for the end
        token where it is in.

        Languages that no table tells this of are left out; None where there is no other.
        """
        return self._combined(self.condition, row, lambda follower: follower.steps())

    def nearest(self, row: _Row, allowed: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """(V,) which allowed tokens bring the text nearest to its end; None where that is
        unknown.
        """
        steps = self.steps(row)
        if steps is None or not allowed.any():
            return None
        return allowed & (steps == steps[allowed].min())

    def needed(self, row: _Row) -> int:
        """About how few tokens a text needs to be in; 0 where no table tells."""
        found = self._combined(self.condition, row, lambda follower: follower.needed())
        return 0 if found is None else int(found)

    def _combined(self, condition: Condition, row: _Row, ask: Callable[[_Follower], Any]) -> Any:
        """What followers say, where they know: the most where all must hold, the least where one is
        enough.
        """
        if isinstance(condition, Atom):
            return ask(row.followers[self._atoms.index(condition)])
        known = [
            told for part in condition.parts if (told := self._combined(part, row, ask)) is not None
        ]
        if not known:
            return None
        return (
            np.maximum.reduce(known) if isinstance(condition, Every) else np.minimum.reduce(known)
        )


@dataclass
class _Row:
    """One growing text: how many tokens it has, and where each atom's language is with it."""

    length: int
    followers: list[_Follower]

    @property
    def place(self) -> Hashable:
        """Rows that are alike in it may go on with the same tokens."""
        return (self.length, *(follower.place for follower in self.followers))

    def copy(self) -> _Row:
        return _Row(self.length, [follower.copy() for follower in self.followers])


class MaskRows:
    """The masks of B growing texts, in step with a stream."""

    def __init__(self, masks: Masks, rows: list[_Row]) -> None:
        self._masks, self._rows = masks, rows

    def allowed(self) -> torch.Tensor:
        """(B, V) which tokens may come next. A row that is lost has none."""
        return self._each(lambda b, row: self._masks.evaluate(row))

    def nearest(self, allowed: torch.Tensor) -> torch.Tensor:
        """(B, V) which of the allowed tokens bring the text nearest to its end; none where that is
        unknown.
        """
        known = allowed.numpy()
        return self._each(lambda b, row: self._masks.nearest(row, known[b]))

    def _each(self, made: Callable[[int, _Row], NDArray[np.bool_] | None]) -> torch.Tensor:
        """(B, V) what is made of each row, of those that are alike once; nothing where that is
        None.
        """
        alike: dict[Hashable, int] = {}
        index, found = [], []
        for b, row in enumerate(self._rows):
            if row.place not in alike:
                alike[row.place] = len(found)
                found.append(made(b, row))
            index.append(alike[row.place])
        nothing = np.zeros(self._masks.vocabulary_size, dtype=bool)
        distinct = torch.from_numpy(np.stack([nothing if one is None else one for one in found]))
        return distinct.index_select(0, torch.tensor(index))

    @property
    def leads(self) -> bool:
        """Whether `nearest` says anything."""
        return self._masks.leads

    def needed(self) -> NDArray[np.int64]:
        """(B,) fewest tokens to an end of each row, the end token not counted; 0 where that is
        unknown.
        """
        return np.array([self._masks.needed(row) for row in self._rows], dtype=np.int64)

    def push(self, tokens: NDArray[np.int64], rows: NDArray[np.bool_] | None = None) -> None:
        """One token more a row, or in some rows only. (B,)"""
        for b, token in enumerate(tokens):
            if rows is None or rows[b]:
                self.feed(b, (int(token),))

    def feed(self, row: int, tokens: Sequence[int]) -> None:
        """Some tokens more of one row; the end token changes nothing."""
        spoken = [token for token in tokens if token != self._masks.end]
        self._rows[row].length += len(spoken)
        for follower in self._rows[row].followers:
            follower.feed(spoken)

    def join(self, other: MaskRows) -> None:
        """Go on with another batch's rows behind these."""
        self._rows = [*self._rows, *other._rows]

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Go on with these rows only, in this order; a row may be named more than once."""
        seen: set[int] = set()
        kept = []
        for row in (int(row) for row in rows):
            kept.append(self._rows[row].copy() if row in seen else self._rows[row])
            seen.add(row)
        self._rows = kept


# --- following one language -----------------------------------------------------------------------


class _Tabled:
    """A language whose table is there."""

    def __init__(self, table: TokenTable, end: int, state: int = 0) -> None:
        self._table, self._end, self._state = table, end, state

    @property
    def place(self) -> Hashable:
        """The automaton's state."""
        return self._state

    def allowed(self, left: int) -> NDArray[np.bool_] | None:
        """(V,) tokens after which a text of so many tokens more can be in the language; None where
        there is none.
        """
        distance = self._table.distance
        if distance[self._state] == NEVER:
            return None
        allowed = distance[self._table.after[self._state]] < left
        allowed[self._end] = distance[self._state] == 0
        return allowed

    def steps(self) -> NDArray[np.int32] | None:
        """(V,) fewest tokens behind each token to an end; OVER where that is the end token and the
        text is in.
        """
        steps = self._table.distance[self._table.after[self._state]]
        steps[self._end] = OVER if self._table.distance[self._state] == 0 else NEVER
        return steps

    def needed(self) -> int | None:
        """Fewest tokens to an end, the end token not counted."""
        return int(self._table.distance[self._state])

    def feed(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._state = int(self._table.after[self._state, token])

    def copy(self) -> _Tabled:
        return _Tabled(self._table, self._end, self._state)


class _Stepped:
    """A language that a matcher of llguidance follows; it is None where the text has left it."""

    def __init__(self, vocabulary: _Vocabulary, matcher: Any) -> None:
        self._vocabulary, self._matcher = vocabulary, matcher

    @property
    def place(self) -> Hashable:
        """Its own: what a matcher has read cannot be told."""
        return id(self)

    def allowed(self, left: int) -> NDArray[np.bool_] | None:
        """(V,) tokens after which a text can be in the language, however long; None where there is
        none.
        """
        matcher, vocabulary = self._matcher, self._vocabulary
        if matcher is None:
            return None
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        _require_sound(matcher)
        if matcher.is_stopped() and not matcher.is_accepting():
            return None
        allowed = np.unpackbits(bits, count=len(vocabulary.pieces), bitorder="little").view(bool)
        allowed = allowed | vocabulary.silent
        # the end token's own bytes may seem to belong to a complement
        allowed[vocabulary.end] = matcher.is_accepting()
        return allowed

    def steps(self) -> NDArray[np.int32] | None:
        """None: a matcher does not know how far the end is."""
        return None

    def needed(self) -> int | None:
        """None, as above."""
        return None

    def feed(self, tokens: Sequence[int]) -> None:
        matcher = self._matcher
        spoken = [token for token in tokens if not self._vocabulary.silent[token]]
        if matcher is not None and spoken and matcher.try_consume_tokens(spoken) < len(spoken):
            _require_sound(matcher)
            self._matcher = None

    def copy(self) -> _Stepped:
        return _Stepped(self._vocabulary, self._matcher and self._matcher.deep_copy())


_Follower = _Tabled | _Stepped


def _follower(vocabulary: _Vocabulary, grammar: str) -> _Follower:
    """What follows a language from its beginning."""
    table = _table(vocabulary, grammar)
    return (
        _Stepped(vocabulary, _matcher(vocabulary, grammar))
        if table is None
        else _Tabled(table, vocabulary.end)
    )


@functools.lru_cache(maxsize=8)
def _table(vocabulary: _Vocabulary, grammar: str) -> TokenTable | None:
    found = automaton(grammar)
    return None if found is None else token_table(found, vocabulary.pieces, vocabulary.end)


@functools.lru_cache(maxsize=8)
def _ends(vocabulary: _Vocabulary, grammar: str, stopping: Stopping) -> Ends | None:
    found = automaton(grammar)
    return None if found is None else ends_of(found, stopping, vocabulary.pieces)


def _require_sound(matcher: Any) -> None:
    """Raises LmpplError where an automaton has outgrown its limits: it would rule out every
    token.
    """
    if reason := overflow(matcher):
        _matcher.cache_clear()  # copies share what has overflowed
        raise LmpplError(run_findings.automaton_too_large(reason))


def _atoms(condition: Condition) -> list[Atom]:
    return (
        [condition]
        if isinstance(condition, Atom)
        else [atom for part in condition.parts for atom in _atoms(part)]
    )


@functools.lru_cache(maxsize=256)
def _matcher(vocabulary: _Vocabulary, grammar: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(vocabulary.tokenizer, grammar, log_level=0)


# --- vocabularies ---------------------------------------------------------------------------------


class _Vocabulary:
    """The bytes of every token, and which one ends a text."""

    def __init__(self, pieces: Sequence[bytes], end: int) -> None:
        self.pieces, self.end = pieces, end
        # padding of the vocabulary has no text: such a token changes nothing
        self.silent = np.array([not piece for piece in pieces], dtype=bool)

    @functools.cached_property
    def tokenizer(self) -> Any:
        """As llguidance has it."""
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_Wrapped(self.pieces, self.end)))  # type: ignore[arg-type]


class _Wrapped:
    """What llguidance asks of a tokenizer."""

    def __init__(self, pieces: Sequence[bytes], end: int) -> None:
        # a first byte FF means a special token there, so one that is text becomes another byte that
        # is no character
        self.tokens = [piece.replace(b"\xff", b"\xfe") or b"\xff\xfe" for piece in pieces]
        self.eos_token_id, self.bos_token_id, self.special_token_ids = end, None, [end]

    def __call__(self, text: str) -> list[int]:
        return []


_VOCABULARIES: dict[str, _Vocabulary] = {}


def _vocabulary(model: LanguageModel) -> _Vocabulary:
    """One for all models that share it."""
    key = f"{model.tokenizer_fingerprint} {model.vocabulary_size} {model.end}"
    if key not in _VOCABULARIES:
        assert model.token_bytes is not None
        _VOCABULARIES[key] = _Vocabulary(model.token_bytes, model.end)
    return _VOCABULARIES[key]
