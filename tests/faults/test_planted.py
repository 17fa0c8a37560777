"""The table of planted bugs is about the code as it is; `make faults` plants them."""

from pathlib import Path

import pytest
from planted import BUGS

PACKAGE = Path(__file__).parent.parent.parent / "lmppl"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_a_planted_bug_has_one_place(bug):
    assert (PACKAGE / bug.file).read_text(encoding="utf-8").count(bug.old) == 1
    assert bug.old != bug.new


def test_there_are_many():
    assert len(BUGS) >= 60
    assert len({bug.what for bug in BUGS}) == len(BUGS)
