"""What a JSON value must be, where what is read was perhaps written by somebody else: shapes,
checked in one way.

A shape is a function of a value. It raises Misfit, whose text says the place within the value, as
`rows[3].givens.X`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

# a JSON object, by its keys: what is in it, a shape says where it is read
Document = dict[str, Any]
Shape = Callable[[object], None]

DEEPEST = 20  # levels of a value that nobody looks into
LARGEST = 2**63 - 1  # of whole numbers: what tables and arrays hold
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: no file can hold it


class Misfit(ValueError):
    """A value is not what it must be. place: steps to it, from the outside."""

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(f"{place.removeprefix('.')} {problem}" if place else problem)
        self.problem, self.place = problem, place


def within(step: str, shape: Shape, value: object) -> None:
    """Check a part of a value. step: `.name` or `[3]`; it stands before the place that is said."""
    try:
        shape(value)
    except Misfit as reason:
        raise Misfit(reason.problem, step + reason.place) from None


def text(value: object) -> None:
    """A text that a file can hold."""
    if type(value) is not str or not (value.isascii() or not _SURROGATE.search(value)):
        _refuse(value, "a text")


def number(value: object) -> None:
    """A finite number."""
    if type(value) is int and abs(value) <= LARGEST:
        return
    if type(value) is not float or not math.isfinite(value):
        _refuse(value, "a number")


def whole(value: object) -> None:
    """A whole number from 0 on."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        _refuse(value, "a whole number from 0 on")


def seed(value: object) -> None:
    """A whole number that random numbers can begin with."""
    if type(value) is not int or not 0 <= value < 2**64:
        _refuse(value, "a seed")


def truth(value: object) -> None:
    """True or false."""
    if type(value) is not bool:
        _refuse(value, "true or false")


def anything(value: object, deepest: int = DEEPEST) -> None:
    """Any value whose numbers and texts are sound, and that is not nested too deeply."""
    if (
        value is None or isinstance(value, bool) or (type(value) is int and abs(value) < 2**64)
    ):  # a seed may be in it
        return
    if not isinstance(value, dict | list):
        (text if isinstance(value, str) else number)(value)
        return
    if deepest == 0:
        _refuse(value, "a value that is nested less deeply")
    for step, entry in _parts(value):
        within(step, lambda part: anything(part, deepest - 1), entry)


def maybe(shape: Shape) -> Shape:
    """The shape, or null."""
    return lambda value: None if value is None else shape(value)


def either(*shapes: Shape) -> Shape:
    """The first of the shapes that fits; what the last has to say where none does."""

    def check(value: object) -> None:
        for shape in shapes[:-1]:
            try:
                return shape(value)
            except Misfit:
                continue
        return shapes[-1](value)

    return check


def among(*values: str) -> Shape:
    """One of some texts."""

    def check(value: object) -> None:
        if type(value) is not str or value not in values:
            _refuse(value, "one of " + ", ".join(values))

    return check


def listed(shape: Shape) -> Shape:
    """A list of values of the shape."""

    def check(value: object) -> None:
        if type(value) is not list:
            _refuse(value, "a list")
        for step, entry in enumerate(value):
            try:
                shape(entry)
            except Misfit as reason:
                raise Misfit(reason.problem, f"[{step}]{reason.place}") from None

    return check


def mapped(shape: Shape) -> Shape:
    """An object of any keys whose values have the shape."""
    return fields({}, rest=shape)


def fields(
    required: Mapping[str, Shape],
    optional: Mapping[str, Shape] | None = None,
    rest: Shape = anything,
) -> Shape:
    """An object with these keys, and perhaps others. rest: of all that is not named."""
    known = {**required, **(optional or {})}

    def check(value: object) -> None:
        if type(value) is not dict:
            _refuse(value, "an object")
        for name in required:
            if name not in value:
                raise Misfit(f"has no `{name}`")
        for key, entry in value.items():
            text(key)
            try:
                known.get(key, rest)(entry)
            except Misfit as reason:
                raise Misfit(reason.problem, f".{key}{reason.place}") from None

    return check


def _parts(value: dict[str, Any] | list[Any]) -> Iterable[tuple[str, Any]]:
    """Steps to the parts of a value, and the parts."""
    if isinstance(value, list):
        return ((f"[{step}]", entry) for step, entry in enumerate(value))
    for key in value:
        text(key)
    return ((f".{key}", entry) for key, entry in value.items())


def _refuse(value: object, expected: str) -> NoReturn:
    kinds = {type(None): "null", dict: "an object", list: "a list"}
    large = type(value) is int and abs(value) > LARGEST
    found = kinds.get(type(value)) or ("a number too large" if large else repr(value)[:40])
    raise Misfit(f"is {found}, not {expected}")
