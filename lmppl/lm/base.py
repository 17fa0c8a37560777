"""What every backend gets: all that a language model does, from one method and a tokenizer.

`BaseScorer` needs `score`; `BaseDecoder` needs `next_laws`. What they make of it is right, counted,
and run row by row; a backend that can save work overrides what it does better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp

from lmppl import ir
from lmppl.errors import LmpplError
from lmppl.findings import models as findings
from lmppl.lm.capabilities import BY_LAWS, Capabilities
from lmppl.lm.chat import ChatTemplate
from lmppl.lm.local_law import UnderLaw, shaped
from lmppl.lm.protocol import Cost, Past, Row, Stream, Tokenizer, Tokens
from lmppl.lm.sampling import sample_by_laws
from lmppl.lm.tree import Carrier, carriers, score_one_by_one

Floats = NDArray[np.float64]
T = TypeVar("T")
NOTHING: Mapping[str, str] = MappingProxyType({})
MOST_LAWS = 2**23  # numbers in the laws that are asked for at once: 64 MiB


class BaseScorer(ABC):
    """A language model that tells how probable given tokens are. Implements protocol.Scorer, and
    what LanguageModel adds.
    """

    capabilities: Capabilities = frozenset()
    caches = True  # False where a token costs a pass over all before it: users are told
    slow = False
    chat: ChatTemplate | None = None
    local_law: ir.LocalLaw | None = None

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        name: str = "LM",
        identifier: str | None = None,
        revision: str = "local",
        fingerprint: Mapping[str, str] = NOTHING,
        window: int = 2**20,
    ) -> None:
        """identifier: what a run's document calls the model, the name of its class where there is
        none. fingerprint: what it is by content; runs are taken up again where that is the same.
        window: longest sequence, in tokens.
        """
        self.tokenizer, self.name, self.revision, self.window = tokenizer, name, revision, window
        self.identifier = type(self).__name__ if identifier is None else identifier
        self.fingerprint = fingerprint
        self.cost = Cost()
        self.vocabulary_size, self.end = tokenizer.vocabulary_size, tokenizer.end
        self.tokenizer_fingerprint = tokenizer.tokenizer_fingerprint

    @abstractmethod
    def score(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[Floats]:
        """See Scorer. It counts its own passes and tokens in `self.cost`."""

    @property
    def root(self) -> Self:
        """What it shares weights and passes with: itself."""
        return self

    # --- tokens ----------------------------------------------------------------------------------

    @property
    def token_bytes(self) -> Sequence[bytes] | None:
        return self.tokenizer.token_bytes

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        return self.tokenizer.encode(text, markers=markers, opening=opening)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        return self.tokenizer.pieces(tokens)

    def begin(self, tokens: Tokens) -> Tokens:
        return self.tokenizer.begin(tokens)

    def encode_template(self, text: str, *, opening: bool) -> Tokens:
        return self.encode(text, markers=True, opening=opening)

    def end_also(self, token: int) -> bool:
        return token == self.end

    # --- scoring ---------------------------------------------------------------------------------

    def score_all(self, asked: Sequence[tuple[Tokens, Sequence[Row]]]) -> list[list[Floats]]:
        return [self._score_rows(prompt, rows) for prompt, rows in asked]

    def score_all_by(
        self, models: Sequence[Self], asked: Sequence[tuple[Tokens, Sequence[Row]]]
    ) -> list[list[list[Floats]]]:
        return [model.score_all(asked) for model in models]

    def _score_rows(self, prompt: Tokens, rows: Sequence[Row]) -> list[Floats]:
        starts = [start for _, start in rows]
        return self.score(prompt, [tokens for tokens, _ in rows], starts)

    def score_prefixes(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        starts: Sequence[int],
        closing: int | None = None,
    ) -> list[tuple[Floats, Floats]]:
        closer = self.end if closing is None else closing
        found = []
        scores = self.score(prompt, continuations, starts)
        for row, start, own in zip(continuations, starts, scores, strict=True):
            lengths = range(start, len(row) + 1)
            closed = self.score(prompt, [(*row[:t], closer) for t in lengths], lengths)
            found.append((own, np.concatenate(closed)))
        return found

    def score_trees(self, prompt: Tokens, groups: Sequence[Sequence[Row]]) -> list[Floats]:
        return score_one_by_one(self, prompt, groups)

    # --- what a backend may save ------------------------------------------------------------------

    def expect(self, stem: Tokens) -> None:  # noqa: B027
        """Nothing is run for all."""

    def forget_prompts(self) -> None:  # noqa: B027
        """Nothing is kept."""

    def forget_all_but_stems(self) -> None:
        self.forget_prompts()

    def prepare(self, prompts: Sequence[Tokens]) -> None:  # noqa: B027
        """Nothing is run before it is asked for."""


class BaseDecoder(UnderLaw, BaseScorer):
    """A language model that tells the probability of every next token. Implements LanguageModel."""

    capabilities: Capabilities = BY_LAWS
    _also: Tokens = ()  # tokens that end texts besides `end`

    @abstractmethod
    def next_laws(self, rows: Sequence[Row]) -> Sequence[Floats]:
        """Per row (tokens, first), log probabilities (len(tokens) + 1 − first, V) of the token
        after each of tokens[:first] to tokens[:len(tokens)].

        The prompt is in front of the tokens, so first ≥ 1. Several end tokens are one: the sum of
        their probabilities stands at `end`, and the others have log probability −inf.
        """

    @property
    def _none(self) -> Floats:
        return np.empty((0, self.vocabulary_size))

    def _laws(self, rows: Sequence[Row]) -> Sequence[Floats]:
        """`next_laws`, counted, as the local law leaves them."""
        require_window(self.name, max(len(tokens) for tokens, _ in rows), self.window)
        self.cost.begin_pass()
        laws = self.next_laws(rows)
        self.cost.tokens_scored += sum(len(tokens) for tokens, _ in rows)
        return [self._local(np.array(law, dtype=np.float64)) for law in laws]

    def _local(self, laws: Floats) -> Floats:
        """Log probabilities (T, V) as the local law leaves them."""
        if self.local_law is None:
            return laws
        return torch.log_softmax(shaped(torch.from_numpy(laws), self.local_law), -1).numpy()

    def end_also(self, token: int) -> bool:
        if token not in (self.end, *self._also):
            self._also = (*self._also, token)
        return True

    def _at_once(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Floats]]:
        """Rows with their laws, in which all ends are one event."""
        for row, laws in zip(rows, self._laws(rows), strict=True):
            put_ends_together(laws, [self.end, *self._also])
            yield row, laws

    def blocks(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Floats]]:
        """Rows with their laws, as many at a time as there is room for."""
        block: list[Row] = []
        height, room = 0, MOST_LAWS // self.vocabulary_size
        for row in rows:
            height += _height(row)
            if block and height > room:
                yield from self._at_once(block)
                block, height = [], _height(row)
            block.append(row)
        if block:
            yield from self._at_once(block)

    def _read(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        starts: Sequence[int],
        read: Callable[[Floats, Tokens], T],
        whole: bool = False,
    ) -> list[T]:
        """Per row, what `read` makes of the laws (T, V) that its T tokens from its start on come
        from, and of these. whole: of the law after the last of them as well, (T + 1, V).
        """
        asked = [i for i, row in enumerate(continuations) if whole or starts[i] < len(row)]
        inputs = [continuations[i] if whole else continuations[i][:-1] for i in asked]
        served = carriers(inputs, [starts[i] for i in asked])
        results = {i: read(self._none, ()) for i in {*range(len(continuations))} - {*asked}}
        behind = [((*prompt, *one.inputs), len(prompt) + one.start) for one in served]
        for one, (_, laws) in zip(served, self.blocks(behind), strict=True):
            for i in (asked[guest] for guest in one.guests):
                tokens = continuations[i][starts[i] :]
                results[i] = read(_of_guest(one, laws, starts[i], len(tokens) + whole), tokens)
        return [results[i] for i in range(len(continuations))]

    def score(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[Floats]:
        return self._read(prompt, continuations, starts, _picked)

    def score_prefixes(
        self,
        prompt: Tokens,
        continuations: Sequence[Tokens],
        starts: Sequence[int],
        closing: int | None = None,
    ) -> list[tuple[Floats, Floats]]:
        closer = self.end if closing is None else closing

        def read(laws: Floats, tokens: Tokens) -> tuple[Floats, Floats]:
            return _picked(laws, tokens), laws[:, closer].copy()

        return self._read(prompt, continuations, starts, read, whole=True)

    def laws(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[torch.Tensor]:
        return self._read(prompt, continuations, starts, lambda laws, _: torch.from_numpy(laws))

    sample = sample_by_laws

    # --- streams ---------------------------------------------------------------------------------

    def stream(self, prompt: Tokens, suffixes: Sequence[Tokens]) -> BaseStream:
        return BaseStream(self, prompt, suffixes)

    def resume(self, prompt: Tokens, pasts: Sequence[Past], lengths: Sequence[int]) -> BaseStream:
        kept = zip(pasts, lengths, strict=True)
        return BaseStream(self, prompt, [past.tokens[:length] for past, length in kept])

    def push(self, streams: Sequence[Stream], tokens: Sequence[NDArray[np.int64]]) -> None:
        for stream, pushed in zip(streams, tokens, strict=True):
            stream.push(pushed)


def put_ends_together(laws: Floats, ends: Sequence[int]) -> None:
    """Let the first of some end tokens stand for all of them in log laws (T, V)."""
    if len(ends) > 1:
        total = logsumexp(laws[:, ends], axis=-1)
        laws[:, ends] = -np.inf
        laws[:, ends[0]] = total


def _height(row: Row) -> int:
    """How many laws a row asks for."""
    tokens, first = row
    return len(tokens) + 1 - first


def _of_guest(carrier: Carrier, laws: Floats, start: int, count: int) -> Floats:
    """Of a carrier's laws, the first of which is that at its start, those from another start on."""
    return laws[start - carrier.start :][:count]


def _picked(laws: Floats, tokens: Tokens) -> Floats:
    """(T,) of each token under its own law."""
    return laws[np.arange(len(tokens)), list(tokens)]


class BaseStream:
    """Rows that grow, each run anew where its next law is asked for. Implements protocol.Stream."""

    joins = True

    def __init__(self, owner: BaseDecoder, prompt: Tokens, suffixes: Sequence[Tokens]) -> None:
        self._owner, self._prompt = owner, prompt
        self._rows = [tuple(suffix) for suffix in suffixes]  # what each has after the prompt
        self._known: dict[Tokens, Floats] = {}  # (V,) laws after rows

    def log_probs(self) -> torch.Tensor:
        fresh = [row for row in dict.fromkeys(self._rows) if row not in self._known]
        whole = [(*self._prompt, *row) for row in fresh]
        asked = [(tokens, len(tokens)) for tokens in whole]
        for row, (_, laws) in zip(fresh, self._owner.blocks(asked), strict=True):
            self._known[row] = laws[-1]
        laws = [self._known[row] for row in self._rows]
        return torch.from_numpy(np.array(laws).reshape(-1, self._owner.vocabulary_size))

    def push(self, tokens: NDArray[np.int64]) -> None:
        self._rows = [(*row, int(token)) for row, token in zip(self._rows, tokens, strict=True)]
        self._known = {}
        self._owner.cost.tokens_decoded += len(tokens)

    def keep(self, rows: NDArray[np.int64]) -> None:
        self._rows = [self._rows[row] for row in rows]

    def take(self, rows: Sequence[int]) -> list[Past]:
        return [Past(self._rows[row], None) for row in rows]

    def join(self, other: BaseStream) -> None:
        self._rows += other._rows


def require_window(name: str, length: int, window: int) -> None:
    """Raise LmpplError where a model is given more tokens than it can see."""
    if length > window:
        raise LmpplError(findings.beyond_window(name, length, window))
