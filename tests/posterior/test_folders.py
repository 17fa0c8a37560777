"""Run folders that somebody else has written, checksums included: what they hold is checked before it is shown.

A few mutants here; more by `python tests/folders.py --count 10000`.
"""

import json
import random
import shutil
from pathlib import Path

import pytest
from folders import READING, make, mutant, read, run_command, seal

from lmppl.shapes import (
    Misfit,
    among,
    anything,
    either,
    fields,
    listed,
    mapped,
    maybe,
    number,
    seed,
    text,
    whole,
    within,
)
from lmppl.storage.checksums import CHECKSUM, sealed


@pytest.fixture(scope="module")
def sound(tmp_path_factory, tiny_folder):
    """A run of an exact law and one of weighted draws."""
    return make(tmp_path_factory.mktemp("sound"), tiny_folder, ("exact", "importance"))


@pytest.mark.slow
def test_sound_folders_are_read_by_every_command(sound):
    for folder in sound:
        faults, codes = read(folder, random.Random(0))
        assert faults == []
        assert codes == [1 if verb == "diagnose" and codes[3] else 0 for verb, *_ in READING], "few draws may fail"


@pytest.mark.slow
@pytest.mark.parametrize("block", range(2))
def test_mutants_give_findings_and_no_bug(sound, block, tmp_path):
    codes = []
    for place in range(12):
        chance = random.Random(f"quick {block} {place}")
        faults, found = read(mutant(chance.choice(sound), chance, tmp_path), chance, 3)
        assert faults == []
        codes += found
    assert {0, 2} <= {*codes}


def change_document(folder, *path, value):
    file = folder / "run.json"
    holder = document = json.loads(file.read_text(encoding="utf-8"))
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    file.write_text(json.dumps(document), encoding="utf-8")


WRONG = {
    "run.json.rows[0].log_evidence is 'high', not a number": ("rows", 0, "log_evidence", "high"),
    "run.json.rows is null, not a list": ("rows", None),
    "run.json.models.LM has no `identifier`": ("models", "LM", {}),
    "run.json.options.chains is -1, not a whole number from 0 on": ("options", "chains", -1),
    "run.json.rows[1].warnings[0] is 7, not a text": ("rows", 1, "warnings", [7]),
    "run.json.rows[0].diagnostics.log_evidence_interval is no interval": (
        "rows",
        0,
        "diagnostics",
        "log_evidence_interval",
        [],
    ),
    "run.json.seed is 1e+300, not a seed": ("seed", 1e300),
    "run.json.program.text is '\\ud800', not a text": ("program", "text", "\ud800"),
}


@pytest.mark.parametrize("said", WRONG)
def test_what_does_not_fit_is_said_with_its_place(sound, tmp_path, said):
    copy = Path(shutil.copytree(sound[0], tmp_path / "exact"))
    *path, value = WRONG[said]
    change_document(copy, *path, value=value)
    seal(copy)
    code, out, err = run_command(tmp_path, "summary", "exact")
    assert (code, out) == (2, "")
    assert err.startswith("error[broken-run]: the run in `exact` is damaged: ")
    assert said in err


def test_no_file_outside_the_folder_is_read(sound, tmp_path):
    copy = Path(shutil.copytree(sound[0], tmp_path / "exact"))
    document = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    del document[CHECKSUM]
    (copy / "run.json").write_text(json.dumps(sealed({**document, "files": {"../secret": {}}})), encoding="utf-8")
    code, _, err = run_command(tmp_path, "summary", "exact")
    assert (code, "`exact` lists a file that is not in it" in err) == (2, True)


def test_draws_of_one_row_have_the_same_latents(sound, tmp_path):
    copy = Path(shutil.copytree(sound[1], tmp_path / "mutant"))
    lines = (copy / "draws.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    last["factors"] = {}
    (copy / "draws.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last), ""]))
    seal(copy)
    code, _, err = run_command(tmp_path, "export", "mutant", "--to", "csv")
    assert (code, "draws.jsonl:12 has other factors than the first of its row" in err) == (2, True)


def test_a_choice_that_is_no_option_is_said(sound, tmp_path):
    copy = Path(shutil.copytree(sound[0], tmp_path / "mutant"))
    lines = [json.loads(line) for line in (copy / "draws.jsonl").read_text().splitlines()]
    lines[0]["values"]["Z"] = "/dev/zero"
    (copy / "draws.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    seal(copy)
    code, _, err = run_command(tmp_path, "export", "mutant", "--to", "arviz")
    assert (code, "a draw of `Z` is '/dev/zero', which is none of its options" in err) == (2, True)


def test_a_given_that_is_missing_is_exported_as_that(sound, tmp_path):
    copy = Path(shutil.copytree(sound[0], tmp_path / "mutant"))
    change_document(copy, "rows", 0, "givens", "X", value=None)
    seal(copy)
    code, _, err = run_command(tmp_path, "export", "mutant", "--to", "arviz")
    assert (code, "internal" in err) == (0, False), err


@pytest.mark.parametrize("command", [pytest.param(("report",), marks=pytest.mark.slow), ("export", "--to", "arviz")])
def test_what_is_odd_but_fits_is_shown(sound, tmp_path, command):
    copy = Path(shutil.copytree(sound[0], tmp_path / "mutant"))
    change_document(copy, "models", "LM", value={"identifier": "a"})
    change_document(copy, "rows", 0, "givens", value={"": "b"})
    change_document(copy, "rows", 1, "givens", value={"": "b"})
    change_document(copy, "program", "sha256", value="\0")
    seal(copy)
    code, _, err = run_command(tmp_path, command[0], "mutant", *command[1:])
    assert (code, "Traceback" in err) == (0, False), err


def test_shapes_say_the_place():
    shape = fields({"a": listed(mapped(maybe(either(whole, among("x")))))}, {"b": number})
    shape({"a": [{"k": None, "l": 3, "m": "x"}], "b": 1.5, "c": [{"any": True}]})
    for value, said in (
        ({}, "file has no `a`"),
        ({"a": {}}, "file.a is an object, not a list"),
        ({"a": [{}, {"k": "y"}]}, "file.a[1].k is 'y', not one of x"),
        ({"a": [], "b": float("inf")}, "file.b is inf, not a number"),
        ({"a": [], "b": 10**400}, "file.b is a number too large, not a number"),
        ({"a": [], "c": [["\ud800"]]}, "file.c[0][0] is '\\ud800', not a text"),
    ):
        with pytest.raises(Misfit) as caught:
            within("file", shape, value)
        assert str(caught.value) == said
    seed(2**64 - 1)
    for shape in (whole, number):
        shape(2**63 - 1)
        with pytest.raises(Misfit):  # no column of a table could hold it
            shape(2**63)
    deep = []
    for _ in range(30):
        deep = [deep]
    for check, value in ((anything, deep), (text, 3), (whole, True)):
        with pytest.raises(Misfit):
            check(value)
