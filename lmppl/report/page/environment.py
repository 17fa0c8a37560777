"""Templates and files of the pages, with everything escaped that is not markup of their own."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lmppl.report.page.table import number
from lmppl.screen import ABSENT, visible

PACKAGE = "lmppl.report.page"


@functools.cache
def environment() -> Environment:
    """Where templates come from, and how values are set in them. Made once: to parse a template
    costs more than to fill it."""
    made = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    made.filters.update(number=number, mass=mass, seen=seen, figure=figure, visible=visible)
    return made


def text_of(name: str) -> str:
    """The text of a file beside this one."""
    return (resources.files(PACKAGE) / name).read_text(encoding="utf-8")


def mass(value: float) -> str:
    """A probability as it is read: what is there but rounds to nothing is said to be small."""
    return "<0.001" if 0 < value < 0.0005 else "0" if value == 0 else f"{value:.3f}"


def figure(value: object) -> str:
    """A value of any kind as it is read: numbers short, lists and mappings in words."""
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(figure, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {figure(entry)}" for key, entry in value.items())
    return "–" if value is None else str(value)


def seen(text: object) -> Markup:
    """A text in which spaces at its ends, line breaks and characters without a shape are seen."""
    if text is None:
        return _unseen(ABSENT)
    plain = str(text)
    if not plain:
        return Markup('<span class="unseen">(empty)</span>')
    body = plain.strip(" ")
    before = len(plain) - len(plain.lstrip(" "))
    after = len(plain) - before - len(body)
    return _unseen("·" * before) + Markup("").join(map(_character, body)) + _unseen("·" * after)


def _character(character: str) -> Markup:
    if character == "\n":
        return _unseen("↵") + "\n"
    if character == "\t":
        return _unseen("⇥")
    return (
        Markup("{}").format(character)
        if character.isprintable()
        else _unseen(f"\\u{ord(character):04x}")
    )


def _unseen(text: str) -> Markup:
    return Markup('<span class="unseen">{}</span>').format(text) if text else Markup("")
