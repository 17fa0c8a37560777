"""A context of llama.cpp: sequences of keys and values, and passes over a batch of tokens.

Where weights are quantised, llama.cpp rounds what it multiplies them with to 8 bits. A last bit
that comes out another way can turn a rounding over, and then log probabilities differ by tenths of
a nat. So the law after a text has to be the same to the last bit, whatever is run beside it: scores
and draws would be of different laws otherwise. Three things see to it. Attention goes over the
cells of a text one by one (flash attention in passes of less than 64 tokens), and these always
stand in the text's order, since no cell is used twice. A pass has never one token alone, nor one
law, for which llama.cpp has kernels of its own. Weights are left as the file lays them out, and a
kernel for long passes is off (library.py). Where all this is not enough, as a trial at loading
tells, tokens are run one by one (model.py).
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lmppl.errors import LmpplError
from lmppl.findings import models as findings
from lmppl.lm.llama_cpp.library import Weights
from lmppl.lm.llama_cpp.sequences import Node, Place

BATCH = 62  # tokens of one pass: with a filler, fewer than the 64 of another kernel
FLASH_ATTENTION = 1  # LLAMA_FLASH_ATTN_TYPE_ENABLED


class Context:
    """Room for so many cells, empty at first. Freed with this object.

    Beside the sequences of texts it has two of its own: one that holds every cell that no text
    needs any more, and one of tokens that fill up passes.
    """

    def __init__(self, weights: Weights, cells: int, sequences: int, threads: int) -> None:
        """Raises LmpplError where there is no memory for it."""
        c = self._c = weights.c
        self._weights = weights  # which are not to be freed before
        self._library = weights.library
        parameters = c.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_seq_max = sequences + 2
        parameters.n_batch = parameters.n_seq_max + BATCH  # never fewer than there are sequences
        parameters.n_ubatch = BATCH
        self._dropped, self._filler = sequences, sequences + 1
        parameters.kv_unified = True  # sequences share cells
        parameters.swa_full = True  # and can be cut anywhere
        parameters.flash_attn_type = FLASH_ATTENTION
        parameters.n_threads = parameters.n_threads_batch = threads
        self._library.forget_errors()
        context = c.llama_init_from_model(weights.model, parameters)
        if not context:
            raise LmpplError(findings.llama_cpp_failed(self._library.problem))
        self._context = context
        self._batch = c.llama_batch_init(BATCH, 0, sequences + 2)
        self._memory = c.llama_get_memory(context)
        self._vocabulary_size = c.llama_vocab_n_tokens(weights.vocabulary)
        self._cells = int(c.llama_n_ctx(context))
        self._used = self._filled = 0  # cells, and those of fillers among them
        weakref.finalize(self, _free, c, context, self._batch)

    def clear(self) -> None:
        """Forget all sequences."""
        self._used = self._filled = 0
        if self._memory:
            self._c.llama_memory_clear(self._memory, False)

    def has_room(self, count: int) -> bool:
        """Whether so many tokens can be run before all has to be cleared."""
        return self._used + count + 1 <= self._cells

    def settle(self, places: Sequence[Place]) -> None:
        """Let every home hold what its row goes on from, and no more."""
        for place in places:
            kept = place.length if place.home == place.source else 0
            self._copy(place.home, self._dropped, kept, -1)
        moved = [place for place in places if place.home != place.source]
        for place in moved:
            self._c.llama_memory_seq_rm(self._memory, place.home, 0, -1)
            self._copy(place.source, place.home, 0, place.length)
        for place in places:
            self._c.llama_memory_seq_rm(self._memory, place.home, place.length, -1)

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        self._c.llama_memory_seq_cp(self._memory, source, target, start, stop)

    def run(self, nodes: Sequence[Node]) -> Iterator[tuple[Node, NDArray[np.float32]]]:
        """One pass over at most BATCH tokens, each behind those that it follows. Gives the nodes
        whose laws are asked for, with their logits (V,), which hold until the next pass.
        """
        c, batch = self._c, self._batch
        self._fill(nodes)
        self._library.forget_errors()
        if c.llama_decode(self._context, batch):
            raise LmpplError(findings.llama_cpp_failed(self._library.problem))
        for i, node in enumerate(nodes):
            if node.asked:
                logits = c.llama_get_logits_ith(self._context, i)
                yield node, np.ctypeslib.as_array(logits, (self._vocabulary_size,))

    def _fill(self, nodes: Sequence[Node]) -> None:
        if len(nodes) == 1:
            filler = Node(nodes[0].token, self._filled, [self._filler])
            self._filled += 1
            nodes = [*nodes, filler]
        self._used += len(nodes)
        asked = [i for i, node in enumerate(nodes) if node.asked]
        told = {*asked, int(asked[0] == 0)} if len(asked) == 1 else {*asked}  # two laws, or none
        batch = self._batch
        batch.n_tokens = len(nodes)
        for i, node in enumerate(nodes):
            batch.token[i], batch.pos[i], batch.logits[i] = node.token, node.position, i in told
            batch.n_seq_id[i] = len(node.sequences)
            for place, sequence in enumerate(node.sequences):
                batch.seq_id[i][place] = sequence


def _free(c: object, context: object, batch: object) -> None:
    c.llama_batch_free(batch)  # type: ignore[attr-defined]
    c.llama_free(context)  # type: ignore[attr-defined]
