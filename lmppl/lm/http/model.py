"""A served model as a language model that scores and draws, and tells no laws."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from lmppl.errors import LmpplError
from lmppl.findings import servers as findings
from lmppl.lm.base import NOTHING, BaseScorer, Floats, require_window
from lmppl.lm.capabilities import BY_DRAWS
from lmppl.lm.http.address import API
from lmppl.lm.http.completions import (
    ROUTE,
    Asked,
    OddAnswer,
    drawn,
    scored,
    to_draw,
    to_score,
)
from lmppl.lm.http.probe import Served
from lmppl.lm.http.scoring import Scoring
from lmppl.lm.http.wire import Wire
from lmppl.lm.protocol import Drawn, Row, Tokens
from lmppl.lm.transformers import FilesTokenizer
from lmppl.shapes import Document

T = TypeVar("T")


class ServedModel(BaseScorer):
    """Implements Sampler, and of LanguageModel what goes without laws. Everything is asked of the
    server at temperature 1, with nothing cut away.
    """

    capabilities = BY_DRAWS
    slow = True  # every answer is waited for
    tokenizer: FilesTokenizer

    def __init__(
        self,
        wire: Wire,
        served: Served,
        tokenizer: FilesTokenizer,
        *,
        name: str = "LM",
        identifier: str | None = None,
        window: int = 2**20,
        fingerprint: Mapping[str, str] = NOTHING,
    ) -> None:
        """window: tokens of the longest text, the one that a server draws when it scores left
        out.
        """
        revision = f"{served.name} by {served.version}"
        super().__init__(
            tokenizer, name=name, identifier=identifier, revision=revision,
            fingerprint=fingerprint, window=window,
        )  # fmt: skip
        self._wire, self._served = wire, served
        self.ends = tokenizer.ends
        self.chat = tokenizer.chat

    def end_also(self, token: int) -> bool:
        if token not in self.ends:
            self.ends = (*self.ends, token)
        return True

    def encode_template(self, text: str, *, opening: bool) -> Tokens:
        return self.tokenizer.encode_template(text, opening=opening)

    # --- drawing ---------------------------------------------------------------------------------

    def sample(
        self,
        prompt: Tokens,
        suffixes: Sequence[Tokens],
        seeds: Sequence[int],
        maximum: int,
        until: str | None = None,
    ) -> list[Drawn]:
        """See Sampler. A text that stops before it is over is shorter than it could be: who asks
        sees that by its last token, and asks for the rest.
        """
        asked = []
        for suffix, seed in zip(suffixes, seeds, strict=True):
            tokens = (*prompt, *suffix)
            room = self.window - len(tokens)
            require_window(self.name, len(tokens) + 1, self.window)
            most = min(maximum, room)
            asked.append(to_draw(self._served.name, tokens, seed, most, until, self.ends))
        answers = self._post(asked)
        read = functools.partial(drawn, maximum=maximum, ends=self.ends)
        found = [self._read(read, answer) for answer in answers]
        for suffix, text in zip(suffixes, found, strict=True):
            self.cost.tokens_decoded += len(text.tokens)
            whole = len(prompt) + len(suffix) + len(text.tokens)
            if whole >= self.window and len(text.tokens) < maximum and not self._over(text, until):
                require_window(self.name, whole + 1, self.window)
        self.cost.tokens_scored += len(prompt) + sum(map(len, suffixes))
        return found

    def _over(self, text: Drawn, until: str | None) -> bool:
        return text.tokens[-1] == self.end or (
            until is not None and until in self.decode(text.tokens)
        )

    # --- scoring ---------------------------------------------------------------------------------

    def score(
        self, prompt: Tokens, continuations: Sequence[Tokens], starts: Sequence[int]
    ) -> list[Floats]:
        rows = list(zip(continuations, starts, strict=True))
        return self.score_all([(prompt, rows)])[0]

    def score_all(self, asked: Sequence[tuple[Tokens, Sequence[Row]]]) -> list[list[Floats]]:
        """See LanguageModel. Rows behind all prompts are in flight together."""
        whole: list[Row] = []
        for prompt, rows in asked:
            whole += [((*prompt, *tokens), len(prompt) + start) for tokens, start in rows]
        found = iter(self._scores(whole))
        return [[*islice(found, len(rows))] for _, rows in asked]

    def _scores(self, rows: Sequence[Row]) -> list[Floats]:
        """Per row of tokens with their prompt, log probabilities of those from a place on."""
        scoring = Scoring.of(rows, self.ends)
        for one in scoring.requests:
            require_window(self.name, len(one.tokens), self.window)
        asked = [to_score(self._served.name, one, self.ends) for one in scoring.requests]
        told = []
        for one, answer in zip(scoring.requests, self._post(asked), strict=True):
            self.cost.tokens_scored += len(one.tokens)
            told.append(self._read(functools.partial(scored, one=one, ends=self.ends), answer))
        return scoring.read(told)

    @property
    def served_name(self) -> str:
        """What requests call it."""
        return self._served.name

    def ask(self, route: str, body: Mapping[str, object]) -> Document:
        """What the server answers to any request. route: from its origin on, as /tokenize. Raises
        LmpplError, and Lost.
        """
        return self._wire.ask(f"{self._wire.base.removesuffix(API)}{route}", body)

    # --- asking ----------------------------------------------------------------------------------

    def _post(self, asked: Sequence[Asked]) -> list[Document]:
        if asked:
            self.cost.begin_pass()
        return self._wire.post_all(ROUTE, asked, self.cost.watch)

    def _read(self, read: Callable[[Document], T], answer: Document) -> T:
        try:
            return read(answer)
        except OddAnswer as problem:
            if len(self.ends) > 1 and "by number" in str(problem):
                raise LmpplError(findings.several_ends(self._wire.base)) from None
            raise LmpplError(findings.odd_answer(self._wire.base, str(problem))) from None
