"""What tools write into a text while it grows, as a law of its next token.

After a token with which the decoded text newly ends with a tool's trigger, the tool is called on
the text, and the tokens of what it returns are due, one after the other: the next token's law is a
point mass on the one that is due. So they carry no choice, and a text that has another token there,
or ends, is impossible. Inside an insertion no trigger is looked for. Everything follows from the
text alone, by replaying it. Knows token ids and functions of texts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl import ir
from lmppl.errors import LmpplError
from lmppl.expressions import EvaluationError, Helper, calculate, call_helper
from lmppl.findings import run as run_findings
from lmppl.lm import Tokens
from lmppl.source import Source

FREE = -1  # in place of a token, where none is settled
MOST_CHARACTERS = 10_000  # of what a tool may return; `max` cuts it long before
REMEMBERED = 2**16  # insertions, by the tokens before them

Encode = Callable[[str], Tokens]
Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class Tool:
    """What is written behind a trigger. write: of the text so far, which ends with it; raises
    LmpplError.
    """

    trigger: str
    write: Callable[[str], str]


class Awaited:
    """A text that a growing one may come to end with or to hold, and the tokens that it can do so
    by.
    """

    def __init__(self, text: str, decode: Decode) -> None:
        self.text, self._decode = text, decode
        self._possible: dict[int, bool] = {}

    def possible(self, token: int) -> bool:
        """False only where no text ending in this token can have just completed the text: saves
        decoding.
        """
        if token not in self._possible:
            piece = self._decode([token])
            last = self.text[-1]
            # a space may be hidden by the tokenizer, and part of a character decodes to U+FFFD
            self._possible[token] = last.isspace() or last in piece or "\ufffd" in piece
        return self._possible[token]


class Tools:
    """The tools of one text latent under one tokenizer. Where several are triggered at once, the
    first one writes.
    """

    def __init__(self, tools: Sequence[Tool], encode: Encode, decode: Decode) -> None:
        """encode: of plain text."""
        self._tools, self._encode, self._decode = tools, encode, decode
        self._triggers = [Awaited(tool.trigger, decode) for tool in tools]
        self._written = functools.lru_cache(REMEMBERED)(self._write)

    def due(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        """(T + 1,) the token that must come after each of the first t tokens, FREE where any
        may.
        """
        return np.array(
            [left[0] if left else FREE for left in self._replayed(tokens)], dtype=np.int64
        )

    def wrote(self, tokens: Sequence[int]) -> bool:
        """Whether each of these tokens is the one that was due, where one was."""
        due = self.due(tokens)[:-1]
        return bool(np.all((due == FREE) | (due == np.array(tokens, dtype=np.int64))))

    def _replayed(self, tokens: Sequence[int]) -> list[Tokens]:
        """(T + 1,) what is left of an insertion after each of the first t tokens."""
        found: list[Tokens] = [()]
        for t, token in enumerate(tokens):
            if left := found[-1]:
                found.append(left[1:] if token == left[0] else ())
            elif any(trigger.possible(token) for trigger in self._triggers):
                found.append(self._written(tuple(tokens[: t + 1])))
            else:
                found.append(())
        return found

    def _write(self, tokens: Tokens) -> Tokens:
        """What is inserted after these tokens, the last of which is no part of an insertion."""
        text = self._decode(tokens)
        if text == self._decode(tokens[:-1]):  # a token without text triggers nothing
            return ()
        triggered = next((tool for tool in self._tools if text.endswith(tool.trigger)), None)
        return self._encode(triggered.write(text)) if triggered else ()

    def tokens_of(self, text: str) -> Tokens:
        """Tokens of a whole text, those that the tools write in it among them; where it does not
        hold what they write, tokens as they are without tools."""
        tokens: Tokens = ()
        at = 0
        while at < len(text):
            cut = self._end_of_trigger(text, at)
            tokens += self._encode(text[at:cut])
            tokens += self._held(text, tokens)
            at = max(cut, len(self._decode(tokens)))
        return tokens if self._decode(tokens) == text and self.wrote(tokens) else self._encode(text)

    def _end_of_trigger(self, text: str, at: int) -> int:
        """Where the first trigger that ends behind a place does so; the end of the text where none
        does.
        """
        starts = [
            text.find(trigger.text, max(0, at + 1 - len(trigger.text)))
            for trigger in self._triggers
        ]
        found = zip(starts, self._triggers, strict=True)
        return min(
            (start + len(trigger.text) for start, trigger in found if start >= 0), default=len(text)
        )

    def _held(self, text: str, tokens: Tokens) -> Tokens:
        """What is due after these tokens, as far as a text holds it."""
        left = self._replayed(tokens)[-1]
        held = (
            left[:size]
            for size in range(len(left), 0, -1)
            if text.startswith(self._decode(tokens + left[:size]))
        )
        return next(held, ())


# --- the tools of a program -----------------------------------------------------------------------


def tools_of(
    latent: ir.TextLatent,
    helpers: Mapping[str, Helper],
    source: Source,
    encode: Encode,
    decode: Decode,
) -> Tools | None:
    """What writes into a text latent; None where nothing does."""
    tools = [Tool(tool.trigger, _writer(latent, tool, helpers, source)) for tool in latent.tools]
    return Tools(tools, encode, decode) if tools else None


def _writer(
    latent: ir.TextLatent, tool: ir.Tool, helpers: Mapping[str, Helper], source: Source
) -> Callable[[str], str]:
    if tool.name in helpers:
        return functools.partial(_ask, latent.name, tool, helpers[tool.name], source)
    operands = int(dict(tool.options)["operands"])
    return lambda text: calculate(text, tool.trigger, operands)


def _ask(latent: str, tool: ir.Tool, function: Helper, source: Source, text: str) -> str:
    """What a user's function returns. Raises LmpplError, with its place and the text that it was
    given.
    """
    try:
        found = call_helper(tool.name, function, [text], tool.span)
    except EvaluationError as reason:
        raise LmpplError(
            run_findings.tool_failed(str(reason), latent, text, source, tool.span)
        ) from None
    if problem := _problem(found):
        message = f"`{tool.name}` must return a text, it returned {problem}"
        raise LmpplError(run_findings.tool_failed(message, latent, text, source, tool.span))
    assert isinstance(found, str)  # whatever is no text has a problem
    return found


def _problem(found: Any) -> str | None:
    """What is wrong with what a tool returned; None where nothing is."""
    if not isinstance(found, str):
        return f"{type(found).__name__} {found!r:.80}"
    if len(found) > MOST_CHARACTERS:
        return f"one of {len(found):,} characters; at most {MOST_CHARACTERS:,} are allowed"
    if any("\ud800" <= character <= "\udfff" for character in found):
        return "one with half of a surrogate pair in it, which has no tokens"
    return None
