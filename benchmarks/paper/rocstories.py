"""Stories in the format of ROCStories, as rows for infilling: sentences 1 to 3, the fourth to be found, the fifth.

    python benchmarks/paper/rocstories.py stories.csv stories.jsonl

reads `storyid,storytitle,sentence1,…,sentence5` and writes `{"X": …, "Z": …, "Y": …}`, which infilling.py takes with
--data. The program ends a text at its first full stop, so stories whose fourth sentence has none at its end, or
another one before, are left out; how many those are is said.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SENTENCES = [f"sentence{number}" for number in range(1, 6)]


def read(path: Path) -> tuple[list[dict[str, str]], int]:
    """Rows of a file, and how many of its stories are left out. Raises ValueError where a sentence is missing."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in SENTENCES if name not in (reader.fieldnames or [])]:
            raise ValueError(f"{path} has no column {', '.join(missing)}")
        stories = list(reader)
    rows = list(_rows(stories))
    return rows, len(stories) - len(rows)


def _rows(stories: Iterable[Mapping[str, str | None]]) -> Iterator[dict[str, str]]:
    for number, story in enumerate(stories, 1):
        first, second, third, fourth, fifth = ((story[name] or "").strip() for name in SENTENCES)
        if not all((first, second, third, fourth, fifth)):
            raise ValueError(f"story {number} has fewer than five sentences")
        if fourth.find(".") == len(fourth) - 1:
            yield {"X": f"{first} {second} {third}", "Z": f" {fourth}", "Y": f" {fifth}"}


def main() -> None:
    """Convert one file."""
    source, target = map(Path, sys.argv[1:])
    rows, left_out = read(source)
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} stories in {target}; {left_out} left out, for the full stop of their fourth sentence")


if __name__ == "__main__":
    main()
