"""Bodies of requests: JSON that is read strictly, its numbers as they were written."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeGuard

from lmppl.expressions import Digits
from lmppl.serve.errors import Refused


class _Twice(ValueError):
    """A key that stands twice in an object."""


def read_json(body: bytes | str, param: str | None = None) -> Any:
    """A JSON value; a number in it is a `Digits`. Raises Refused where it is none, holds a key
    twice, or a number that JSON has not.
    """
    try:
        text = body.decode() if isinstance(body, bytes) else body
        return json.loads(
            text,
            parse_int=Digits,
            parse_float=Digits,
            parse_constant=_no_number,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError as reason:
        problem = str(reason)
    raise Refused(400, "bad_json", f"the body is no JSON: {problem:.200}", param)


def read_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises Refused."""
    found = read_json(body)
    if not isinstance(found, dict):
        raise Refused(400, "bad_json", "the body is no JSON object")
    return found


def plain(value: Any) -> Any:
    """A value of a row or a given, as data have it: a number is its digits."""
    return str(value) if isinstance(value, Digits) else value


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value of JSON is a text."""
    return isinstance(value, str) and not isinstance(value, Digits)


def whole_number(value: Any) -> int | None:
    """The whole number that a value of JSON is; None where it is none."""
    if isinstance(value, Digits) and len(value) <= 30 and value.lstrip("-").isdecimal():
        return int(value)
    return None


def real_number(value: Any) -> float | None:
    """The number that a value of JSON is, which may be infinite; None where it is none."""
    return float(value) if isinstance(value, Digits) else None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"the key {twice!r:.80} stands twice in an object")
    return found
