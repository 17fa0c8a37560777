"""/tokenize: texts and conversations as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmppl.lm import LanguageModel, TemplateProblem, Tokens
from lmppl.testing.server.questions import Refused
from lmppl.testing.server.traps import Traps


def tokenised(model: LanguageModel, body: Mapping[str, Any], traps: Traps) -> Tokens:
    """Tokens of a request's `prompt` or `messages`. Raises Refused."""
    if "messages" in body:
        text, special = _conversation(model, body, traps), bool(body.get("add_special_tokens"))
    else:
        text, special = body.get("prompt"), bool(body.get("add_special_tokens", True))
    if not isinstance(text, str):
        raise Refused("prompt: Input should be a valid string")
    if traps.strips_spaces:
        text = text.lstrip(" ")
    tokens = model.encode(text, markers=True, opening=True)
    return model.begin(tokens) if special else tokens


def _conversation(model: LanguageModel, body: Mapping[str, Any], traps: Traps) -> str:
    if model.chat is None:
        raise Refused("As of transformers v4.44, default chat template is no longer allowed")
    try:
        messages = [(one["role"], one["content"]) for one in body["messages"]]
        if traps.empty_turn:
            messages.append(("assistant", ""))
        opened = bool(body.get("add_generation_prompt", True))
        if not body.get("continue_final_message"):
            return model.chat.render(messages, opened=opened)
        if opened:
            raise Refused("Cannot set both continue_final_message and add_generation_prompt")
        written = model.chat.render(messages, opened=False)
        last = messages[-1][1]
        return written[: written.rindex(last) + len(last)]
    except (TemplateProblem, KeyError, TypeError, ValueError) as reason:
        raise Refused(f"{type(reason).__name__}: {reason}") from None
