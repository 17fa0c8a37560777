"""Shards: rows of the data, one behind another, that are drawn by one process.

Prompts of rows are run anew where a shard begins, in one process as in several: so the last bit of
a number hangs on the rows of its own shard alone, and it is the same whoever draws which shard.
"""

from __future__ import annotations

SHARD = 16  # rows


def shards(count: int) -> list[range]:
    """The numbers of so many rows, shard by shard."""
    return [range(first, min(first + SHARD, count)) for first in range(0, count, SHARD)]


def begins_shard(number: int) -> bool:
    """Whether a row is the first one of its shard."""
    return number % SHARD == 0
