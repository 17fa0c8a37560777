"""Text of models, data, files and flags as a terminal may be shown it: nothing moves the cursor or
changes colours.

Everything that is printed goes through here: findings, tables, progress, JSON.
"""

from __future__ import annotations

import json
import re
import unicodedata

REPLACED = "�"
KEPT = {"\n", "\u200c", "\u200d"}  # line breaks, and what parts or joins letters and emoji
_HIDDEN = re.compile(r"[^ -~]")


class _Table(dict[int, int | str]):
    """What stands for a character, worked out once each."""

    def __missing__(self, code: int) -> int | str:
        character = chr(code)
        shown = (
            character in KEPT or character.isprintable() or unicodedata.category(character) == "Zs"
        )
        self[code] = code if shown else REPLACED
        return self[code]


_TABLE = _Table()


def visible(text: str) -> str:
    """A text with tabs as four spaces, and � for every character that is none to be seen, but for
    line breaks.
    """
    return text.replace("\t", "    ").translate(_TABLE)


def visible_json(value: object, indent: int | None = None) -> str:
    """A JSON document in which what is none to be seen is escaped, so that it says the same."""
    return visible_line(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent))


def visible_line(text: str) -> str:
    """JSON that is written already, in the same way."""
    return _HIDDEN.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    if character == "\n" or _TABLE[ord(character)] != REPLACED:
        return character
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"
