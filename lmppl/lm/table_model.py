"""A table of conditional probabilities as a language model: small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmppl.lm.base import BaseDecoder, Floats
from lmppl.lm.pieces import LongestPieces
from lmppl.lm.protocol import Row, Tokens
from lmppl.lm.tables import Table, table_of
from lmppl.storage import of_value


class TableModel(BaseDecoder):
    """Implements LanguageModel, in float64."""

    def __init__(
        self, table: Table | Mapping[str, Any], *, name: str = "LM", identifier: str = "table"
    ) -> None:
        """table: or a document that is one (tables.py says what it holds). Raises LmpplError where
        it is none.
        """
        self.table = table if isinstance(table, Table) else table_of(table)
        content = of_value(self.table.document)[:16]
        super().__init__(
            LongestPieces(self.table.vocabulary, self.table.end), name=name, identifier=identifier,
            revision=content, fingerprint={"table": content},
        )  # fmt: skip
        self._by_ending = {ending: self._law(law) for ending, law in self.table.laws.items()}
        self._longest = max(map(len, self._by_ending))

    def _law(self, law: Mapping[str, float]) -> Floats:
        """(V,) log probabilities."""
        pieces = (*self.table.vocabulary, self.table.end)
        numbers = np.array([law.get(piece, 0.0) for piece in pieces], dtype=np.float64)
        with np.errstate(divide="ignore"):
            return np.log(numbers / numbers.sum())

    def next_laws(self, rows: Sequence[Row]) -> list[Floats]:
        """See BaseDecoder."""
        found = []
        for tokens, first in rows:
            lengths = range(first, len(tokens) + 1)
            found.append(np.stack([self._after(tokens[:length]) for length in lengths]))
        return found

    def _after(self, tokens: Tokens) -> Floats:
        """(V,) the law of the longest ending that the text of these tokens has."""
        text = self.decode(tokens[max(0, len(tokens) - self._longest) :])
        sizes = range(min(self._longest, len(text)), -1, -1)
        ending = next(e for size in sizes if (e := text[len(text) - size :]) in self._by_ending)
        return self._by_ending[ending]
