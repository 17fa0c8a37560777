"""Room for requests that are in flight together, measured in tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """So many tokens at most, of all requests in flight. A larger request is in flight alone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, amount: int) -> AsyncIterator[None]:
        """Within it, there is room for so many tokens."""
        amount = min(amount, self.size)
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            self._free += amount
            async with self._changed:
                self._changed.notify_all()
