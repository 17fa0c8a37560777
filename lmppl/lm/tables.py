"""Files of tables: a language model written down as conditional probabilities. Brings no torch.

    {"vocabulary": [" sun", " rain"],
     "laws": {"": {" sun": 0.5, " rain": 0.25, "<end>": 0.25},
              " rain": {" rain": 0.5, "<end>": 0.5}}}

A law is that of the next token; it holds behind every text that ends with its key, and the longest
key holds. What a law does not name has probability 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmppl.errors import Diagnostic, LmpplError, first_line
from lmppl.findings import models as findings

END = "<end>"
KEYS = ("vocabulary", "end", "laws")
CLOSE = 1e-6  # how near to 1 the probabilities of a law must add up; they are then divided by it
Law = Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """What a file says. laws: probabilities of the next token by the end of the text before it."""

    vocabulary: tuple[str, ...]
    end: str
    laws: Mapping[str, Law]

    @property
    def document(self) -> dict[str, Any]:
        """As a file has it."""
        laws = {ending: dict(law) for ending, law in self.laws.items()}
        return {"vocabulary": list(self.vocabulary), "end": self.end, "laws": laws}


def read_table(path: Path) -> Table:
    """The table of a file. Raises LmpplError with all that is wrong with it."""
    name = path.name
    try:
        text = path.read_text(encoding="utf-8-sig")
        document = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number)
    except RecursionError:
        raise LmpplError(findings.bad_table(name, "it is nested too deeply")) from None
    except (OSError, ValueError) as reason:
        raise LmpplError(findings.bad_table(name, first_line(reason))) from None
    return table_of(document, name)


def table_of(document: Any, name: str = "the table") -> Table:
    """The table that a file's document is. Raises LmpplError with all that is wrong with it."""
    found = list(_problems(document))
    if found:
        raise LmpplError(*(findings.bad_table(name, problem) for problem in found))
    laws = {ending: dict(law) for ending, law in document["laws"].items()}
    return Table(tuple(document["vocabulary"]), document.get("end", END), laws)


def table_problems(path: Path) -> tuple[Diagnostic, ...]:
    """All that is wrong with a file, without a place in the program."""
    try:
        read_table(path)
    except LmpplError as reason:
        return reason.diagnostics
    return ()


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is there twice")
        found[key] = value
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no probability")


def _problems(document: Any) -> Iterator[str]:
    if not isinstance(document, dict):
        yield "it is no JSON object"
        return
    for key in document:
        if key not in KEYS:
            yield f"{key!r} is unknown; it has {', '.join(map(repr, KEYS))}"
    vocabulary, end, laws = (
        document.get("vocabulary"),
        document.get("end", END),
        document.get("laws"),
    )
    if not isinstance(vocabulary, list) or not all(_is_piece(piece) for piece in vocabulary):
        yield '"vocabulary" is no list of texts, none of them empty'
    elif not _is_piece(end):
        yield '"end" is no text, or an empty one'
    elif len({*vocabulary, end}) <= len(vocabulary):
        twice = next(piece for piece in [*vocabulary, end] if [*vocabulary, end].count(piece) > 1)
        yield f"{twice!r} is there twice, in the vocabulary or as its end"
    elif not isinstance(laws, dict) or not laws:
        yield '"laws" is no object of laws by the text before them'
    else:
        yield from _law_problems([*vocabulary, end], laws)


def _is_piece(piece: Any) -> bool:
    """Whether it is a text that bytes can be written for."""
    return (
        isinstance(piece, str) and bool(piece) and not any("\ud800" <= c <= "\udfff" for c in piece)
    )


def _law_problems(pieces: list[str], laws: Mapping[str, Any]) -> Iterator[str]:
    if "" not in laws:
        yield 'there is no law "", which holds where no other does'
    for ending, law in laws.items():
        if not _can_end(ending, pieces):
            yield f"no text of the vocabulary ends with {ending!r}, so its law would never hold"
        yield from (f"the law {ending!r} {problem}" for problem in _problems_of(law, pieces))


def _problems_of(law: Any, pieces: list[str]) -> Iterator[str]:
    if not isinstance(law, dict):
        yield "is no object of probabilities by token"
        return
    for piece, probability in law.items():
        if piece not in pieces:
            yield f"has {piece!r}, which is not in the vocabulary"
        if isinstance(probability, bool) or not isinstance(probability, int | float):
            yield f"has no number for {piece!r}"
        elif not 0 <= probability <= 1:
            yield f"has {probability:g} for {piece!r}, which is no probability"
    numbers = [p for p in law.values() if isinstance(p, int | float) and not isinstance(p, bool)]
    total = math.fsum(numbers)
    if len(numbers) == len(law) and not abs(total - 1) <= CLOSE:
        yield f"adds up to {total:g}, and not to 1"


def _can_end(ending: str, pieces: list[str]) -> bool:
    """Whether pieces one after the other can end so; the first may be cut."""
    if any(piece.endswith(ending) for piece in pieces):
        return True
    cuts = {
        len(piece) - i
        for piece in pieces
        for i in range(len(piece))
        if ending.startswith(piece[i:])
    }
    reached = [place in cuts for place in range(len(ending) + 1)]
    for place in range(len(ending)):
        if reached[place]:
            for piece in pieces:
                if ending.startswith(piece, place):
                    reached[place + len(piece)] = True
    return reached[len(ending)]
