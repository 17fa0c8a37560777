"""A model with what checks look at: a prompt, texts that it draws, and many single tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmppl.doctor.found import Amiss, CannotTell
from lmppl.errors import LmpplError
from lmppl.lm import Capability, Drawn, LanguageModel, TemplateProblem, Tokens

Floats = NDArray[np.float64]
PROMPT = "The weather in the north of the island is"
QUESTION = "Answer with one word. What is the capital of France?"
SEED = 20_000
AT_ONCE = 64  # rows


@dataclass(frozen=True)
class Sizes:
    """How much is drawn."""

    texts: int = 12
    tokens: int = 16  # a text
    singles: int = 512  # draws of one token
    prefix: int = 300  # tokens of a long prompt: more than a block of any prefix cache
    window: int = 4096  # longest window that is filled


THOROUGH = Sizes(texts=32, tokens=32, singles=4096, prefix=1000, window=2**17)


class Patient:
    """One model that is looked at. Draws are made when they are asked for first, and kept."""

    def __init__(self, model: LanguageModel, sizes: Sizes, base: LanguageModel | None) -> None:
        """base: the same model without its adapter; None where it has none."""
        self.model, self.sizes, self.base = model, sizes, base

    def able(self, capability: Capability) -> bool:
        """Whether the model says that it can do this."""
        return capability in self.model.capabilities

    # --- prompts ----------------------------------------------------------------------------------

    @cached_property
    def prompt_text(self) -> str:
        """A sentence that is begun, or what a model with few words draws by itself."""
        if self._spells(PROMPT):
            return PROMPT
        begun = self.model.begin(())
        for seed in range(SEED, SEED + 20) if self.able(Capability.DRAWS) else ():
            (drawn,) = self.model.sample(begun, [()], [seed], 2)
            text = self.model.decode([t for t in drawn.tokens if t != self.model.end])
            if text and self._spells(text):
                return text
        return ""

    @cached_property
    def prompt(self) -> Tokens:
        """Its tokens, at least one."""
        return self._begun(self.prompt_text)

    @cached_property
    def turn(self) -> Tokens:
        """A prompt behind which texts are short: a question to a model that talks, if it does."""
        chat = self.model.chat
        if chat is None:
            return self.prompt
        try:
            text = chat.render([("user", QUESTION)], opened=True)
            return self.model.begin(self.model.encode_template(text, opening=True))
        except (TemplateProblem, LmpplError):
            return self.prompt

    def _begun(self, text: str) -> Tokens:
        return self.model.begin(self.model.encode(text, markers=False, opening=True))

    def _spells(self, text: str) -> bool:
        """Whether a text comes back from its tokens, but for a space in front."""
        try:
            tokens = self.model.encode(text, markers=False, opening=True)
        except LmpplError:
            return False
        return self.model.decode(tokens).strip() == text.strip()

    # --- texts ------------------------------------------------------------------------------------

    def draw(
        self, prompt: Tokens, seeds: Sequence[int], maximum: int, at_once: int = AT_ONCE
    ) -> list[Drawn]:
        """A text a seed, behind a prompt. Raises CannotTell where the model draws none."""
        if not self.able(Capability.DRAWS):
            raise CannotTell("the model draws nothing by itself")
        found: list[Drawn] = []
        for start in range(0, len(seeds), at_once):
            own = seeds[start : start + at_once]
            found += self.model.sample(prompt, [()] * len(own), own, maximum)
        return found

    @cached_property
    def drawn(self) -> list[Drawn]:
        """Texts behind the prompt."""
        seeds = range(SEED, SEED + self.sizes.texts)
        return self.draw(self.prompt, seeds, self.sizes.tokens)

    @cached_property
    def answers(self) -> list[Drawn]:
        """Texts behind the turn."""
        seeds = range(SEED, SEED + self.sizes.texts)
        return self.draw(self.turn, seeds, self.sizes.tokens)

    def has_ended(self, one: Drawn) -> bool:
        """Whether a text has its end token."""
        return one.tokens[-1:] == (self.model.end,)

    @cached_property
    def texts(self) -> list[Tokens]:
        """Texts of different lengths, without their ends: drawn, or of any tokens."""
        if self.able(Capability.DRAWS):
            whole = [one.tokens for one in self.drawn]
        else:
            rng = np.random.default_rng(SEED)
            shape = self.sizes.texts, self.sizes.tokens
            numbers = rng.integers(self.model.vocabulary_size, size=shape)
            whole = [tuple(map(int, row)) for row in numbers]
        end = self.model.end
        spoken = [text[: text.index(end)] if end in text else text for text in whole]
        found = [text[: max(1, len(text) - i % 5)] for i, text in enumerate(spoken)]
        kept = [text for text in dict.fromkeys(found) if text]
        if len(kept) < 2:
            raise CannotTell("the model draws too few texts that can be told apart")
        return kept

    def score(self, texts: Sequence[Tokens], prompt: Tokens | None = None) -> list[Floats]:
        """Log p of every token of texts behind the prompt, or another one; seen to be whole."""
        where = self.prompt if prompt is None else prompt
        found = self.model.score(where, texts, [0] * len(texts))
        for text, own in zip(texts, found, strict=True):
            if len(own) != len(text):
                raise Amiss(f"{len(own)} log probabilities of {len(text)} tokens")
        return found

    # --- single tokens ----------------------------------------------------------------------------

    @cached_property
    def singles(self) -> Counter[int]:
        """How often each token was drawn behind the prompt."""
        seeds = range(2 * SEED, 2 * SEED + self.sizes.singles)
        drawn = self.draw(self.prompt, seeds, 1)
        return Counter(one.tokens[0] if one.tokens else self.model.end for one in drawn)

    @cached_property
    def probabilities(self) -> dict[int, float]:
        """Of each of these tokens by its score; of all tokens where they are few."""
        asked = [*self.singles]
        if self.model.vocabulary_size <= len(self.singles) + AT_ONCE:
            asked = list(range(self.model.vocabulary_size))
        scores = self.score([(token,) for token in asked])
        return {t: float(np.exp(own[0])) for t, own in zip(asked, scores, strict=True)}


def rms(pairs: Sequence[tuple[Floats, Floats]]) -> float:
    """Root mean square of differences, nats; tokens that are impossible by both are alike."""
    apart = [_apart(one, other) for one, other in pairs]
    whole = np.concatenate(apart) if apart else np.zeros(0)
    return float(np.sqrt(np.mean(whole**2))) if len(whole) else 0.0


def _apart(one: Floats, other: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.where((one == other) & ~np.isnan(one), 0.0, one - other)
