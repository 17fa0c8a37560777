"""A few kills of every command; `make faults` does hundreds."""

import random

import pytest
import tiny
from faults import kills


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", kills.COMMANDS)
def test_what_is_killed_and_begun_again_is_as_if_left_alone(tmp_path, name):
    folder = kills.furnished(tmp_path / "work", tiny.save(tmp_path / "model", seed=6))
    whole, seconds = kills.alone(folder, name)
    tally = kills.kill_until_done(folder, name, whole, seconds, random.Random(name), most=3)
    assert not tally.differences
    assert not tally.wrong_codes


def test_what_differs_is_seen(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "draws.jsonl").write_text("1")
    (folder / "run.json").write_text('{"seed": 1, "cost": {"seconds": 2}}')
    whole = kills.content(folder)
    (folder / "run.json").write_text('{"seed": 1, "cost": {"seconds": 3}}')
    assert not kills.differing(kills.content(folder), whole)
    (folder / "draws.jsonl").write_text("2")
    (folder / "run.json").write_text('{"seed": 2}')
    assert kills.differing(kills.content(folder), whole) == ["draws.jsonl", "run.json"]
