"""Mutated data files: whatever they hold, there are rows or findings, and findings can be shown.

LMPPL_MUTATIONS=5000 runs more of them.
"""

import os
import random

import pytest

import lmppl
from lmppl.compile import as_records
from lmppl.errors import LmpplError
from lmppl.errors.rendering import render_full, to_document

COUNT = int(os.environ.get("LMPPL_MUTATIONS", "150"))  # a form
PROGRAM = 'lm LM = "tiny"\ngiven X, Y\nZ ~ LM("{X}{Y}") in ["a", "b"]\nconstrain X != Z\n'
SEEDS = {
    "d.jsonl": b'{"X": 1e3, "Y": "b\\u00e9"}\n{"X": "a", "Y": 2, "t": [{"a": true}]}\n'
    b'{"X": -0.5, "Y": "", "Z": "a", "V": NaN}\n',
    "d.csv": b'X,Y,Z\n1,"a\nb",a\n"x, y",,b\n3.14,c,\n',
    "d.tsv": b"X\tY\na\tb\n1\t2\n",
}
PIECES = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b'"', b"\\", b"\\ud800", b"{", b"}", b"[", b"]", b",", b";", b"\t", b"\r", b"\n",
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b'"X": ', b"true", b"\xe2\x80\xa8", b"\xc2\x85", b"X",
)  # fmt: skip


def mutated(seed: bytes, chance: random.Random) -> bytes:
    data = seed
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(data))
        end = min(len(data), start + chance.choice((0, 0, 1, 5, 40)))
        data = data[:start] + chance.choice((b"", chance.choice(PIECES), data[end : end + 20])) + data[end:]
    return data


def findings_or_rows(program, path, settings):
    """A list of rows, or a tuple of findings; any other exception is a fault."""
    try:
        return program.configure(settings, as_records(path))[1]
    except LmpplError as reason:
        return reason.diagnostics


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files_give_rows_or_findings(name, tmp_path):
    program, path, chance = lmppl.compile(PROGRAM), tmp_path / name, random.Random(name)
    outcomes = {"rows": 0, "findings": 0}
    for _ in range(COUNT):
        path.write_bytes(mutated(SEEDS[name], chance))
        found = findings_or_rows(program, path, {"Y": "b"} if chance.random() < 0.5 else {})
        outcomes["rows" if isinstance(found, list) else "findings"] += 1
        for row in found if isinstance(found, list) else []:
            assert row.givens["X"].encode().decode() == row.givens["X"]
        for finding in [] if isinstance(found, list) else found[:5]:
            assert render_full(finding).encode()
            assert to_document(finding)["code"]
    assert min(outcomes.values()) > 0, outcomes
