"""Streams whose passes have few shapes, so that each can be compiled (`run --torch-compile`) or
recorded (recorded.py).

On a GPU a small model's step takes less time than starting its kernels one by one does. A step here
is a function of tensors that changes none of its arguments, which is what torch replays as a CUDA
graph. Rows, their own columns and the prompt's are rounded up to sizes that come back; what is
beyond is masked. Sizes are symbols to the compiler: a new one is recorded, not compiled anew.

B rows (rounded), P columns of the prompt, L of a row's own, G key heads, D wide; keys and values of
all layers lie in one tensor, "2 layers" in turn, as cache.take lays them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmppl.errors import LmpplError, error, first_line
from lmppl.lm.protocol import Past, Tokens
from lmppl.lm.transformers.attention import FixedRows
from lmppl.lm.transformers.cache import parts
from lmppl.lm.transformers.network import Network
from lmppl.lm.transformers.prompts import Prompt
from lmppl.lm.transformers.stream import HuggingFaceStream

FEWEST_ROWS, FEWEST_COLUMNS = 8, 32
STRIDE = 64  # sizes double up to here, then go on in steps of it
MOST_COMPILED = 64  # programs of one model: with an adapter, without, and of some adapters in turn
Laws = tuple[torch.Tensor, torch.Tensor]  # logits, and the keys and values of the new tokens
Step = Callable[
    ..., Laws
]  # `step`, or what computes the same; results may lie where the next call writes


def rounded(size: int, least: int) -> int:
    """The next of few sizes: least, twice that and so on up to the stride, and then its
    multiples.
    """
    if size > STRIDE:
        return -(-size // STRIDE) * STRIDE
    while least < size:
        least *= 2
    return least


class CompiledStep:
    """`step` as one program. The modes of torch are inductor's: with it, CUDA graphs where there is
    CUDA.
    """

    def __init__(self, backend: str | Callable = "inductor") -> None:
        mode = "reduce-overhead" if backend == "inductor" else None
        # for good: set around each step it would cost a tenth of it, and torch.compile takes it
        # from 2.13 on only
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, MOST_COMPILED)
        self._program: Step = torch.compile(_own_copy(), fullgraph=True, backend=backend, mode=mode)

    def __call__(self, network: Any, *arguments: torch.Tensor) -> Laws:
        """One step. Raises LmpplError where the network cannot be compiled as one program."""
        from torch._dynamo.exc import (
            FailOnRecompileLimitHit,
            TorchDynamoException,
        )  # a second: not for everyone

        tokens, lengths, prompt, _, own = arguments
        for tensor, axis in ((tokens, 0), (lengths, 0), (prompt, 2), (own, 1), (own, 3)):
            torch._dynamo.mark_dynamic(tensor, axis)
        try:
            return self._program(network, *arguments)
        except (TorchDynamoException, FailOnRecompileLimitHit) as reason:
            message, help = (
                "torch cannot compile this model's decoding step",
                "run without --torch-compile",
            )
            raise LmpplError(
                error("not-compiled", message, found=first_line(reason), help=help)
            ) from None


def _own_copy() -> Step:
    """`step` with code of its own: torch counts programs by code, and one model's are to leave room
    for another's.
    """
    return FunctionType(step.__code__.replace(), step.__globals__, step.__name__)


def step(
    network: Any, tokens: torch.Tensor, lengths: torch.Tensor, prompt: torch.Tensor,
    begun: torch.Tensor,
    own: torch.Tensor,
) -> Laws:  # fmt: skip
    """Logits (B, V) after one token more in every row, and the tokens' keys and values (2 layers,
    B, G, 1, D).

    tokens, lengths: (B,), how many own columns a row has filled. prompt: (2 layers, G, P, D), of
    which the first columns are filled, begun of them, a tensor (). own: (2 layers, B, G, L, D),
    filled on the left.
    """
    rows = FixedRows(prompt, own)
    column = torch.arange(prompt.shape[2], device=tokens.device)
    of_prompt = (column < begun)[None].expand(len(tokens), -1)
    of_own = torch.arange(own.shape[3], device=tokens.device)[None] < lengths[:, None]
    seen = torch.cat([of_prompt, of_own, torch.ones_like(of_own[:, :1])], dim=1)  # (B, P + L + 1)
    output = network(
        input_ids=tokens[:, None],
        position_ids=(begun + lengths)[:, None],
        attention_mask=seen[:, None, None],
        use_cache=False,
        shared_prompt=rows,
    )
    return output.logits[:, -1], torch.stack(rows.new)


class StaticStream:
    """Implements lm.protocol.Stream, for prompts that rows share."""

    def __init__(
        self,
        owner: Network,
        ready: Prompt,
        suffixes: Sequence[Tokens],
        blocks: Sequence[torch.Tensor | None] | None = None,
    ) -> None:
        """blocks: keys and values of at least the suffixes, where they have been run before."""
        self._owner, self._ready = owner, ready
        logits = ready.logits.expand(len(suffixes), -1)
        if blocks is None and any(suffixes):
            eager = HuggingFaceStream(owner, ready, suffixes)
            blocks = [past.block for past in eager.take(range(len(suffixes)))]
            logits = eager.logits
        self._own_tokens = [list(suffix) for suffix in suffixes]
        self._logits = logits  # (number of rows, V)
        self._prompt = _of_prompt(ready)
        self._begun = torch.tensor(ready.length, device=owner.device)
        self._lengths = torch.tensor(
            [len(suffix) for suffix in suffixes], dtype=torch.long, device=owner.device
        )
        self._columns = self._prompt.new_zeros(
            len(self._prompt), len(suffixes), *self._shape(self._room)
        )
        for row, block in enumerate(blocks or ()):
            if block is not None:
                length = len(suffixes[row])
                self._columns[:, row, :, :length] = block[:, :, :length]
        self._round()

    def _shape(self, room: int) -> tuple[int, int, int]:
        """Of a row's keys in one layer."""
        _, heads, _, size = self._prompt.shape
        return heads, room, size

    @property
    def _room(self) -> int:
        """Own columns, with one left for the token to come."""
        return rounded(max(map(len, self._own_tokens), default=0) + 1, FEWEST_COLUMNS)

    def _round(self) -> None:
        """Fill up with rows that are nobody's."""
        missing = rounded(len(self._own_tokens), FEWEST_ROWS) - len(self._lengths)
        if missing:
            self._lengths = torch.cat([self._lengths, self._lengths.new_zeros(missing)])
            empty = self._columns.new_zeros(len(self._columns), missing, *self._columns.shape[2:])
            self._columns = torch.cat([self._columns, empty], dim=1)

    def _widen(self, room: int) -> None:
        missing = room - self._columns.shape[3]
        if missing > 0:
            self._columns = torch.nn.functional.pad(self._columns, (0, 0, 0, missing))

    @torch.inference_mode()
    def log_probs(self) -> torch.Tensor:
        return self._owner.log_law(self._logits)

    @torch.inference_mode()
    def push(self, tokens: NDArray[np.int64]) -> None:
        self._widen(self._room)
        filled = np.zeros(len(self._lengths), dtype=np.int64)
        filled[: len(tokens)] = tokens
        ids = torch.as_tensor(filled).to(self._owner.device)
        logits, new = self._owner.run_step(
            ids, self._lengths, self._prompt, self._begun, self._columns
        )
        self._logits = logits[: len(tokens)].clone()  # the next replay writes over it
        row = torch.arange(len(ids), device=ids.device)
        self._columns[:, row, :, self._lengths] = new[:, :, :, 0].transpose(0, 1)
        self._lengths = self._lengths + 1
        for own, token in zip(self._own_tokens, tokens.tolist(), strict=True):
            own.append(token)
        self._owner.cost.tokens_decoded += len(tokens)

    @torch.inference_mode()
    def keep(self, rows: NDArray[np.int64]) -> None:
        index = torch.as_tensor(rows).to(self._owner.device)
        self._own_tokens = [list(self._own_tokens[row]) for row in rows]
        self._logits, self._lengths = self._logits[index], self._lengths[index]
        self._columns = self._columns[:, index]
        self._round()

    @property
    def joins(self) -> bool:
        return True

    @torch.inference_mode()
    def take(self, rows: Sequence[int]) -> list[Past]:
        own = self._own_tokens
        return [
            Past(tuple(own[row]), self._columns[:, row, :, : len(own[row])].clone()) for row in rows
        ]

    @torch.inference_mode()
    def join(self, other: StaticStream) -> None:
        mine, theirs = len(self._own_tokens), len(other._own_tokens)
        self._own_tokens += other._own_tokens
        for stream in (self, other):
            stream._widen(max(self._room, self._columns.shape[3], other._columns.shape[3]))
        self._columns = torch.cat([self._columns[:, :mine], other._columns[:, :theirs]], dim=1)
        self._lengths = torch.cat([self._lengths[:mine], other._lengths[:theirs]])
        self._logits = torch.cat([self._logits, other._logits])
        self._round()


def _of_prompt(ready: Prompt) -> torch.Tensor:
    """(2 layers, G, P, D) keys and values of a prompt, filled up on the right."""
    whole = torch.stack([part[0] for part in parts(ready.cache)])
    return torch.nn.functional.pad(whole, (0, 0, 0, rounded(ready.length, STRIDE) - ready.length))
