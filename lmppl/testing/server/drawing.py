"""Texts that a server draws, and the log probabilities that it tells of them and of prompts."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.decoding import Masks
from lmppl.expressions import HEADER, Atom
from lmppl.lm import Decoder, LanguageModel, Tokens, shaped
from lmppl.testing.server.questions import Grammar, Question, Refused
from lmppl.testing.server.traps import Traps

Floats = NDArray[np.float64]
MOST_TOKENS = 2**20  # of a text under a mask: a server knows nothing of what is left
DIRECTIVE = "%llguidance"


@dataclass(frozen=True)
class Place:
    """Where a row is among those that a server works on at the same time."""

    neighbours: int
    index: int


@dataclass
class Text:
    """A text that is drawn. log_probs[t]: (V,) of the law that its token t is told to be from."""

    tokens: list[int] = field(default_factory=list)
    log_probs: list[Floats] = field(default_factory=list)
    stop_reason: str | int | None = None
    finish_reason: str = "length"


def draw(
    model: LanguageModel, prompt: Tokens, question: Question, places: Sequence[Place], traps: Traps
) -> list[Text]:
    """A text a place, behind a prompt. Raises Refused."""
    drawing = _Drawing(model, question, places, traps)
    stream = model.stream(prompt, [()] * len(places))
    growing = np.arange(len(places))
    for step in range(min(max(question.most, 1), model.window - len(prompt))):
        laws = stream.log_probs().double().cpu()
        tokens = np.array(
            [drawing.step(row, step, laws[i]) for i, row in enumerate(growing.tolist())]
        )
        kept = np.array([not drawing.is_over(row) for row in growing.tolist()])
        if not kept.any() or len(prompt) + step + 1 >= model.window:
            break
        stream.keep(np.flatnonzero(kept))
        stream.push(tokens[kept])
        growing = growing[kept]
    return drawing.texts


class _Drawing:
    """Rows of one prompt that grow token by token."""

    def __init__(
        self, model: LanguageModel, question: Question, places: Sequence[Place], traps: Traps
    ) -> None:
        self._model, self._question, self._places, self._traps = model, question, places, traps
        self.texts = [Text() for _ in places]
        self._random = [_random(question.seed, i, places[i], traps) for i in range(len(places))]
        masks = None if question.mask is None else _masks(model, question.mask)
        self._masks = [] if masks is None else [masks.start([()]) for _ in places]

    def step(self, row: int, step: int, law: torch.Tensor) -> int:
        """Draw one token more of a row, from a law of the model. (V,) log probabilities"""
        question, traps = self._question, self._traps
        plain = law
        if self._masks:
            law = self._masked(law, self._masks[row].allowed()[0])
        chosen_from = self._as_asked(law, step)
        if question.law is None:
            told, token = law, int(chosen_from.argmax())
        else:
            chosen_from = torch.log_softmax(shaped(chosen_from, question.law), -1)
            told = chosen_from if traps.processed_logprobs else law
            token = _drawn(chosen_from.numpy(), self._random[row], traps.never_below)
        if traps.mask_unscored:
            told = plain
        if self._masks:
            self._masks[row].feed(0, (token,))
        text = self.texts[row]
        text.tokens.append(token)
        noise = traps.decoding_noise, traps.batch_noise
        text.log_probs.append(_disturbed(told.numpy(), step, self._places[row], noise, traps))
        return token

    def _masked(self, law: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
        """A law over the tokens that a mask allows; where none of them is possible, a text ends."""
        kept = law.masked_fill(~allowed, -torch.inf)
        if torch.isneginf(kept).all():
            kept[self._model.end] = 0
        return torch.log_softmax(kept, -1)

    def _as_asked(self, law: torch.Tensor, step: int) -> torch.Tensor:
        """A law with what a request adds to it and takes from it."""
        question, law = self._question, law.clone()
        for token, bias in question.logit_bias.items():
            law[token] += bias
        if question.allowed is not None:
            kept = torch.zeros(len(law), dtype=torch.bool)
            kept[list(question.allowed)] = True
            law[~kept] = -torch.inf
        if step < question.fewest:
            law[[self._model.end, *question.stop_tokens]] = -torch.inf
        return law

    def is_over(self, row: int) -> bool:
        """Whether a row has ended with its last token; why, its text says then."""
        text, question = self.texts[row], self._question
        token = text.tokens[-1]
        is_end = token == self._model.end and not question.ignores_end
        if is_end or token in question.stop_tokens:
            text.finish_reason = "stop"
            text.stop_reason = None if is_end else token
            return True
        if question.stop:
            written = self._model.decode(text.tokens)
            found = [stop for stop in question.stop if stop in written]
            if found:
                text.finish_reason, text.stop_reason = "stop", min(found, key=written.index)
        return text.finish_reason == "stop"


def prompt_laws(model: Decoder, prompt: Tokens, place: Place, traps: Traps) -> list[Floats | None]:
    """Per token of a prompt, (V,) log probabilities that it is told to be from; None for the
    first, and where a trap has it so.
    """
    told: list[Floats | None] = [None]
    if len(prompt) > 1:
        laws = model.laws(prompt[:1], [prompt[1:]], [0])[0].double().cpu().numpy()
        told += [
            _disturbed(law, t, place, (0, traps.batch_noise), traps) for t, law in enumerate(laws)
        ]
    return told


def _disturbed(
    law: Floats, position: int, place: Place, noise: tuple[float, float], traps: Traps
) -> Floats:
    """Log probabilities as the server tells them. noise: of each token by itself, and of a row
    with neighbours; nats, standard deviations.
    """
    always, beside = noise
    law = law + traps.offset
    if always:
        law = law + _noise(always, "decoding", position, len(law))
    if beside and place.neighbours:
        law = law + _noise(beside, repr(place), position, len(law))
    return law


def _noise(size: float, key: str, position: int, count: int) -> Floats:
    rng = np.random.default_rng(zlib.crc32(f"{key} {position}".encode()))
    return rng.normal(0, size, count)


def _random(seed: int | None, row: int, place: Place, traps: Traps) -> np.random.Generator:
    """Row i of a request is what the seed behind it by i draws alone."""
    if seed is None or traps.seeds_ignored:
        return np.random.default_rng()
    moved = place.neighbours if traps.seeds_moved else 0
    return np.random.default_rng((abs(seed + row), moved) if moved else abs(seed + row))


def _drawn(law: Floats, random: np.random.Generator, least: float) -> int:
    """A token by inverting the distribution function."""
    probabilities = np.exp(law)
    if least and (kept := probabilities >= least).any():
        probabilities = np.where(kept, probabilities, 0)
    cumulative = probabilities.cumsum()
    return int((cumulative <= random.random() * cumulative[-1]).sum())


# --- masks ----------------------------------------------------------------------------------------


def _masks(model: LanguageModel, grammar: Grammar) -> Masks:
    """Masks that follow a grammar of a request. Raises Refused."""
    from llguidance import LLMatcher

    if model.token_bytes is None:
        raise Refused("structured outputs need a tokenizer whose tokens are bytes")
    language, text = grammar
    try:
        made = _GRAMMARS[language](text)
    except (ValueError, TypeError) as reason:
        raise Refused(f"Failed to parse the {language}: {reason}") from None
    if not made.startswith(DIRECTIVE):
        made = HEADER + made  # no token is forced: that would ask for a tokenizer of texts
    if problem := LLMatcher.validate_grammar(made):
        raise Refused(f"Grammar error: {problem}")
    return Masks(Atom(made), model, MOST_TOKENS)


def _pattern(text: str) -> str:
    from llguidance import LLMatcher

    return json.loads(LLMatcher.grammar_from_regex(text))["grammars"][0]["lark_grammar"]


_GRAMMARS = {
    "regex": _pattern,
    "grammar": str,
    "json": lambda text: f"start: %json {json.dumps(json.loads(text))}",
    "choice": lambda text: "start: " + " | ".join(map(json.dumps, json.loads(text))),
}
