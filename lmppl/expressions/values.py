"""What a cell of data says: a text, nothing, or something that is no value of a program.

Every value is a text, the one that a person wrote: of a number its digits, as they stand in the
file. So a number in JSON, the same digits in quotes, a cell of a table and `--set` are one value;
expressions read it as a number where they need one.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lmppl.source import Source, Span


@dataclass(frozen=True)
class NoValue:
    """A cell that holds neither a text nor a number: an error where something reads it."""

    problem: str  # goes on from "the value of X"


@dataclass(frozen=True)
class Absent:
    """What stands for a part that a text does not have: equal to nothing, and true of nothing."""

    reason: str  # goes on from a text: "it is no JSON"


class Digits(str):
    """A number of JSON, as it was written."""

    __slots__ = ()


@dataclass(frozen=True)
class Record:
    """One row of data: its values by column, those that are missing left out, and where it
    stands.
    """

    values: Mapping[str, str | NoValue]
    source: Source | None = None
    span: Span | None = None
    name: str = "this row of the data"  # where findings speak of it

    def texts(self) -> dict[str, str]:
        """The values that are ones."""
        return {name: value for name, value in self.values.items() if isinstance(value, str)}


Cell = str | NoValue | None
Helper = Callable[..., object]  # a function of the user's file: what it returns, no type tells

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")


def cell(value: object) -> Cell:
    """A value of JSON, Python, numpy or pandas; None where it is missing: None, NaN, and what
    pandas has for it.
    """
    if isinstance(value, str):
        return text_cell(str(value))
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, numbers.Real | Decimal) and not isinstance(value, bool):
        return _number_cell(value)
    kind = type(value).__name__
    kinds = {
        "bool": "a truth",
        "bool_": "a truth",
        "dict": "a mapping",
        "list": "a list",
        "tuple": "a list",
    }
    return NoValue(f"is {kinds.get(kind, f'of the kind `{kind}`')}, neither a text nor a number")


def text_cell(text: str) -> str | NoValue:
    """A text, unless it holds what no text in UTF-8 holds: half a pair of surrogates, or a byte
    that is no UTF-8.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError as reason:
        return NoValue(f"holds {_lone(ord(text[reason.start]))}, which no text in UTF-8 does")
    return text


def _lone(code: int) -> str:
    """What a surrogate stands for: command lines bring bytes that are no UTF-8 as some of them."""
    if 0xDC80 <= code <= 0xDCFF:
        return f"the byte 0x{code - 0xDC00:02X} alone (as \\u{code:04x})"
    return f"half a pair of surrogates, \\u{code:04x}"


def _number_cell(value: Any) -> Cell:
    """A number as Python writes it: 3 is `3`, 3.0 is `3.0`, as in a JSON file."""
    try:
        text = str(value)
    except ValueError:  # Python writes no integer of more digits than a limit
        return NoValue("is an integer of too many digits: give it as a text")
    if text.lower().endswith("nan"):
        return None
    if "inf" in text.lower():
        return infinite()
    return text


def infinite() -> NoValue:
    """What is said of an infinite number."""
    return NoValue("is infinite, which is no number that can be written")


def read_number(text: str) -> float:
    """The number that a text is as a whole, white space around it left out; NaN where it is
    none.
    """
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def shown(value: float | str | bool | Absent) -> str | None:
    """A derived value as results have it: a text; None where it is absent."""
    return None if isinstance(value, Absent) else written(value)


def written(value: float | str | bool | Absent) -> str:
    """A value that a program has computed, as a text: of a number the digits that read back as it,
    whole ones without a point; of a truth its word; nothing where it is absent.
    """
    if isinstance(value, Absent):
        return ""
    if isinstance(value, str | bool):
        return str(value) if isinstance(value, str) else str(value).lower()
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e16 else str(float(value))
