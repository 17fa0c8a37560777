"""Requests to a server as it reads them, and how it refuses what it cannot read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmppl.ir import LocalLaw
from lmppl.settings import MOST
from lmppl.testing.server.traps import Traps

NEUTRAL = {"presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1}
WRITTEN = {"stream": False, "use_beam_search": False, "suffix": None}  # what else it cannot do
MASKS = ("regex", "grammar", "json", "choice")
Grammar = tuple[str, str]  # its language, one of MASKS, and its text


class Refused(Exception):
    """A request that gets an error. status: of HTTP."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.message, self.status, self.kind = message, status, kind

    @property
    def document(self) -> dict[str, Any]:
        """The answer's body."""
        said = {"message": self.message, "type": self.kind, "param": None, "code": self.status}
        return {"error": said}


@dataclass(frozen=True)
class Question:
    """A request to /v1/completions."""

    model: str | None
    prompts: Sequence[Any]  # each a text, or a list of token ids
    law: LocalLaw | None  # None for temperature 0: the likeliest token each time
    seed: int | None
    n: int  # texts a prompt
    most: int  # tokens a text
    fewest: int  # tokens before a text may end
    logprobs: int | None  # alternatives a token; −1 for all
    prompt_logprobs: int | None
    logprob_token_ids: Sequence[int]
    logit_bias: Mapping[int, float]  # nats
    allowed: Sequence[int] | None  # tokens, None for all
    mask: Grammar | None
    stop: Sequence[str]
    stop_tokens: Sequence[int]
    keeps_stop: bool
    ignores_end: bool  # whether a text goes on behind its end token
    shows_special: bool
    echo: bool
    special: bool  # whether texts get the beginning-of-text token
    ids: bool  # whether token ids are returned
    named_by_ids: bool  # whether log p are named by token ids


def read_question(body: Mapping[str, Any], traps: Traps) -> Question:
    """What a request's fields say. Raises Refused. Fields that are unknown are passed over."""
    asked = {name: value for name, value in body.items() if name not in traps.ignored}
    for name, value in {**NEUTRAL, **WRITTEN}.items():
        if asked.get(name, value) not in (value, None):
            raise Refused(f"{name} is not supported by this server")
    read = _Reader(asked)
    most = read.whole("max_tokens", 16)
    echo = bool(asked.get("echo"))
    if most < 1 and not (echo and most == 0):
        raise Refused(f"max_tokens must be at least 1, got {most}.")
    logprobs = read.maybe("logprobs")
    scored = read.maybe("prompt_logprobs")
    return Question(
        model=asked.get("model"),
        prompts=_prompts(asked.get("prompt")),
        law=_law(read, traps),
        seed=read.maybe("seed"),
        n=read.whole("n", 1, least=1),
        most=most,
        fewest=read.whole("min_tokens", 0),
        logprobs=logprobs,
        prompt_logprobs=logprobs if scored is None and echo else scored,
        logprob_token_ids=read.wholes("logprob_token_ids"),
        logit_bias={int(k): float(v) for k, v in (asked.get("logit_bias") or {}).items()},
        allowed=read.wholes("allowed_token_ids") or None,
        mask=_mask(asked.get("structured_outputs")),
        stop=_texts(asked.get("stop")),
        stop_tokens=read.wholes("stop_token_ids"),
        keeps_stop=bool(asked.get("include_stop_str_in_output")),
        ignores_end=bool(asked.get("ignore_eos")),
        shows_special=asked.get("skip_special_tokens") is False,
        echo=echo,
        special=bool(asked.get("add_special_tokens", True)),
        ids=bool(asked.get("return_token_ids")),
        named_by_ids=bool(asked.get("return_tokens_as_token_ids")),
    )


class _Reader:
    """Fields of a request by their kinds. Raises Refused where one is of another kind."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked

    def maybe(self, name: str) -> int | None:
        value = self._asked.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise Refused(f"{name}: Input should be a valid integer")
        return value

    def whole(self, name: str, default: int, least: int = 0) -> int:
        value = self.maybe(name)
        if value is not None and value < least:
            raise Refused(f"{name} must be at least {least}, got {value}.")
        return default if value is None else value

    def wholes(self, name: str) -> Sequence[int]:
        value = self._asked.get(name) or []
        if not _is_tokens(value):
            raise Refused(f"{name}: Input should be a valid list of integers")
        return value

    def number(self, name: str, default: float, fits: Callable[[float], bool]) -> float:
        value = self._asked.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not fits(value):
            raise Refused(f"{name} is out of its range, got {value}.")
        return float(value)


def _law(read: _Reader, traps: Traps) -> LocalLaw | None:
    temperature = read.number("temperature", 1.0, lambda value: value >= 0)
    top_p = read.number("top_p", traps.default_top_p, lambda value: 0 < value <= 1)
    min_p = read.number("min_p", 0.0, lambda value: 0 <= value <= 1)
    top_k = read.maybe("top_k") or 0
    if top_k < -1:
        raise Refused(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if temperature == 0:
        return None
    if traps.forced_temperature != 1:
        temperature = traps.forced_temperature
    return LocalLaw(
        temperature=temperature,
        top_k=top_k if top_k > 0 else MOST,
        top_p=min(top_p, traps.forced_top_p),
        min_p=min_p,
    )


def _prompts(prompt: Any) -> Sequence[Any]:
    """A text, several, tokens, or several lists of these: a list of prompts."""
    if isinstance(prompt, str) or (_is_tokens(prompt) and prompt):
        return [prompt]
    several = isinstance(prompt, list) and bool(prompt)
    if not several or not all(isinstance(one, str) or _is_tokens(one) for one in prompt):
        raise Refused("Either prompt or prompt_embeds must be provided and non-empty.")
    return prompt


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in value
    )


def _texts(value: Any) -> Sequence[str]:
    texts = [value] if isinstance(value, str) else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise Refused("stop cannot contain an empty string.")
    return texts


def _mask(asked: Any) -> Grammar | None:
    """The one grammar that is asked for. Fields of other names are unknown ones."""
    known = {name: asked[name] for name in MASKS if asked.get(name) is not None} if asked else {}
    if not known:
        return None
    if len(known) > 1:
        raise Refused("You can only use one kind of structured outputs constraint")
    ((name, value),) = known.items()
    return name, value if isinstance(value, str) else json.dumps(value)
