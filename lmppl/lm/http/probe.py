"""What a server has, and what it does: found out when it is asked for the first time, by what comes
back and not by what it says of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmppl.errors import LmpplError
from lmppl.findings import servers as findings
from lmppl.lm.http.address import Address
from lmppl.lm.http.completions import (
    ROUTE,
    OddAnswer,
    Scored,
    drawn,
    scored,
    to_draw,
    to_score,
)
from lmppl.lm.http.wire import Wire
from lmppl.lm.protocol import Drawn, Tokens, nothing
from lmppl.shapes import Document

LENGTH = 4  # tokens that a probe draws
SEEDS = (1, 2)
APART = 0.5  # nats by which a token's score may part from what it was drawn with: bfloat16 has 0.3
CHANGED = 1e-2  # nats by which a model's scores may part from those before it was started again
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Served:
    """A model that a server has."""

    name: str  # that requests call it by
    places: tuple[str, ...]  # where its files are, as far as the server tells; else the name
    window: int | None  # tokens; None where the server does not say
    version: str  # of the server


# --- what it has ----------------------------------------------------------------------------------


def find_served(wire: Wire, address: Address, adapter: str | None) -> Served:
    """The model of an address, or the adapter of this name. Raises LmpplError, and Lost."""
    models = _models(wire.base, wire.ask(f"{wire.base}/models"))
    name = adapter or address.model
    if name is None:
        own = [model for model in models.values() if not model.get("parent")]
        if len(own) != 1:
            raise LmpplError(findings.which_model(wire.base, [*models]))
        name = str(own[0]["id"])
    if name not in models:
        raise LmpplError(findings.not_served(name, [*models]))
    return replace(_served(name, models), version=_version(wire, address))


def _models(base: str, document: Document) -> dict[str, Mapping[str, Any]]:
    listed = document.get("data")
    found = {}
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, Mapping) and isinstance(one.get("id"), str):
            found[one["id"]] = one
    if not found:
        raise LmpplError(findings.odd_answer(base, "it lists no models"))
    return found


def _served(name: str, models: Mapping[str, Mapping[str, Any]]) -> Served:
    places, own = [], models[name]
    base = models.get(str(own.get("parent")), own)  # an adapter's files have no tokenizer
    for one in (base.get("root"), base["id"], name):
        if isinstance(one, str) and one and one not in places:
            places.append(one)
    window = base.get("max_model_len")
    known = isinstance(window, int) and window > 1
    return Served(name, tuple(places), window if known else None, UNKNOWN)


def _version(wire: Wire, address: Address) -> str:
    try:
        return str(wire.ask(f"{address.origin}/version").get("version", UNKNOWN))[:40]
    except LmpplError:  # a route of vLLM's
        return UNKNOWN


# --- what it does ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """Texts that a server drew when it was asked first, by which it is known again."""

    served: Served
    rows: tuple[Scored, ...]
    log_probs: tuple[np.ndarray, ...]

    async def recognise(self, wire: Wire) -> None:
        """See that a server which was silent is the same. Raises LmpplError where it is not."""
        models = _models(wire.base, await wire.once("GET", f"{wire.base}/models"))
        name = self.served.name
        if name not in models:
            raise LmpplError(findings.other_model(wire.base, f"it has no `{name:.100}` any more"))
        if replace(_served(name, models), version=self.served.version) != self.served:
            raise LmpplError(findings.other_model(wire.base, f"`{name:.100}` has other files"))
        for one, before in zip(self.rows, self.log_probs, strict=True):
            body = to_score(name, one, ()).body
            answer = await wire.once("POST", f"{wire.base}{ROUTE}", body)
            now = _read_score(wire, answer, one)
            apart = float(np.abs(now - before).max())
            if not apart <= CHANGED:
                problem = f"log probabilities of its tokens part by {apart:.3g} nats"
                raise LmpplError(findings.other_model(wire.base, problem))


def try_out(wire: Wire, served: Served, prompts: tuple[Tokens, Tokens], ends: Tokens) -> Trial:
    """Draw two texts behind prompts of different lengths, and score what was drawn. Raises
    LmpplError where weights cannot be made of the answers.
    """
    asked = [
        to_draw(served.name, prompt, seed, LENGTH, None, ends)
        for prompt, seed in zip(prompts, SEEDS, strict=True)
    ]
    answers = wire.post_all(ROUTE, asked, nothing)
    texts = [_read_draw(wire, answer, ends) for answer in answers]
    rows = [
        Scored((*prompt, *text.tokens), len(prompt))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    asked = [to_score(served.name, one, ends) for one in rows]
    found = []
    for one, answer in zip(rows, wire.post_all(ROUTE, asked, nothing), strict=True):
        found.append(_read_score(wire, answer, one))
    for text, own in zip(texts, found, strict=True):
        _require_alike(wire, text, own, ends)
    return Trial(served, tuple(rows), tuple(found))


def _read_draw(wire: Wire, answer: Document, ends: Tokens) -> Drawn:
    try:
        return drawn(answer, LENGTH, ends)
    except OddAnswer as problem:
        if len(ends) > 1 and "by number" in str(problem):
            raise LmpplError(findings.several_ends(wire.base)) from None
        lacking = f"drawn tokens with their log probabilities ({problem})"
        raise LmpplError(findings.cannot_score(wire.base, lacking)) from None


def _read_score(wire: Wire, answer: Document, one: Scored) -> np.ndarray:
    try:
        return scored(answer, one, ())[0]
    except OddAnswer as problem:
        lacking = f"log probabilities of given tokens ({problem})"
        raise LmpplError(findings.cannot_score(wire.base, lacking)) from None


def _require_alike(wire: Wire, text: Drawn, own: np.ndarray, ends: Tokens) -> None:
    """Raise LmpplError where tokens were drawn by another law than they are scored by."""
    count = len(own) - (len(ends) > 1 and text.tokens[-1] in ends)  # a sum of ends is more
    apart = np.abs(text.log_probs[:count] - own[:count])
    if not (apart <= APART).all():
        worst = int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))
        said = float(text.log_probs[worst]), float(own[worst])
        raise LmpplError(findings.scores_apart(wire.base, *said))
