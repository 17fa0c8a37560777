"""Nothing that was drawn is lost: places are tried first, and what ends a run early leaves what it has."""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import learning
import pytest
from test_cli import failure, here, lmppl, write  # noqa: F401

import lmppl as language
from lmppl.errors import LmpplError
from lmppl.posterior.posterior import load
from lmppl.storage import folders

NO_MODEL = "./no-such-model"  # a run that comes as far as loading says so


def spoiling(folder, body):
    """A helper beside the program."""
    (folder / "helper.py").write_text(f"import os, signal, shutil\nfrom pathlib import Path\n{body}", encoding="utf-8")


# --- the place is tried before anything is loaded -------------------------------------------------


def pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (pipe, "folder-in-use", "is a pipe"),
        (a_socket, "folder-in-use", "is a socket"),
        (lambda path: path.symlink_to("/dev/null"), "folder-in-use", "is a device"),
        (lambda path: path.write_text("mine"), "folder-in-use", "is a file"),
        (lambda path: path.symlink_to(path), "unwritable-folder", ""),
        (lambda path: (path.mkdir(), (path / "mine.txt").write_text("")), "folder-in-use", "no run folder"),
    ],
    ids=["pipe", "socket", "device", "file", "link to itself", "another's"],
)
def test_what_is_no_place_for_a_run_is_said_first(here, monkeypatch, make, code, says):  # noqa: F811
    monkeypatch.chdir(here)  # names of sockets are short
    write(here, 'Z ~ LM(" a") max 3 tokens\n', lm=NO_MODEL)
    make(Path("out"))
    before = sorted(path.name for path in here.iterdir())
    message = failure(here, "run", "p.lm", "--out", "out")
    assert code in message
    assert says in message
    assert sorted(path.name for path in here.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "code"),
    [("", "no-folder"), ("  ", "no-folder"), ("p.lm/out", "unwritable-folder"), ("x" * 250, "unwritable-folder"),
     ("/proc/none/out", "unwritable-folder"), ("/", "unwritable-folder")],
)  # fmt: skip
def test_names_that_can_be_no_folder_are_said_first(here, name, code):  # noqa: F811
    write(here, 'Z ~ LM(" a") max 3 tokens\n', lm=NO_MODEL)
    message = failure(here, "run", "p.lm", "--out", name)
    assert code in message or (name == "/" and "folder-in-use" in message)


def test_a_name_that_no_system_takes_is_a_finding():
    with pytest.raises(LmpplError, match="cannot be written"):
        folders.writing("a\0b").__enter__()


def test_trying_a_place_leaves_nothing_there(tmp_path):
    with folders.writing(tmp_path / "a" / "b" / "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_links_are_followed(here):  # noqa: F811
    (here / "elsewhere").mkdir()
    (here / "link").symlink_to("elsewhere/run")
    arguments = ("run", "p.lm", "--set", "X= a", "--num-samples", "4", "--engine", "importance", "--out", "link")
    lmppl(here, *arguments)
    assert (here / "link").is_symlink()
    assert (here / "elsewhere" / "run" / "run.json").is_file()
    assert "holds another run" in failure(here, *arguments)
    lmppl(here, *arguments, "--seed", "3", "--force")
    assert (here / "link").is_symlink()
    assert load(here / "elsewhere" / "run").seed == 3
    assert sorted(path.name for path in (here / "elsewhere").iterdir()) == ["run"]


def test_another_run_is_replaced_only_by_force(here):  # noqa: F811
    arguments = ("run", "p.lm", "--set", "X= a", "--num-samples", "4", "--engine", "importance", "--out", "run")
    lmppl(here, *arguments)
    write(here, 'Z ~ LM(" a") max 3 tokens\n', lm=NO_MODEL)
    message = failure(here, "run", "p.lm", "--out", "run", "--seed", "1")
    assert "error[folder-in-use]" in message
    assert "--force" in message
    assert load(here / "run").seed == 0
    failure(here, "run", "p.lm", "--out", "run", "--seed", "1", "--force")  # and even then only in the end
    assert load(here / "run").seed == 0


def test_training_that_was_cut_short_is_not_begun_anew_by_mistake(here):  # noqa: F811
    (here / "fit" / "training").mkdir(parents=True)
    message = failure(here, "run", "p.lm", "--set", "X= a", "--engine", "gflownet", "--out", "fit")
    assert "--resume" in message
    assert "--force" in message


# --- one writer at a time -------------------------------------------------------------------------

RUN = ("run", "p.lm", "--set", "X= a", "--num-samples", "4", "--engine", "importance", "--out", "run")


def test_the_second_writer_is_told_at_once_and_changes_nothing(here):  # noqa: F811
    with folders.writing(here / "run"):
        assert "another run writes into" in failure(here, *RUN)
        assert "folder-in-use" in failure(here, *RUN, "--force")
        with pytest.raises(LmpplError, match="another run"):
            language.compile(here / "p.lm").infer(X=" a", engine="gflownet", folder=here / "run")
    assert sorted(path.name for path in here.iterdir()) == ["model", "p.lm"]
    lmppl(here, *RUN)
    assert not list(here.glob(".*.lock"))


@pytest.mark.slow
def test_a_killed_writer_holds_nothing(here):  # noqa: F811
    process = learning.start(here, *RUN, "--num-samples", "100000")
    learning.wait_for(here / ".run.lock")
    process.kill()
    process.join()
    lmppl(here, *RUN)
    assert sorted(path.name for path in here.iterdir() if path.suffix != ".txt") == ["model", "p.lm", "run"]


def test_leftovers_of_killed_writers_are_put_right(here):  # noqa: F811
    lmppl(here, *RUN)
    for left in ("run.partial", "run.earlier"):
        (here / left).mkdir()
    lmppl(here, *RUN, "--force")
    assert not {"run.partial", "run.earlier"} & {path.name for path in here.iterdir()}


def test_a_run_that_a_kill_left_moved_aside_is_read_but_not_under_a_writer(here, monkeypatch):  # noqa: F811
    monkeypatch.setattr(folders, "LOOKS", 2)
    lmppl(here, *RUN)
    (here / "run").rename(here / "run.earlier")
    with folders.alone(here / "run", "run"), pytest.raises(LmpplError, match="no run folder"):
        load(here / "run")
    assert load(here / "run").seed == 0
    assert not (here / "run.earlier").exists()


def test_of_processes_that_train_together_only_the_first_holds_the_folder(here, monkeypatch):  # noqa: F811
    with folders.writing(here / "run"):
        monkeypatch.setenv("RANK", "1")
        with folders.writing(here / "run") as place:
            assert place == here / "run"


# --- training that goes on ------------------------------------------------------------------------

TRAINING = ("run", "p.lm", "--set", "X= a", "--engine", "gflownet", "--num-samples", "4", "-o", "steps=6",
            "-o", "save_every=2", "-o", "draws=4", "-o", "rank=2")  # fmt: skip


def work(folder):
    cost = json.loads((folder / "run.json").read_text(encoding="utf-8"))["cost"]
    return {name: value for name, value in cost.items() if name != "seconds"}, cost["seconds"]


@pytest.mark.slow
def test_the_cost_of_training_adds_up_over_runs(here):  # noqa: F811
    stopping = 'def stop(text):\n    if Path("stop").exists():\n        Path("stop").unlink()\n'
    spoiling(here, stopping + "        os.kill(os.getpid(), signal.SIGINT)\n    return 0.0\n")
    write(here, 'given X\nuse stop from "helper.py"\nZ ~ LM(X) max 3 tokens\nfactor stop(Z)\n')
    lmppl(here, *TRAINING, "--out", "whole")
    (here / "stop").touch()
    assert "go on with --resume" in lmppl(here, *TRAINING, "--out", "cut", code=130).stderr
    (step,) = folders.checkpoints(here / "cut")
    begun = json.loads((step / "state.json").read_text(encoding="utf-8"))["cost"]
    lmppl(here, *TRAINING, "--resume", "cut")
    cut, whole = work(here / "cut"), work(here / "whole")
    assert cut[0]["tokens_decoded"] == whole[0]["tokens_decoded"]
    assert 0 <= cut[0]["tokens_scored"] - whole[0]["tokens_scored"] <= 2  # the prompt, after one more checkpoint
    assert cut[1] > begun["seconds"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("left", [[], ["training", "training/step-000002.partial"]], ids=str)
def test_training_that_has_kept_nothing_begins_anew_with_a_note(here, left):  # noqa: F811
    for name in left:
        (here / "fit" / name).mkdir(parents=True)
    assert "[begun-anew]" in lmppl(here, *TRAINING, "--resume", "fit").stderr
    assert [path.name for path in folders.checkpoints(here / "fit")] == ["step-000004", "step-000006"]
    assert "begun-anew" not in lmppl(here, *TRAINING, "--resume", "fit").stderr


def test_a_run_that_has_learned_nothing_is_not_gone_on_with(here):  # noqa: F811
    lmppl(here, *RUN)
    assert "nothing-to-resume" in failure(here, *TRAINING, "--resume", "run")


# --- whatever fails at the end, the draws are printed ---------------------------------------------


def draws_in(text):
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [line for line in lines if "values" in line]


def test_draws_are_printed_where_they_cannot_be_written(here):  # noqa: F811
    """The place was good when it was tried, and is no more when the run ends."""
    spoiling(
        here, 'def spoil(text):\n    shutil.rmtree("sub", ignore_errors=True)\n'
        '    Path("sub").exists() or Path("sub").write_text("")\n    return 0.0\n',
    )  # fmt: skip
    write(here, 'use spoil from "helper.py"\nZ ~ LM(" a") max 3 tokens\nfactor spoil(Z)\n')
    (here / "sub").mkdir()
    asked = ("run", "p.lm", "--engine", "importance", "--num-samples", "5", "--out", "sub/run")
    done = lmppl(here, *asked, code=2)
    assert "error[unwritable-folder]" in done.stderr
    assert "log evidence" in done.stdout
    assert len(draws_in(done.stdout)) == 20
    (here / "sub").unlink()
    done = lmppl(here, *asked, "--json", code=2)
    assert len(json.loads(done.stdout)["rows"][0]["draws"]) == 20


def test_draws_are_printed_where_they_cannot_be_shown(here, monkeypatch):  # noqa: F811
    def broken(*_):
        raise LmpplError(language.Diagnostic("error", "broken", "the table is broken"))

    monkeypatch.setattr("lmppl.report.run.show_posterior", broken)
    done = lmppl(here, "run", "p.lm", "--set", "X= a", "--engine", "importance", "--num-samples", "5", code=2)
    assert "error[broken]" in done.stderr
    assert len(draws_in(done.stdout)) == 20


def test_draws_are_printed_where_a_check_of_them_fails(here, monkeypatch):  # noqa: F811
    def broken(*_):
        raise LmpplError(language.Diagnostic("error", "broken", "the check is broken"))

    monkeypatch.setattr("lmppl.run.driver.diagnose", broken)
    asked = (
        "run",
        "p.lm",
        "--set",
        "X= a",
        "--engine",
        "importance",
        "--num-samples",
        "5",
        "--out",
        "run",
        "--json",
        "--draws",
    )
    done = lmppl(here, *asked, code=2)
    document = json.loads(done.stdout)
    assert len(document["rows"][0]["draws"]) == 20
    assert document["rows_done"] == 0
    assert "error[broken]" in done.stderr
    monkeypatch.undo()
    assert len(load(here / "run").rows[0].draws) == 20


def test_rows_before_one_that_fails_are_kept(here):  # noqa: F811
    write(here, 'given X\nZ ~ LM(X) max 3 tokens\nconstrain contains(X, "a")\n')
    (here / "d.jsonl").write_text('{"X": " a"}\n{"X": " a b"}\n{"X": " b"}\n{"X": " a"}\n')
    asked = ("run", "p.lm", "--data", "d.jsonl", "--engine", "importance", "--num-samples", "5", "--out", "run")
    done = lmppl(here, *asked, "--json", code=2)
    document = json.loads(done.stdout)
    assert "error[no-support]" in done.stderr
    assert (document["interrupted"], document["rows_done"], document["rows_asked"]) == (True, 2, 4)
    assert [row["givens"]["X"] for row in document["rows"]] == [" a", " a b"]
    kept = load(here / "run")
    assert kept.interrupted is not None
    assert str(kept.interrupted) == "cut short: 2 of 4 rows done"
    assert "cut short: 2 of 4 rows done" in lmppl(here, "summary", "run").stderr
    program = language.compile(here / "p.lm")
    with pytest.raises(LmpplError) as caught:
        program.infer("importance", data=here / "d.jsonl", num_samples=5)
    assert caught.value.posterior is not None
    assert len(caught.value.posterior.rows) == 2


# --- Ctrl-C ---------------------------------------------------------------------------------------

STOPPING = """
calls = 0

def stop(text):
    global calls
    calls += 1
    if calls == {at}:
        os.kill(os.getpid(), signal.SIGINT)
    return 0.0
"""
BODY = 'use stop from "helper.py"\nZ ~ LM(" a") max 3 tokens\nfactor stop(Z)\n'
ENGINES = {
    "importance": {},
    "rejection": {"options": {"bound": 0.0}},
    "mcmc": {"num_warmup": 5, "options": {"early_rejection": False}},
    "smc": {},
}
QUICK = ("importance", "mcmc")  # one whose draws are told apart by weights, one that goes from draw to draw


def interrupted(folder, engine, at, **asked):
    spoiling(folder, STOPPING.format(at=at))
    return language.compile(folder / "p.lm").infer(engine, num_samples=20, batch_size=8, **asked)


@pytest.mark.parametrize(
    "engine", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in ENGINES]
)
def test_after_ctrl_c_a_row_has_the_draws_so_far_and_they_are_those_of_the_whole_run(here, engine):  # noqa: F811
    write(here, BODY)
    asked = ENGINES[engine]
    whole = interrupted(here, engine, 10**9, **asked)
    with pytest.warns(UserWarning, match="cut short: 0 of 1 row done"):
        cut = interrupted(here, engine, 45, **asked)
    assert cut.interrupted is not None
    draws, expected = cut.rows[0].draws, whole.rows[0].draws
    assert 0 < len(draws) < len(expected)
    assert any("interrupted after" in warning for warning in cut.rows[0].warnings)
    if engine in ("importance", "mcmc", "smc"):  # a draw is where it is in the whole run
        of_whole = {(draw.chain, draw.draw): draw.values for draw in expected}
        assert all(of_whole[draw.chain, draw.draw] == draw.values for draw in draws)
    else:
        assert {draw.chain for draw in draws} == {0}
        texts = [draw.values for draw in expected]
        assert all(draw.values in texts for draw in draws)
    assert sum(cut.rows[0].weights) == pytest.approx(1)


def test_after_ctrl_c_the_command_reports_what_it_has(here):  # noqa: F811
    spoiling(here, STOPPING.format(at=100))
    write(here, f"given X\n{BODY}")
    (here / "d.jsonl").write_text('{"X": " a"}\n{"X": " b"}\n{"X": "."}\n')
    asked = ("run", "p.lm", "--data", "d.jsonl", "--engine", "importance", "--num-samples", "10", "--batch-size", "8")
    done = lmppl(here, *asked, "--out", "run", "--json", "--draws", code=130)
    document = json.loads(done.stdout)
    assert (document["interrupted"], document["reason"], document["rows_done"]) == (True, "interrupted", 2)
    assert [len(row["draws"]) for row in document["rows"]] == [40, 40, 16]
    assert "interrupted: cut short: 2 of 3 rows done" in done.stderr
    assert load(here / "run").interrupted is not None
    assert "mass" in lmppl(here, "summary", "run").stdout


def test_a_row_of_which_nothing_fair_is_known_is_left_out(here):  # noqa: F811
    """Particles on their way from the prior to the posterior are draws of neither."""
    stopping = 'def stop(given, text):\n    given == " b" and os.kill(os.getpid(), signal.SIGINT)\n    return 0.0\n'
    spoiling(here, stopping)
    write(here, 'given X\nuse stop from "helper.py"\nZ ~ LM(X) max 3 tokens\nfactor stop(X, Z)\n')
    (here / "d.jsonl").write_text('{"X": " a"}\n{"X": "."}\n{"X": " b"}\n')
    asked = ("run", "p.lm", "--data", "d.jsonl", "--engine", "annealed", "-o", "particles=8", "-o", "search=0")
    document = json.loads(lmppl(here, *asked, "--num-samples", "5", "--json", "--draws", code=130).stdout)
    assert document["rows_done"] == len(document["rows"]) == 2
    assert all(len(row["draws"]) == 20 for row in document["rows"])


def test_ctrl_c_before_the_first_draw_says_no_more_than_that(here):  # noqa: F811
    spoiling(here, STOPPING.format(at=1))
    write(here, BODY)
    done = lmppl(here, "run", "p.lm", "--engine", "mcmc", "--out", "run", code=130)
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert not (here / "run").exists()


def test_a_second_ctrl_c_ends_at_once(here, monkeypatch):  # noqa: F811
    def again(*_):
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(60)

    monkeypatch.setattr("lmppl.report.run.show_posterior", again)
    spoiling(here, STOPPING.format(at=45))
    write(here, BODY)
    done = lmppl(here, "run", "p.lm", "--engine", "importance", "--num-samples", "20", "--batch-size", "8", code=130)
    assert done.stdout == ""
