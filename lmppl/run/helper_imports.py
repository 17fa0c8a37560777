"""Which files a Python helper imports from its program's folder, read from its text: nothing is
run.

Names are looked up in that folder and beside the file that imports them, wherever Python finds them
in the end. A module whose name a helper computes is not seen.
"""

from __future__ import annotations

import ast
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path


def imported(path: Path, folder: Path) -> list[Path]:
    """Files in the folder that a Python file imports, itself or through other such files. Raises
    OSError.
    """
    found: list[Path] = []
    folder, path = Path(os.path.abspath(folder)), Path(os.path.abspath(path))
    waiting = [path]
    while waiting:
        for other in _named_by(waiting.pop(), folder):
            if other not in (path, *found):
                found.append(other)
                waiting.append(other)
    return found


def _named_by(path: Path, folder: Path) -> Iterator[Path]:
    """Files in the folder that one file names in its imports, those within functions included."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in its texts
            nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # Python says so where it is run
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name.split("."), (folder, path.parent), folder)
        elif isinstance(node, ast.ImportFrom):
            start = Path(path.parent, *[os.pardir] * (node.level - 1))
            places = (start,) if node.level else (folder, path.parent)
            module = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files([*module, alias.name], places, folder)


def _files(parts: Sequence[str], places: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Files of a module and of the packages that it lies in, where one of the places has it within
    the folder.
    """
    for place in places:
        for count in range(len(parts) + 1):
            module = place.joinpath(*parts[:count])
            for path in (module.with_name(f"{module.name}.py"), module / "__init__.py"):
                plain = Path(os.path.normpath(path))
                if count and plain.is_relative_to(folder) and plain.is_file():
                    yield plain
