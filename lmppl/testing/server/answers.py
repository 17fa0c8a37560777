"""Answers of /v1/completions, in the shapes of vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from lmppl.lm import LanguageModel, Tokens
from lmppl.testing.server.drawing import Floats, Text
from lmppl.testing.server.questions import Question
from lmppl.testing.server.traps import Traps

LOWEST = -9999.0  # what stands for −inf
Document = dict[str, Any]


def choice(
    model: LanguageModel,
    question: Question,
    prompt: Tokens,
    prompt_laws: Sequence[Floats | None] | None,
    text: Text,
    traps: Traps,
) -> Document:
    """One text of an answer, without its index. prompt_laws: None where nobody asks for them."""
    own = list(zip(text.tokens, text.log_probs, strict=True))
    if traps.hides_end and own and own[-1][0] == model.end:
        own = own[:-1]
    told: list[tuple[int, Floats | None]] = [*own]
    if question.echo:
        behind = told if question.most else []
        laws = prompt_laws or []
        unknown = [None] * (len(prompt) - len(laws))
        told = [*zip(prompt, [*unknown, *laws], strict=True), *behind]
    scored = None
    if question.prompt_logprobs is not None and not traps.unscored_prompts:
        scored = _of_prompt(model, question, prompt, prompt_laws or [])
    return {
        "text": _written(model, question, prompt, text),
        "logprobs": None if question.logprobs is None else _told(model, question, told, traps),
        "finish_reason": text.finish_reason,
        "stop_reason": text.stop_reason,
        "token_ids": [token for token, _ in own] if question.ids else None,
        "prompt_logprobs": _of_prompt(model, question, prompt, prompt_laws or [])
        if scored
        else None,
        "prompt_token_ids": list(prompt) if question.ids else None,
    }


def _written(model: LanguageModel, question: Question, prompt: Tokens, text: Text) -> str:
    tokens = text.tokens
    ended = bool(tokens) and text.finish_reason == "stop" and not isinstance(text.stop_reason, str)
    if ended and not question.keeps_stop:
        tokens = tokens[:-1]
    if not question.shows_special:
        tokens = [token for token in tokens if token != model.end]
    written = model.decode(tokens)
    if isinstance(text.stop_reason, str):
        kept = len(text.stop_reason) if question.keeps_stop else 0
        written = written[: written.index(text.stop_reason) + kept]
    if not question.echo:
        return written
    before = "" if question.ids else model.decode(prompt)
    return before + (written if question.most else "")


def _told(
    model: LanguageModel,
    question: Question,
    told: Sequence[tuple[int, Floats | None]],
    traps: Traps,
) -> Document:
    """Log probabilities of tokens, and of alternatives to them."""
    assert question.logprobs is not None
    names = [_name(model, token, question.named_by_ids) for token, _ in told]
    chosen: list[float | None] = []
    others: list[dict[str, float] | None] = []
    for token, law in told:
        if law is None:
            chosen.append(None)
            others.append(None)
            continue
        if traps.end_unscored and token == model.end:
            law = np.where(np.arange(len(law)) == token, 0.0, law)
        chosen.append(_finite(law[token]))
        asked = question.logprob_token_ids or _likeliest(law, question.logprobs)
        shown = dict.fromkeys([token, *asked])
        named = [(_name(model, one, question.named_by_ids), _finite(law[one])) for one in shown]
        others.append(dict(reversed(named)))  # the first of those with one name is what is kept
    offsets = [0, *accumulate(map(len, names))][: len(names)]
    return {
        "text_offset": offsets,
        "token_logprobs": chosen,
        "tokens": names,
        "top_logprobs": others,
    }


def _of_prompt(
    model: LanguageModel, question: Question, prompt: Tokens, laws: Sequence[Floats | None]
) -> list[Document | None]:
    """Log probabilities of a prompt's last tokens, as many as there are laws, by token id."""
    count = question.prompt_logprobs or 0
    found: list[Document | None] = []
    for token, law in zip(prompt[len(prompt) - len(laws) :], laws, strict=True):
        if law is None:
            found.append(None)
            continue
        shown = dict.fromkeys([token, *_likeliest(law, count)])
        found.append({str(one): _with_rank(model, law, one) for one in shown})
    return found


def _with_rank(model: LanguageModel, law: Floats, token: int) -> Document:
    rank = int((law >= law[token]).sum())
    (piece,) = model.pieces([token])
    return {"logprob": _finite(law[token]), "rank": rank, "decoded_token": piece}


def _likeliest(law: Floats, count: int) -> list[int]:
    """So many of the likeliest tokens; all where count is −1."""
    order = np.argsort(-law, kind="stable")
    return [int(token) for token in (order if count < 0 else order[:count])]


def _name(model: LanguageModel, token: int, by_id: bool) -> str:
    return f"token_id:{token}" if by_id else model.pieces([token])[0]


def _finite(value: float) -> float:
    return max(float(value), LOWEST)
