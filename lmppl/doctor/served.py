"""Checks of a server by itself: what it says of draws under a temperature and a mask, how it writes
conversations; and of adapters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from lmppl.doctor.check import Check
from lmppl.doctor.found import Amiss, CannotTell, Measured
from lmppl.doctor.levels import LEAST_MOVE, NATS, SHARE, SHARE_HELPS, SUM, Levels
from lmppl.doctor.patient import QUESTION, SEED, Patient, rms
from lmppl.lm import TemplateProblem
from lmppl.shapes import Document

COMPLETIONS, TOKENIZE = "/v1/completions", "/tokenize"
NUMBERED = "token_id:"  # how tokens are named that are asked for by number
TEMPERATURE = 0.5
ROWS = 12  # draws
MOST = 20  # alternatives that servers tell of without a flag
OPTIONS = 4  # texts that a mask allows


@dataclass(frozen=True)
class Choice:
    """A token that was drawn, as a server tells of it. law: log p of likely tokens."""

    token: int
    log_prob: float
    law: Mapping[int, float]


@runtime_checkable
class Server(Protocol):
    """A model that is behind a server, which can be asked whatever it understands."""

    @property
    def served_name(self) -> str:
        """What requests call the model."""
        ...

    def ask(self, route: str, body: Mapping[str, Any]) -> Document:
        """The answer to a request. Raises LmpplError."""
        ...


def _server(patient: Patient) -> Server:
    if not isinstance(patient.model, Server):
        raise CannotTell("the model runs here, not behind a server")
    return patient.model


def _draw(patient: Patient, **asked: Any) -> list[Choice]:
    """Choices of requests for a token each, a seed a request."""
    server = _server(patient)
    body = {
        "model": server.served_name, "prompt": list(patient.prompt), "max_tokens": 1,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "logprobs": 0,
        "return_token_ids": True, "return_tokens_as_token_ids": True, **asked,
    }  # fmt: skip
    seeds = range(SEED, SEED + ROWS)
    return [_read(server.ask(COMPLETIONS, {**body, "seed": seed})) for seed in seeds]


def _read(answer: Any) -> Choice:
    """What an answer says of its first token. Raises Amiss."""
    try:
        choice = answer["choices"][0]
        told = choice["logprobs"]
        law = told["top_logprobs"][0] or {}
        numbered = {int(name.removeprefix(NUMBERED)): float(law[name]) for name in law}
        return Choice(int(choice["token_ids"][0]), float(told["token_logprobs"][0]), numbered)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as reason:
        name = type(reason).__name__
        raise Amiss(f"an answer lacks a token with its log p ({name}: {reason})") from None


def _raw_or_processed(patient: Patient) -> Measured:
    """Log p of draws at temperature .5: those of the model, or those of what they are drawn from,
    which part from twice the model's by one number for all tokens.
    """
    choices = _draw(patient, temperature=TEMPERATURE)
    tokens = [one.token for one in choices]
    scores = np.concatenate(patient.score([(token,) for token in tokens]))
    numbers = np.array([one.log_prob for one in choices])
    raw = rms([(numbers, scores)])
    rest = numbers - scores / TEMPERATURE
    processed = float(np.std(rest)) if len({*tokens}) > 1 else math.inf
    if raw <= processed:
        said = f"raw: draws at temperature {TEMPERATURE} have the model's own log p"
        return Measured(raw, "nats rms", said, NATS)
    said = f"processed: draws at temperature {TEMPERATURE} have the log p of that law"
    return Measured(processed, "nats rms", said, NATS)


# --- masks ----------------------------------------------------------------------------------------


def _options(patient: Patient) -> list[str]:
    """Texts of a token each that a mask can allow, the likeliest first left out."""
    model, counts = patient.model, patient.singles
    texts = []
    for token, _ in counts.most_common():
        text = model.decode([token]) if token != model.end else ""
        if text and text.isascii() and text.isprintable():
            texts.append(text)
    if len(texts) < 2:
        raise CannotTell("fewer than two tokens can be written as options")
    return texts[1 : 1 + OPTIONS]


def _mask_obeyed(patient: Patient) -> Measured:
    _server(patient)
    options = _options(patient)
    asked = {"structured_outputs": {"choice": options}}
    choices = _draw(patient, **asked)
    strays = [one for one in choices if not _begins(patient, one, options)]
    said = f"{ROWS - len(strays)} of {ROWS} draws obey a mask of {len(options)} options"
    return Measured(len(strays) / ROWS, "share", said, SHARE_HELPS)


def _begins(patient: Patient, choice: Choice, options: Sequence[str]) -> bool:
    text = patient.model.decode([choice.token])
    return any(option.startswith(text) for option in options)


def _mask_told(patient: Patient) -> Measured:
    """Under a mask that few tokens pass, those that pass have probability 1 in all."""
    _server(patient)
    options = _options(patient)
    asked = {"structured_outputs": {"choice": options}, "logprobs": MOST}
    choices = _draw(patient, **asked)
    if not all(_begins(patient, one, options) for one in choices):
        raise CannotTell("the server does not obey masks")
    passing = 0.0
    for token, value in choices[0].law.items():
        text = patient.model.decode([token])
        if any(option.startswith(text) for option in options):
            passing += math.exp(value)
    said = f"tokens that pass a mask have {passing:.4f} of 1 under it ({json.dumps(options)})"
    return Measured(abs(passing - 1), "of 1", said, SUM)


# --- conversations and adapters -------------------------------------------------------------------


def _template(patient: Patient) -> Measured:
    server, model = _server(patient), patient.model
    if model.chat is None:
        raise CannotTell("the model comes without a chat template")
    messages = [{"role": "user", "content": QUESTION}]
    body = {"model": server.served_name, "messages": messages, "add_generation_prompt": True}
    found = server.ask(TOKENIZE, body).get("tokens")
    try:
        text = model.chat.render([("user", QUESTION)], opened=True)
    except TemplateProblem as problem:
        raise CannotTell(f"the template refuses a question: {problem}") from None
    own = [*model.encode_template(text, opening=True)]
    apart = float(found != own)
    size = len(found) if isinstance(found, list) else 0
    said = f"a question has {size} tokens by the server's template, {len(own)} by the one here"
    return Measured(apart, "differs", said, SHARE)


def _adapted(patient: Patient) -> Measured:
    if patient.base is None:
        raise CannotTell("no adapter was named: see --adapter")
    texts = patient.texts
    plain = patient.base.score(patient.prompt, texts, [0] * len(texts))
    moved = rms(list(zip(patient.score(texts), plain, strict=True)))
    said = f"the adapter moves log p by {moved:.2g} nats"
    still = Levels(moved, moved) if moved > LEAST_MOVE else Levels(-1, -1)
    return Measured(moved, "nats rms", said, still)


def _answers(patient: Patient) -> Measured:
    said = f"`{patient.model.identifier:.60}` was loaded"
    if isinstance(patient.model, Server):
        said += ", drew two texts and scored them"
    return Measured(0, "share", said, SHARE)


ANSWERS = Check(
    "answers", "does it answer as it should when it is asked first?", _answers,
    "Nothing can be inferred with it.",
    "docs/served-models.md says what is asked of a server, and how to start one.",
)  # fmt: skip
CHECKS = (
    Check(
        "raw or processed", "which law are the log p of draws of, at another temperature?",
        _raw_or_processed,
        "Log p of draws are of neither law: at another temperature than 1, weights cannot be made.",
        "Draw at temperature 1, and take log p from scores.",
    ),
    Check(
        "mask obeyed", "are structured outputs obeyed?", _mask_obeyed,
        "Constraints are met by luck alone: many draws are thrown away.",
        "See which field the server knows; vLLM 0.32 knows structured_outputs and ignores others.",
    ),
    Check(
        "mask told", "do draws under a mask have the log p that they have under it?", _mask_told,
        "Weights of guided draws lack what the mask takes away.",
        "Take log q from a server that tells log p after the mask, as vLLM does.",
    ),
    Check(
        "server's template", "does the server write a conversation as the model's own template?",
        _template,
        "What the server is told by messages is another text than the program's.",
        "Send token ids, or give both the same template.",
    ),
    Check(
        "adapter active", "does the adapter change the model?", _adapted,
        "The base model answers under the adapter's name: what was trained has no effect.",
        "Load the adapter again under a new name, and give the server room for it (--max-loras).",
    ),
)  # fmt: skip
