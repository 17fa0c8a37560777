"""Rows of a run that stay on disk: kept as they come, in any order, and read when they are asked
for.

`rows.jsonl` has a line a row: its document, what it has cost, and where its draws stand in
`draws.jsonl`. A row is kept once its line is whole; what a kill has cut is cut off by who goes on.
`about.json` says what the run is made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, overload

from lmppl.diagnosis import Status
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.posterior.reading import draw_of, row_of
from lmppl.posterior.result import RowPosterior, finite, row_document
from lmppl.shapes import Document
from lmppl.storage import BrokenLine, opened_line, sealed_line, to_go_on, whole_lines

ABOUT, ROWS, DRAWS = "about.json", "rows.jsonl", "draws.jsonl"
STATUSES: tuple[Status, ...] = ("pass", "warn", "fail")
NOWHERE = -1


@dataclass(frozen=True)
class WrittenRow:
    """A row as text: what goes from a worker to who keeps it. cost: of this row alone."""

    number: int  # in the data
    document: str  # JSON
    draws: str  # a line of JSON each
    verdict: Status
    cost: Mapping[str, float] = field(default_factory=dict)

    def posterior(self, engine: str) -> RowPosterior:
        """The row that was written."""
        return _read(json.loads(self.document), self.draws, engine)


def written(number: int, row: RowPosterior, cost: Mapping[str, float]) -> WrittenRow:
    """A row as text."""
    document = json.dumps(row_document(row), ensure_ascii=False)
    draws = "".join(f"{line}\n" for line in lines_of(number, row))
    return WrittenRow(number, document, draws, row.verdict, cost)


def lines_of(number: int, row: RowPosterior) -> Iterator[str]:
    """Every draw of a row as a line of JSON, with the number of the row."""
    for draw in row.draws:
        yield json.dumps(finite({"row": number, **draw.document()}), ensure_ascii=False)


def _read(document: Document, draws: str, engine: str) -> RowPosterior:
    entries = [json.loads(line) for line in draws.split("\n") if line]
    for entry in entries:
        del entry["row"]
    return row_of(document, [draw_of(entry) for entry in entries], engine)


class Places:
    """Where each row stands: of its line and of its draws, the first byte and how many, and a
    checksum of the draws. Numbers alone, so that many rows take little memory.
    """

    def __init__(self, count: int) -> None:
        self._numbers = [array("q", [NOWHERE]) * count for _ in range(5)]
        self.statuses = bytearray(count)
        self.count = count

    def __contains__(self, number: int) -> bool:
        return self._numbers[0][number] != NOWHERE

    def __getitem__(self, number: int) -> tuple[int, ...]:
        return tuple(column[number] for column in self._numbers)

    def put(self, number: int, place: Sequence[int], verdict: Status) -> None:
        """Where a row stands from now on."""
        for column, value in zip(self._numbers, place, strict=True):
            column[number] = value
        self.statuses[number] = STATUSES.index(verdict)

    def forget(self, number: int) -> None:
        """A row is to be done again."""
        self._numbers[0][number] = NOWHERE


class _Files:
    """Two open files, until nobody holds them."""

    def __init__(self, lines: BinaryIO, draws: BinaryIO) -> None:
        self.lines, self.draws = lines, draws
        for file in (lines, draws):
            weakref.finalize(self, file.close)


class Keeper:
    """Keeps rows of a run in a folder, each as soon as it is there."""

    def __init__(self, folder: Path, count: int, *, begin: bool) -> None:
        """count: rows of the run. begin: with nothing; else what is there is gone on with.

        Raises LmpplError where it is damaged, and OSError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.places = folder, Places(count)
        self.cost: dict[str, float] = {}
        self.seconds = 0.0  # that the run had taken when the last row was kept
        lines, draws = (0, 0) if begin else self._known()
        self._files = _Files(to_go_on(folder / ROWS, lines), to_go_on(folder / DRAWS, draws))
        self._ends = [lines, draws]

    def _known(self) -> tuple[int, int]:
        """Take note of the rows that are there. Where whole lines end, and the draws of these."""
        ends = (0, 0)
        try:
            most = (self.folder / DRAWS).stat().st_size
            for start, text in whole_lines(self.folder / ROWS):
                entry = json.loads(text)
                draws, size, checksum = entry["draws"]
                if draws + size > most:  # the system has lost them when it went down
                    break
                end = start + len(sealed_line(text.decode()))
                ends = end, draws + size
                place = start, end - start, draws, size, checksum
                self.places.put(entry["row"], place, entry["verdict"])
                self._pay(entry["cost"], entry["seconds"])
        except FileNotFoundError:
            return 0, 0
        except (BrokenLine, ValueError, KeyError, TypeError, IndexError) as reason:
            raise LmpplError(run_findings.run_damaged(self.folder, f"{reason!s:.160}")) from None
        return ends

    def _pay(self, cost: Mapping[str, float], seconds: float) -> None:
        for name, amount in cost.items():
            self.cost[name] = self.cost.get(name, 0) + amount
        self.seconds = max(self.seconds, seconds)

    def add(self, row: WrittenRow, seconds: float) -> None:
        """Keep a row. seconds: that the run has taken until now. Raises OSError."""
        draws = row.draws.encode()
        place = [self._ends[1], len(draws), _checksum(draws)]
        about = {"row": row.number, "verdict": row.verdict, "seconds": seconds, "draws": place}
        head = json.dumps({**about, "cost": dict(row.cost)})
        line = sealed_line(f'{head[:-1]}, "document": {row.document}}}')
        for file, raw in ((self._files.draws, draws), (self._files.lines, line)):
            file.write(raw)
            file.flush()
        self.places.put(row.number, (self._ends[0], len(line), *place), row.verdict)
        self._ends = [self._ends[0] + len(line), self._ends[1] + len(draws)]
        self._pay(row.cost, seconds)

    def rows(self, count: int, engine: str) -> KeptRows:
        """The first rows, so many, which are all there."""
        return KeptRows(self._files, self.places, range(count), engine, self.folder)


class KeptRows(Sequence[RowPosterior]):
    """Rows on disk, each read when it is asked for, as long as this is held."""

    def __init__(
        self,
        files: _Files,
        places: Places,
        numbers: range,
        engine: str,
        folder: Path,
    ) -> None:
        self._files, self._places = files, places
        self._numbers, self._engine, self._folder = numbers, engine, folder

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> RowPosterior: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RowPosterior]: ...
    def __getitem__(self, index: int | slice) -> RowPosterior | Sequence[RowPosterior]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        number = self._numbers[index]
        return _read(self._document(number), self._drawn(number).decode(), self._engine)

    @property
    def verdicts(self) -> list[Status]:
        """One a row."""
        return [STATUSES[self._places.statuses[number]] for number in self._numbers]

    def documents(self) -> Iterator[Document]:
        """Of every row, as `row_document` has it. Raises LmpplError."""
        return (self._document(number) for number in self._numbers)

    def drawn(self) -> Iterable[str]:
        """The lines of every row's draws."""
        return (self._drawn(number).decode() for number in self._numbers)

    def _document(self, number: int) -> Document:
        start, size, *_ = self._places[number]
        if (text := opened_line(os.pread(self._files.lines.fileno(), size, start))) is None:
            raise self._damaged(f"results of row {number + 1} in `{self._folder / ROWS}` are")
        found: dict[str, Any] = json.loads(text)["document"]
        return found

    def _drawn(self, number: int) -> bytes:
        *_, start, size, checksum = self._places[number]
        raw = os.pread(self._files.draws.fileno(), size, start)
        if _checksum(raw) != checksum:
            raise self._damaged(f"draws of row {number + 1} in `{self._folder / DRAWS}` are")
        return raw

    def _damaged(self, what: str) -> LmpplError:
        return LmpplError(
            run_findings.run_damaged(self._folder, f"{what} not as they were written")
        )


def _checksum(raw: bytes) -> int:
    """Of some bytes, as a number of 60 bits."""
    return int(hashlib.sha256(raw).hexdigest()[:15], 16)
