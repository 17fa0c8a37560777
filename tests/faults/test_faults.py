"""A few faults of every kind; `make faults` does hundreds."""

import json
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import learning
import pytest

from faults import damage, full, kills, sweep, writers
from faults.commands import COMMANDS, Stage, content, differing, staged, unclean
from faults.operations import Fault, logged
from lmppl.storage.checksums import sealed


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """The stage of a command, made once."""
    work, made = tmp_path_factory.mktemp("faults"), {}

    def of(name, seed=0):
        if (name, seed) not in made:
            made[name, seed] = staged(work / f"{name}-{seed}", name, seed)
        return made[name, seed]

    return of


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_killed_and_begun_again_is_as_if_left_alone(stage, name):
    soon = replace(stage(name), seconds=1.0)  # well before its end
    tally = kills.at_random(soon, random.Random(name), most=2)
    assert (tally.kills, tally.wrong) == (2, [])


# --- doubles, and what they do to a process -------------------------------------------------------

WRITTEN = ["mkdir kept", "create kept/a", "write kept/a", "rest kept/a", "rename kept/a", "remove kept/b"]


def writing(folder, fault):
    """What a process does: six operations, as the names above have them."""
    os.chdir(folder)
    fault()
    Path("kept").mkdir()
    Path("kept/a").write_text("whole")
    os.rename("kept/a", "kept/b")
    Path("kept/b").unlink()


def left(folder, fault):
    """Exit code of the process above, and the files that it leaves with what is in them. It is forked from here: one
    that begins anew brings torch first.
    """
    process = multiprocessing.get_context("fork").Process(target=partial(writing, folder, fault))
    process.start()
    process.join(60)
    return process.exitcode, {path.name: path.read_text() for path in (folder / "kept").glob("*")}


def test_a_process_is_killed_before_its_nth_file_operation(tmp_path):
    assert left(tmp_path, Fault("none")) == (0, {})
    assert logged(tmp_path) == WRITTEN
    expected = {1: None, 2: {}, 3: {"a": ""}, 4: {"a": "wh"}, 5: {"a": "whole"}, 6: {"b": "whole"}}
    for at, files in expected.items():
        folder = tmp_path / str(at)
        folder.mkdir()
        assert left(folder, Fault("kill", at)) == (-signal.SIGKILL, files or {})
        assert (folder / "kept").exists() == (files is not None)
        assert logged(folder) == WRITTEN[:at]


def test_a_disk_is_full_from_the_nth_file_operation_on(tmp_path):
    assert left(tmp_path, Fault("full", 4)) == (1, {"a": "wh"})
    again = tmp_path / "again"
    again.mkdir()
    assert left(again, Fault("full", 5)) == (0, {})  # to rename and to remove takes no room


# --- what is seen ---------------------------------------------------------------------------------


def test_what_differs_is_seen(tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "draws.jsonl").write_text("1")
    (folder / "run.json").write_text('{"rows": [{"seed": 1}], "cost": {"seconds": 2}}')
    whole = content(folder)
    (folder / "run.json").write_text('{"rows": [{"seed": 1}], "cost": {"seconds": 3}}')
    stage = Stage(tmp_path, "run", (), folder, whole, 1.0)
    assert not stage.differing()
    (folder / "draws.jsonl").write_text("2")
    (folder / "run.json").write_text('{"rows": [{"seed": 2}]}')
    (tmp_path / "kept.partial").mkdir()
    assert stage.differing() == ["draws.jsonl", "run.json rows 0 seed", "left behind: kept.partial"]
    (folder / "run.json").write_text(str(sealed({"rows": [{"seed": 1}]})).replace("'", '"').replace("1}", "3}"))
    assert content(folder)["run.json"] == "damaged"
    assert differing(content(folder), whole) == ["draws.jsonl", "run.json"]
    assert unclean("error[internal]: this is a bug in lmppl")
    assert not unclean("error[broken-run]: the run is damaged")


def test_the_last_checkpoint_counts_and_those_that_both_have(tmp_path):
    def checkpoints(folder, **steps):
        for name, text in steps.items():
            (folder / "kept" / "training" / name.replace("_", "-")).mkdir(parents=True)
            (folder / "kept" / "training" / name.replace("_", "-") / "seeds.jsonl").write_text(text)
        return folder / "kept"

    whole = content(checkpoints(tmp_path / "whole", step_000002="2", step_000004="4"))
    for name, steps, expected in (
        ("between", {"step_000003": "3", "step_000004": "4"}, []),
        ("both", {"step_000002": "other", "step_000004": "4"}, ["training/step-000002/seeds.jsonl"]),
        ("last", {"step_000002": "2", "step_000004": "other"}, ["training/step-000004/seeds.jsonl"]),
        ("later", {"step_000004": "4", "step_000005": "5"}, ["training/step-000005/seeds.jsonl"]),
    ):
        folder = checkpoints(tmp_path / name, **steps)
        assert Stage(tmp_path / name, "run", (), folder, whole, 1.0).differing() == expected


def test_every_way_damages_a_file(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "f.json").write_text('{"a": 25}')
    for way in damage.WAYS:
        path = tmp_path / "f.json"
        path.write_text('{"a": 1}\n{"b": 2}\n')
        way(path, random.Random(0), other)
        assert not path.exists() or path.read_text(errors="replace") != '{"a": 1}\n{"b": 2}\n'
    assert path.read_text() == '{"a": 25}'  # the last is another's file


def test_the_table_counts_cases_and_lines_are_taken_up(tmp_path):
    lines = tmp_path / "faults.jsonl"
    case = {"kind": "full", "command": "em", "kills": 1, "differences": [], "unclean": [], "date": "2026-01-01"}
    rows = [{**case, "case": 1}, {**case, "case": 2, "unclean": ["x"]}, {**case, "case": 2}, {**case, "case": 3}]
    rows[-1]["differences"] = ["a", "b"]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = sweep.read(lines)
    assert len(known) == 3
    assert "| full | `em` | 3 | 3 | 1 | 0 |" in sweep.table(known.values(), "words")


# --- one of each kind -----------------------------------------------------------------------------


def at_share(stage, share):
    """The number of a file operation so far through a command's."""
    process = learning.start(stage.folder, *stage.arguments, before=Fault("none"))
    process.join(kills.LONGEST)
    stage.clear()
    return max(1, int(share * len(logged(stage.folder))))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_before_a_file_operation(stage, name):
    point = at_share(stage(name), 0.8)
    tally = kills.at_operations(stage(name), [point])
    assert (tally.kills, tally.wrong) == (1, [])


@pytest.mark.slow
@pytest.mark.faults
def test_a_run_is_whole_until_another_takes_its_place(stage):
    over = stage("run", 1)
    tally = kills.at_operations(stage("run"), [at_share(stage("run"), 1)], over)  # the last: its rename is done
    assert (tally.kills, tally.wrong) == (1, [])


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_a_finding_and_no_loss(stage, name):
    assert not full.at_operation(stage(name), at_share(stage(name), 0.7)).wrong


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_a_damaged_file_is_refused_or_changes_nothing(stage, name):
    known = {}
    for case in range(3):
        assert not damage.befallen(stage(name), stage(name, 1), random.Random(f"{name} {case}"), known).wrong


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_of_two_writers_one_wins(stage, name):
    assert not writers.at_once(stage(name), random.Random(name)).wrong
