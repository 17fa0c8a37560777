"""A GGUF file as a language model: laws of next tokens, run by llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy.special import log_softmax

from lmppl.lm.base import NOTHING, BaseDecoder, Floats, put_ends_together, require_window
from lmppl.lm.llama_cpp.context import BATCH, Context
from lmppl.lm.llama_cpp.library import Weights
from lmppl.lm.llama_cpp.sequences import Plan, Sequences
from lmppl.lm.llama_cpp.vocabulary import GgufTokenizer
from lmppl.lm.local_law import shaped
from lmppl.lm.protocol import Cost, Row, Tokens

FEWEST_CELLS = 1024  # a context begins with so many, and is made anew where that is too few
SEQUENCES = 64  # texts that are run side by side
# tokens that a model is tried with when it is loaded, at once and parted here
PROBED, PARTS = 12, (1, 4)
LIGHT = 10_000_000  # weights that a processor goes over in no time


class LlamaCppModel(BaseDecoder):
    """Implements LanguageModel. What has been run is kept, and rows go on from the longest
    beginning of theirs that is. Laws are float64, of logits that are float32.
    """

    tokenizer: GgufTokenizer

    def __init__(
        self,
        weights: Weights,
        *,
        name: str = "LM",
        identifier: str | None = None,
        revision: str = "local",
        fingerprint: Mapping[str, str] = NOTHING,
    ) -> None:
        """Raises LmpplError where no token ends a text."""
        c = weights.c
        tokenizer = GgufTokenizer(weights)
        super().__init__(
            tokenizer,
            name=name,
            identifier=identifier,
            revision=revision,
            fingerprint=fingerprint,
            window=int(c.llama_model_n_ctx_train(weights.model)),
        )
        self._weights = weights
        self._ends = list(tokenizer.ends)
        self.chat = tokenizer.chat
        self.slow = c.llama_model_n_params(weights.model) > LIGHT
        # a state that is no row of cells cannot be cut back
        self.caches = not (
            c.llama_model_is_recurrent(weights.model) or c.llama_model_is_hybrid(weights.model)
        )
        self._side_by_side = SEQUENCES if self.caches else 1
        self._sequences = Sequences(self._side_by_side)
        self._context: Context | None = None
        self._cells = 0
        self._at_a_pass = BATCH
        if not self._tells_one_law():
            self._at_a_pass = 1  # with a filler: all passes are alike
        self.forget_prompts()
        self.cost = Cost()

    def _tells_one_law(self) -> bool:
        """Whether laws are the same to the last bit in passes of several sizes: see context.py."""
        tokens = tuple(range(min(PROBED, self.window, self.vocabulary_size)))
        (whole,) = self.next_laws([(tokens, 1)])
        self.forget_prompts()
        parts = []
        for start, end in pairwise(sorted({0, *PARTS, len(tokens)})):
            parts += self.next_laws([(tokens[:end], start + 1)])
        return np.array_equal(whole, np.concatenate(parts))

    def forget_prompts(self) -> None:
        """Run everything anew."""
        self._sequences.clear()
        if self._context is not None:
            self._context.clear()

    def _laws(self, rows: Sequence[Row]) -> list[Floats]:
        """See BaseDecoder. What is run is counted, and not what is asked for."""
        require_window(self.name, max(len(tokens) for tokens, _ in rows), self.window)
        return self.next_laws(rows)

    def next_laws(self, rows: Sequence[Row]) -> list[Floats]:
        """See BaseDecoder."""
        return [self._law(logits) for logits in self.root.logits(rows)]

    def logits(self, rows: Sequence[Row]) -> list[Floats]:
        """Per row what `next_laws` is made of: numbers (len(tokens) + 1 − first, V)."""
        firsts: dict[Tokens, int] = {}
        for tokens, first in rows:
            firsts[tokens] = min(first, firsts.get(tokens, first))
        different = list(firsts.items())
        laws: dict[Tokens, Floats] = {}
        for start in range(0, len(different), self._side_by_side):
            some = different[start : start + self._side_by_side]
            for (tokens, _), law in zip(some, self._together(some), strict=True):
                laws[tokens] = law
        return [laws[tokens][first - firsts[tokens] :] for tokens, first in rows]

    def _together(self, rows: Sequence[Row]) -> list[Floats]:
        """Laws of different rows, each in a sequence of its own."""
        if not self.caches:
            self.forget_prompts()
        plan = self._sequences.plan(rows)
        if self._context is None or not self._context.has_room(len(plan.nodes)):
            self.forget_prompts()
            plan = self._sequences.plan(rows)
            if len(rows) > 1 and len(plan.nodes) > self.window:
                middle = len(rows) // 2
                return self._together(rows[:middle]) + self._together(rows[middle:])
            self._make_room(len(plan.nodes))
        try:
            return self._run(rows, plan)
        except BaseException:  # a pass was refused or broken off: it is not known what is held
            self.forget_prompts()
            raise

    def _make_room(self, needed: int) -> None:
        """An empty context where texts can grow: for four times as many tokens, and no more than
        the longest text has.
        """
        cells = max(FEWEST_CELLS, 1 << (4 * needed - 1).bit_length())
        cells = max(needed, min(cells, self.window)) + 1  # for a filler
        if cells > self._cells:
            self._context = None  # freed before the next one is made
            threads = torch.get_num_threads()
            self._context = Context(self._weights, cells, self._side_by_side, threads)
            self._cells = cells

    def _run(self, rows: Sequence[Row], plan: Plan) -> list[Floats]:
        assert self._context is not None
        self._context.settle(plan.places)
        laws: dict[int, Floats] = {}
        nodes = plan.nodes
        for start in range(0, len(nodes), self._at_a_pass):
            some = nodes[start : start + self._at_a_pass]
            self.cost.begin_pass()
            for node, logits in self._context.run(some):
                laws[id(node)] = logits.astype(np.float64)
            self.cost.tokens_scored += len(some)
        asked = []
        for (tokens, first), path in zip(rows, plan.paths, strict=True):
            told = path[first - 1 - len(tokens) :]
            asked.append(np.stack([laws[id(node)] for node in told]))
        return asked

    def _law(self, logits: Floats) -> Floats:
        """Log probabilities of logits (T, V), with all end tokens as one."""
        if self.local_law is not None:
            logits = shaped(torch.from_numpy(logits), self.local_law).numpy()
        law = log_softmax(logits, axis=-1)
        put_ends_together(law, self._ends)
        return law
