"""Replies in OpenAI's form: one document, or the same as a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from lmppl.posterior import finite
from lmppl.screen import visible_json
from lmppl.serve.answers import Choice, about, choices, usage
from lmppl.serve.inference import Answered

if TYPE_CHECKING:
    from lmppl.serve.fields import Common
    from lmppl.serve.programs import Served

DONE = "data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """What is replied to one question. chat: in the form of /v1/chat/completions."""

    served: Served
    found: Answered
    seed: int
    likeliest: bool
    choices: Sequence[Choice]
    warnings: Sequence[str]
    chat: bool
    head: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """All of it at once."""
        return {
            **self.head,
            "choices": [self._choice(number) for number in range(len(self.choices))],
            "usage": usage(self.found),
            "lmppl": self._about(),
        }

    def stream(self, with_usage: bool) -> Iterator[str]:
        """The same as server-sent events: the text of each choice in one chunk, then its end; what
        is said beside them stands in the last chunk that has choices.
        """
        last = len(self.choices) - 1
        for number, choice in enumerate(self.choices):
            yield self._event([self._delta(number, choice.content)])
            end = {**self._delta(number, None), "finish_reason": self._finish}
            more = {"lmppl": self._about()} if number == last else {}
            yield self._event([{**end, "lmppl": choice.document()}], **more)
        if with_usage:
            yield self._event([], usage=usage(self.found))
        yield DONE

    @property
    def _finish(self) -> str:
        return "length" if self.found.cut_short else "stop"

    def _about(self) -> dict[str, Any]:
        first = self.choices[0].document()
        return {
            "reply": "likeliest" if self.likeliest else "draw",
            "probability": first["probability"],
            "mcse": first["mcse"],
            **about(self.found, self.seed, self.warnings),
        }

    def _choice(self, number: int) -> dict[str, Any]:
        choice = self.choices[number]
        text = {"text": choice.content or ""}
        if self.chat:
            text = {"message": {"role": "assistant", "content": choice.content, "refusal": None}}
        rest = {"logprobs": None, "finish_reason": self._finish, "lmppl": choice.document()}
        return {"index": number, **text, **rest}

    def _delta(self, number: int, content: str | None) -> dict[str, Any]:
        delta = {} if content is None else {"role": "assistant", "content": content}
        text = {"delta": delta} if self.chat else {"text": content or ""}
        return {"index": number, **text, "logprobs": None, "finish_reason": None}

    def _event(self, choices: Sequence[Mapping[str, Any]], **more: Any) -> str:
        kind = f"{self.head['object']}{'.chunk' if self.chat else ''}"
        document = {**self.head, "object": kind, "choices": choices, **more}
        return f"data: {visible_json(finite(document))}\n\n"


def reply(
    served: Served, found: Answered, asked: Common, seed: int, warnings: Sequence[str], chat: bool
) -> Reply:
    """What is replied to a question, as it asks for."""
    likeliest = served.likeliest if asked.reply is None else asked.reply == "likeliest"
    head = {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{token_hex(12)}",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": served.name,
    }
    picked = choices(served, found, likeliest, asked.n, seed)
    return Reply(served, found, seed, likeliest, picked, warnings, chat, head)
