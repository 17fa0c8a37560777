"""Mutated programs: a few hundred here, more by `python tests/mutants.py --count 100000`."""

import random

import pytest
from mutants import mutant, stages


@pytest.mark.parametrize("block", range(4))
def test_any_text_gives_findings_and_no_exception(block, tmp_path):
    kinds = set()
    for number in range(40):
        folder, raw = mutant(random.Random(f"quick {block} {number}"))
        kinds.add(stages(folder, raw, tmp_path / "scratch.lm"))
    assert {"findings", "clean"} <= kinds
