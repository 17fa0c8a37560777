"""Between the event loop and the thread that infers: asks wait in a queue, and those of one program
become rows of one inference.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lmppl.data import Row
from lmppl.serve.errors import Refused, late, of_error, stopping
from lmppl.serve.inference import Answered, Ask, infer

if TYPE_CHECKING:
    from lmppl.serve.metrics import Metrics
    from lmppl.serve.programs import Served
    from lmppl.serve.settings import Serving

DRAWN = 0.8  # of its time that an ask may draw: what is drawn has to be judged


class Batcher:
    """The queue, and what works on it. All methods are the event loop's."""

    def __init__(self, serving: Serving, metrics: Metrics) -> None:
        self._serving, self._metrics = serving, metrics
        self._waiting: list[Ask] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "inference")
        self._latest = math.inf
        self._loop: asyncio.Task[None] | None = None
        self._under_way = 0

    @property
    def ready(self) -> bool:
        """Whether asks are taken."""
        return self._loop is not None and not self._loop.done() and self._latest == math.inf

    def open(self) -> None:
        """Begin to work."""
        self._loop = asyncio.create_task(self._work())

    def hurry(self, seconds: float) -> None:
        """Take no more asks, and end all within these seconds, with what is there by then."""
        self._latest = min(self._latest, time.perf_counter() + seconds)

    async def close(self) -> None:
        """End at once."""
        self._latest = -math.inf
        if self._loop is not None:
            self._loop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._loop
        for ask in self._waiting:
            ask.deliver(stopping())
        await asyncio.to_thread(self._thread.shutdown)

    async def ask(
        self, served: Served, rows: Sequence[Row], seed: int, until: float | None
    ) -> list[Answered | Refused]:
        """What is found for rows of a program, in their order. A caller that is cancelled asks no
        more. Raises Refused where there is no room.
        """
        self._require_room(len(rows))
        seconds = self._serving.timeout
        deadline, loop = time.perf_counter() + DRAWN * seconds, asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        asks = [
            Ask(served, row, seed, number, until, deadline, seconds, _delivery(loop, future))
            for number, (row, future) in enumerate(zip(rows, futures, strict=True))
        ]
        self._waiting += asks
        self._metrics.waiting.set(len(self._waiting))
        self._arrived.set()
        try:
            done, _ = await asyncio.wait(futures, timeout=seconds)
            return [one.result() if one in done else late(seconds) for one in futures]
        finally:
            for ask in asks:
                ask.gone = True

    def _require_room(self, rows: int) -> None:
        if self._latest < math.inf:
            raise stopping()
        room = self._serving.max_queue - len(self._waiting) - self._under_way
        if rows > self._serving.max_queue:
            message = f"there is room for {self._serving.max_queue:,} rows, and these are {rows:,}"
            raise Refused(413, "too_many_rows", message)
        if rows > room:
            message = f"{self._serving.max_queue - room:,} rows wait already"
            raise Refused(429, "queue_full", message)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            await asyncio.sleep(self._serving.window)
            batch = self._taken()
            self._metrics.waiting.set(len(self._waiting))
            if not self._waiting:
                self._arrived.clear()
            if not batch:
                continue
            self._under_way = len(batch)
            self._metrics.batch_rows.observe(len(batch))
            started = time.perf_counter()
            try:
                await loop.run_in_executor(self._thread, infer, batch, lambda: self._latest)
            except Exception as reason:  # a bug: it ends these rows, and no others
                for ask in batch:
                    ask.deliver(of_error(reason))
            finally:
                self._under_way = 0
                self._metrics.inference_seconds.inc(time.perf_counter() - started)

    def _taken(self) -> list[Ask]:
        """The asks of the program that has waited longest, for as long as anyone waits for them."""
        self._waiting = [ask for ask in self._waiting if not ask.gone]
        if not self._waiting:
            return []
        served = self._waiting[0].served
        same = [ask for ask in self._waiting if ask.served is served]
        batch = {id(ask) for ask in same[: self._serving.max_batch]}
        kept, self._waiting = self._waiting, [a for a in self._waiting if id(a) not in batch]
        return [ask for ask in kept if id(ask) in batch]


def _delivery(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Answered | Refused]):
    """What gives an answer to who waits for it, from any thread."""

    def set_result(answer: Answered | Refused) -> None:
        if not future.done():
            future.set_result(answer)

    def deliver(answer: Answered | Refused) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            loop.call_soon_threadsafe(set_result, answer)

    return deliver
