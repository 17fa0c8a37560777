"""Run folders: written whole or not at all, read back without a model.

`run.json` holds everything but the draws, which are in `draws.jsonl`, one a line; and its own
checksum and that of the draws, so that a file that was cut, swapped or changed is an error. A
folder is written beside its place and renamed, so that a kill at any moment leaves the last
complete version. Checks are read as they were saved; a run saved without them is checked anew, but
for limits of tokens, which only a bound program knows.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lmppl.diagnosis import Draw
from lmppl.errors import LmpplError, error, first_line
from lmppl.findings import run as run_findings
from lmppl.posterior.kept_rows import KeptRows, lines_of
from lmppl.posterior.reading import draw_of, row_of
from lmppl.posterior.result import Interruption, Result, finite, row_document
from lmppl.posterior.shape import require_run
from lmppl.shapes import Document, Misfit
from lmppl.storage import (
    CHECKSUM,
    LEARNED,
    UNFINISHED,
    damage,
    is_broken,
    listed,
    of_streamed,
    readable,
    replacing,
)

LIBRARIES = ("torch", "transformers", "peft", "pyro-ppl", "numpy", "lark")
FORMAT = 1


def save(posterior: Result, folder: str | Path) -> None:
    """Write a run folder, in place of an earlier run's. Raises LmpplError."""
    with replacing(folder) as (partial, final):
        with (partial / "draws.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(_drawn(posterior))
        about = {
            "format": FORMAT,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
        for name in (*LEARNED, *((UNFINISHED,) if posterior.interrupted else ())):
            _link(final / name, partial / name)
        files = listed(partial, ("draws.jsonl",))
        document = finite({**about, "files": files, **posterior.about()})
        if isinstance(rows := posterior.rows, KeptRows):
            _write_run(partial / "run.json", document, rows.documents)
        else:
            documents = [row_document(row) for row in rows]
            _write_run(partial / "run.json", document, lambda: documents)


def draw_lines(posterior: Result) -> Iterator[str]:
    """Every draw of a run as a line of JSON, with the number of its row."""
    for number, row in enumerate(posterior.rows):
        yield from lines_of(number, row)


def _drawn(posterior: Result) -> Iterator[str]:
    """All draws' lines, each with its end."""
    if isinstance(posterior.rows, KeptRows):
        yield from posterior.rows.drawn()
    else:
        yield from (f"{line}\n" for line in draw_lines(posterior))


def _write_run(
    path: Path, document: dict[str, Any], rows: Callable[[], Iterable[dict[str, Any]]]
) -> None:
    """Write `run.json` row by row: of many, there is one at a time. rows: their documents, the same
    ones whenever they are asked for.
    """
    whole = {CHECKSUM: of_streamed(document, "rows", rows()), **document}
    text = json.dumps(whole, ensure_ascii=False, indent=1)
    head, _, tail = text.partition('\n "rows": []')  # within texts, no line break stands as it is
    with path.open("w", encoding="utf-8") as file:
        file.write(f'{head}\n "rows": [')
        parted, end = "\n  ", ""
        for row in rows():
            lines = json.dumps(row, ensure_ascii=False, indent=1).split("\n")
            file.write(parted + "\n  ".join(lines))
            parted, end = ",\n  ", "\n "
        file.write(f"{end}]{tail}")


def read(folder: str | Path) -> Result:
    """The posterior of a run folder; draws that are impossible have density -inf again. Raises
    LmpplError.
    """
    path = readable(folder)
    try:
        document = read_whole(path)
        draws = _read_draws(path / "draws.jsonl")
        require_run(document, draws)
        return _posterior(document, draws)
    except OSError as reason:
        message = f"`{path}` is no run folder: {Path(str(reason.filename)).name}: {reason.strerror}"
        raise LmpplError(
            error("no-run", message, help="give a folder that `lmppl run --out` has written")
        ) from None
    except (Unreadable, Misfit) as reason:
        raise LmpplError(run_findings.run_damaged(path, f"{reason!s:.160}")) from None
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as reason:
        raise LmpplError(run_findings.run_damaged(path, f"{reason!r:.120}")) from None


def read_whole(folder: Path) -> dict[str, Any]:
    """The document of a run folder whose files are as they were written. Raises LmpplError,
    OSError, ValueError.
    """
    document = read_document(folder / "run.json")
    require_known(document, folder)
    if is_broken(document):
        raise LmpplError(
            run_findings.run_damaged(
                folder, f"`{folder / 'run.json'}` is not the file that was written"
            )
        )
    if problem := damage(folder, document.get("files")):
        raise LmpplError(run_findings.run_damaged(folder, problem))
    return document


def require_whole(folder: Path) -> None:
    """Raise LmpplError where a run folder's files are not as they were written."""
    try:
        read_whole(folder)
    except (OSError, ValueError) as reason:
        raise LmpplError(run_findings.run_damaged(folder, str(reason))) from None


class Unreadable(ValueError):
    """A file that holds something else than JSON, and is named."""


def read_document(path: Path) -> Document:
    """A JSON object of a file. Raises OSError, and Unreadable where there is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as reason:
        raise Unreadable(f"`{path}` is no JSON: {first_line(reason)}") from None
    if not isinstance(document, dict):
        raise Unreadable(f"`{path}` holds no JSON object")
    return document


def _read_draws(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of draws. Raises OSError, and Unreadable where one is no JSON."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may hold other line breaks
        return [json.loads(line) for line in lines if line]
    except (ValueError, RecursionError) as reason:
        raise Unreadable(f"`{path}` is no JSON: {first_line(reason)}") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def require_known(document: Document, path: Path, latest: int = FORMAT) -> None:
    """Raise where what was written into a folder has a later format than is known here."""
    if document.get("format", latest) > latest:
        message = (
            f"`{path}` was written by a newer lmppl (format {document['format']}; this one "
            f"reads {latest})"
        )
        raise LmpplError(error("newer-format", message, help="update lmppl to read it"))


def _posterior(document: dict[str, Any], draws: list[dict[str, Any]]) -> Result:
    by_row: dict[int, list[Draw]] = {}
    for draw in draws:
        by_row.setdefault(draw.pop("row"), []).append(draw_of(draw))
    rows = [
        row_of(row, by_row.get(number, []), document["engine"])
        for number, row in enumerate(document["rows"])
    ]
    names = ("program", "engine", "seed", "models", "options")
    cut = None
    if document.get("interrupted"):
        cut = Interruption(document["reason"], document["rows_done"], document["rows_asked"])
    named = {name: document[name] for name in names}
    return Result(
        **named,
        rows=rows,
        cost=document["cost"],
        interrupted=cut,
        made_from=document.get("made_from", {}),
    )


def _link(old: Path, new: Path) -> None:
    """The same file, or folder of files, by another name: no bytes are copied where the disk allows
    that.
    """
    if old.is_dir():
        shutil.copytree(old, new, copy_function=_link_file)
    elif old.is_file():
        _link_file(str(old), str(new))


def _link_file(old: str, new: str) -> None:
    try:
        os.link(old, new)
    except OSError:
        shutil.copy2(old, new)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises OSError."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


def versions() -> dict[str, str]:
    """Of Python and the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
