"""An event loop in a thread of its own, so that who waits for answers can look at the clock, and
can be stopped.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
TICK = 0.5  # seconds between looks


class Background:
    """Runs coroutines one after the other, whoever asks; it ends with the process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], look: Callable[[], None]) -> T:
        """What a coroutine returns. look: is called again and again until then; what it raises ends
        the coroutine, and so does Ctrl-C.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            while not wait([future], timeout=TICK).done:
                look()
        except BaseException:
            future.cancel()
            with suppress(BaseException):  # requests are let go of before anything else is asked
                wait([future], timeout=TICK)
            raise
        return future.result()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Let a coroutine run, which nobody waits for."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)


@functools.cache
def background() -> Background:
    """The one that all servers are asked in."""
    return Background()
