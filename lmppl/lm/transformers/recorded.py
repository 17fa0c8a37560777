"""A decoding step that is recorded once for each of few shapes, and replayed: CUDA graphs, without
a compiler.

A small model's step is a thousand kernels, and starting them takes longer than running them. A CUDA
graph starts all of them at once. Recording takes about as long as three steps, so nobody has to ask
for it. Knows tensors and the step of static.py; nothing of models but that they can be called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lmppl.errors import first_line
from lmppl.lm.transformers.static import Laws, step

Replay = Callable[[], Any]
Record = Callable[
    [Callable[[], Laws]], tuple[Replay, Laws]
]  # what does it again, and where its results then lie
Tell = Callable[[str], None]


class RecordedStep:
    """`static.step` of one network in one state: what it reads beside its arguments must stay where
    it is.

    Weights may be changed in place. A network with another adapter, or with its adapter off, has a
    step of its own.
    """

    def __init__(self, record: Record, tell: Tell) -> None:
        """tell: is told, once, where a step cannot be recorded; steps are then run as they are."""
        self._record, self._tell = record, tell
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}
        self.works = True

    def anew(self) -> RecordedStep:
        """The same for another state of the network."""
        return RecordedStep(self._record, self._tell)

    def __call__(self, network: Any, *arguments: torch.Tensor) -> Laws:
        if not self.works:
            return step(network, *arguments)
        shapes = tuple(argument.shape for argument in arguments)
        try:
            if shapes not in self._recordings:
                self._recordings[shapes] = _Recording(self._record, network, arguments)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as reason:  # what CUDA says of a step that waits for the host
            self.works = False
            self._tell(
                f"decoding steps cannot be recorded as a CUDA graph, and are run as they are: "
                f"{first_line(reason)}"
            )
            return step(network, *arguments)
        return self._recordings[shapes](arguments)


class _Recording:
    """One step at one shape, on tensors of its own."""

    def __init__(self, record: Record, network: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        self._own = tuple(argument.clone() for argument in arguments)
        self._replay, self._results = record(lambda: step(network, *self._own))

    def __call__(self, arguments: tuple[torch.Tensor, ...]) -> Laws:
        for mine, given in zip(self._own, arguments, strict=True):
            mine.copy_(given)
        self._replay()
        return self._results


class CudaGraphs:
    """Records as CUDA graphs, which share one pool of memory: no two are replayed at once."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, act: Callable[[], Laws]) -> tuple[Replay, Laws]:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):  # libraries set themselves up, which cannot be recorded
            act()
            act()
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            results = act()
        self._pool = self._pool or graph.pool()
        return graph.replay, results
