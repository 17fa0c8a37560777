"""Another engine to try, named at the end of advice: never the one that ran, nor one that is known
to fail here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

_NAMED = re.compile(r", or try --engine ([\w-]+)\.$")


def or_try(plain: str, engines: Sequence[str], failed: Collection[str]) -> str:
    """Advice without its full stop, and the first of these engines that is not among the failed, if
    there is one.
    """
    name = next((name for name in engines if name not in failed), None)
    return f"{plain}." if name is None else f"{plain}, or try --engine {name}."


def revised(message: str, engines: Sequence[str], failed: Collection[str]) -> str:
    """A message whose engine is exchanged for the first of these that has not failed, or left out
    where all have.
    """
    named = _NAMED.search(message)
    if named is None or named[1] not in failed:
        return message
    return or_try(message[: named.start()], engines, failed)
