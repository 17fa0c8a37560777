"""Parts of texts: what stands behind, before or between others, in a group, in a field, on a line.

Each gives the part, or `Absent` with the reason where a text has no such part.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import NoReturn

from lmppl.expressions.values import Absent, Digits, text_cell

Step = str | int  # into a value of JSON: a name, or a place in a list
Part = str | bool | Absent

_STEP = re.compile(r"(?P<dot>\.)?(?P<name>[^.\[\]]+)|\[(?P<place>-?\d{1,9})\]")


def after(text: str, mark: str) -> Part:
    """What stands behind the first `mark`."""
    start = text.find(mark)
    return _without(mark) if start < 0 else text[start + len(mark) :]


def before(text: str, mark: str) -> Part:
    """What stands before the first `mark`."""
    end = text.find(mark)
    return _without(mark) if end < 0 else text[:end]


def between(text: str, opening: str, closing: str) -> Part:
    """What stands behind the first `opening`, before the first `closing` that follows it."""
    rest = after(text, opening)
    return before(rest, closing) if isinstance(rest, str) else rest


def group(text: str, pattern: str) -> Part:
    """What the first group holds that took part, where the pattern first matches within a text.

    Raises TimeoutError.
    """
    from lmppl.expressions.patterns import SECONDS_PER_MATCH, searched_for

    found = searched_for(pattern).search(text, timeout=SECONDS_PER_MATCH)
    held = next((one for one in found.groups() if one is not None), None) if found else None
    return Absent("the pattern matches nothing in it") if held is None else held


def line(text: str, number: float) -> Part:
    """The line of a number: from 1, or from the end where it is negative."""
    lines = text.splitlines()
    if not number or number != int(number) or abs(number) > len(lines):
        return Absent(f"it has no line {number:g}")
    return lines[int(number) - (number > 0)]


# --- fields of JSON -------------------------------------------------------------------------------


def field(text: str, path: str) -> Part:
    """What stands at a path in a text of JSON: a text without its quotes, a number digit by digit,
    a truth; of what holds others, its JSON. `null` is absent.
    """
    value = _read(text)
    if isinstance(value, Absent):
        return value
    for step in steps(path):
        inside = _within(value, step)
        if inside is None:
            return Absent(f"it has no field {path}")
        value = inside[0]
    if value is None:
        return Absent(f"its field {path} is null")
    if isinstance(value, bool):
        return value
    found = str(value) if isinstance(value, str) else _written(value)
    return found if isinstance(text_cell(found), str) else Absent(f"its field {path} is no text")


@functools.lru_cache(maxsize=256)
def steps(path: str) -> tuple[Step, ...]:
    """The steps of a path such as `a.b[0]`. Raises ValueError, with the place, where it is none."""
    found: list[Step] = []
    place = 0
    while place < len(path):
        step = _STEP.match(path, place)
        if step is None or (step["name"] is not None and bool(step["dot"]) != bool(found)):
            raise ValueError(place)
        found.append(step["name"] if step["name"] is not None else int(step["place"]))
        place = step.end()
    if not found:
        raise ValueError(0)
    return tuple(found)


@functools.lru_cache(maxsize=64)  # several fields are read of one text
def _read(text: str) -> object:
    """The value of a text of JSON, its numbers by their digits; Absent where it is none."""
    try:
        return json.loads(text, parse_float=Digits, parse_int=Digits, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return Absent("it is no JSON")


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _within(value: object, step: Step) -> Sequence[object] | None:
    """What a step leads to, alone in a sequence; None where it leads nowhere."""
    if isinstance(value, dict) and isinstance(step, str) and step in value:
        return [value[step]]
    if isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
        return [value[step]]
    return None


def _written(value: object) -> str:
    """A value as JSON, without spaces; numbers keep their digits."""
    if isinstance(value, Digits):
        return value
    if isinstance(value, dict):
        return f"{{{','.join(f'{_written(key)}:{_written(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _without(mark: str) -> Absent:
    return Absent(f"there is no {mark!r:.40} in it")
