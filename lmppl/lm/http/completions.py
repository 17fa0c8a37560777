"""What a completions route is asked, and what its answers hold. Token ids go in and come out.

Everything that changes the law of a token is sent with every request: what is left out, a server
takes from its model's files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl.lm.protocol import Drawn, Tokens
from lmppl.shapes import Document

ROUTE = "/completions"
IMPOSSIBLE = -9998.0  # nats: servers write −9999 for a log probability of minus infinity
NUMBERED = "token_id:"  # how tokens are named that are asked for by number
PLAIN: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "min_tokens": 0,
    "n": 1,
    "watermarking": False,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "logprobs": 0,
}


class OddAnswer(ValueError):
    """An answer is not what was asked for."""


@dataclass(frozen=True)
class Asked:
    """One request. tokens: most that the server works on for it, the prompt's and its own."""

    body: Mapping[str, Any]
    tokens: int


@dataclass(frozen=True)
class Scored:
    """Tokens whose log probabilities are asked for, from one of them on."""

    tokens: Tokens  # with the prompt
    first: int  # ≥ 1
    closed: bool = False  # whether the end behind them is asked about as well


# --- drawing --------------------------------------------------------------------------------------


def to_draw(
    model: str, tokens: Tokens, seed: int, maximum: int, until: str | None, ends: Tokens
) -> Asked:
    """A text of at most so many tokens. It is over at one of these ends, or once it holds
    `until`; ends that the server knows of otherwise do not count.
    """
    body = {
        **PLAIN,
        **_summed(ends),
        "model": model,
        "prompt": list(tokens),
        "max_tokens": maximum,
        "seed": seed,
        "ignore_eos": True,
        "stop_token_ids": list(ends),
        "include_stop_str_in_output": True,
    }
    if until is not None:
        body["stop"] = [until]
    return Asked(body, len(tokens) + maximum)


def _summed(ends: Tokens) -> dict[str, Any]:
    """What makes a server tell of several ends at every token."""
    return {"logprob_token_ids": list(ends)} if len(ends) > 1 else {}


def drawn(answer: Document, maximum: int, ends: Tokens) -> Drawn:
    """The text of an answer, in which the first of the ends stands for all of them. Raises
    OddAnswer.
    """
    choice = _choice(answer)
    tokens = tuple(_token(token) for token in _list(choice, "token_ids"))
    told = _object(choice, "logprobs")
    scores = [_nats(score) for score in _list(told, "token_logprobs")]
    names = _list(told, "tokens")
    if not 1 <= len(tokens) <= maximum or len(scores) != len(tokens) or len(names) != len(tokens):
        raise OddAnswer(
            f"{len(tokens)} tokens, {len(scores)} log probabilities, {maximum} asked for"
        )
    for token, name in zip(tokens, names, strict=True):
        if name != f"{NUMBERED}{token}":
            raise OddAnswer(f"the log probability of {name!r} where {token} was drawn")
    if len(tokens) < maximum and not _shows_why(choice, tokens[-1], ends):
        raise OddAnswer("a text is over, and its last token is not what has ended it")
    if tokens[-1] in ends and len(ends) > 1:
        scores[-1] = _summed_ends(told, len(tokens) - 1, ends)
        tokens = (*tokens[:-1], ends[0])
    return Drawn(tokens, np.array(scores, dtype=np.float64))


def _shows_why(choice: Mapping[str, Any], last: int, ends: Tokens) -> bool:
    """Whether a text that is over early is whole: no end token of it is kept back."""
    reason = choice.get("stop_reason")
    if choice.get("finish_reason") == "length" or last in ends:
        return True
    return isinstance(reason, str) or (isinstance(reason, int) and reason == last)


# --- scoring --------------------------------------------------------------------------------------


def to_score(model: str, one: Scored, ends: Tokens) -> Asked:
    """Log probabilities of tokens that are there. A server draws a token behind them."""
    own = _summed(ends) if one.closed else {}
    if one.closed and not own:
        own = {"logprob_token_ids": list(ends)}
    body = {
        **PLAIN,
        **own,
        "model": model,
        "prompt": list(one.tokens),
        "max_tokens": 1,
        "seed": 0,
        "ignore_eos": True,
        "prompt_logprobs": 0,
    }
    return Asked(body, len(one.tokens) + 1)


def scored(answer: Document, one: Scored, ends: Tokens) -> tuple[NDArray[np.float64], float]:
    """Log probabilities (len(tokens) − first,), and that of an end behind them, NaN where nobody
    asked. Raises OddAnswer.
    """
    choice = _choice(answer)
    places = _list(choice, "prompt_logprobs")
    if len(places) != len(one.tokens):
        raise OddAnswer(f"{len(places)} log probabilities of {len(one.tokens)} tokens")
    found = np.empty(len(one.tokens) - one.first)
    for place in range(one.first, len(one.tokens)):
        law, token = places[place], str(one.tokens[place])
        if not isinstance(law, Mapping) or not isinstance(law.get(token), Mapping):
            raise OddAnswer(f"no log probability of token {token} at place {place}")
        found[place - one.first] = _nats(law[token].get("logprob"))
    closing = _summed_ends(_object(choice, "logprobs"), 0, ends) if one.closed else math.nan
    return found, closing


# --- reading --------------------------------------------------------------------------------------


def _choice(answer: Document) -> Mapping[str, Any]:
    choices = _list(answer, "choices")
    if len(choices) != 1 or not isinstance(choices[0], Mapping):
        raise OddAnswer("there is not one choice")
    return choices[0]


def _list(value: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = value.get(name)
    if not isinstance(found, list):
        raise OddAnswer(f"there are no {name}")
    return found


def _object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    if not isinstance(found, Mapping):
        raise OddAnswer(f"there are no {name}")
    return found


def _token(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OddAnswer(f"{value!r} is no token")
    return value


def _nats(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= 1e-3:
        raise OddAnswer(f"{value!r} is no log probability")
    return -math.inf if value <= IMPOSSIBLE else min(float(value), 0.0)


def _summed_ends(told: Mapping[str, Any], place: int, ends: Tokens) -> float:
    """log P(an end) at a place, of all ends together."""
    laws = _list(told, "top_logprobs")
    law = laws[place] if place < len(laws) else None
    if not isinstance(law, Mapping):
        raise OddAnswer("there are no top_logprobs")
    names = [f"{NUMBERED}{end}" for end in ends]
    if missing := [name for name in names if name not in law]:
        raise OddAnswer(f"no log probability of {missing[0]}, which was asked for by number")
    return float(np.logaddexp.reduce([_nats(law[name]) for name in names]))
