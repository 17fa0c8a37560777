"""Rows over processes, by the command: what ends one of them or all, and what is there afterwards."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny

import lmppl
from lmppl.posterior import KeptRows, load
from lmppl.run.shards import SHARD
from lmppl.storage import UNFINISHED

COUNT = 4 * SHARD
ARGUMENTS = (
    "run",
    "p.lm",
    "--data",
    "d.jsonl",
    "--engine",
    "exact",
    "--chains",
    "1",
    "--num-samples",
    "2",
    "--device",
    "cpu",
)
PROGRAM = 'lm LM = "./tiny"\ngiven X\nuse worth from "helper.py"\nZ ~ LM(" a{X}") in [" a", " b"]\nfactor worth(X)\n'
SLOWLY = "import time\ndef worth(text):\n    time.sleep(0.05)\n    return 0.5\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a model, a program and rows."""
    folder = tmp_path_factory.mktemp("home")
    tiny.save(folder / "tiny")
    (folder / "p.lm").write_text(PROGRAM)
    rows = [{"X": f"{' a' * (n % 7)}{' b' * (n // 7)}"} for n in range(COUNT)]
    (folder / "d.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "helper.py").write_text(SLOWLY)
    return folder


def command(home, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "lmppl", *ARGUMENTS, *more], cwd=home, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(process):
    """Exit code, and what was said on standard error."""
    _, said = process.communicate(timeout=300)
    return process.returncode, said


def kept(folder):
    path = folder / UNFINISHED / "rows.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def rows_of(folder):
    return json.loads((folder / "run.json").read_text())["rows"]


@pytest.fixture(scope="module")
def alone(home):
    """The run of one process."""
    assert ended(command(home, "--out", "alone"))[0] == 0
    return home / "alone"


def test_killed_twice_and_gone_on_with_it_is_the_run_of_one_process(home, alone):
    folder, before = home / "killed", 0
    for how in ("--out", "--resume"):
        process = command(home, how, "killed", "--workers", "2")
        while kept(folder) < before + 5 and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        ended(process)
        assert before < kept(folder) < COUNT
        assert not (folder / "run.json").exists()
        before = kept(folder)
    assert "--resume" in ended(command(home, "--out", "killed", "--workers", "2"))[1], "not begun anew by mistake"
    last = command(home, "--resume", "killed", "--workers", "2")
    printed, _ = last.communicate(timeout=300)
    assert last.returncode == 0
    assert f"these are the first 30 of {COUNT} rows; verdicts of all: 0 fail, 0 warn, {COUNT} pass" in printed
    assert rows_of(folder) == rows_of(alone)
    assert (folder / "draws.jsonl").read_bytes() == (alone / "draws.jsonl").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["draws.jsonl", "run.json"]
    assert not load(folder).interrupted


def in_a_worker(home, body):
    """A helper that does something where a worker is at row 40."""
    text = " a" * (40 % 7) + " b" * (40 // 7)
    (home / "helper.py").write_text(
        f"import os, signal, time\ndef worth(text):\n    if text == {text!r}:\n        {body}\n    return 0.5\n"
    )


def test_a_worker_that_is_killed_names_its_rows_and_leaves_what_is_done(home):
    in_a_worker(home, "os.kill(os.getpid(), 9)")
    code, said = ended(command(home, "--out", "lost", "--workers", "2"))
    assert code == 2
    assert "error[worker-lost]" in said
    assert "row 41 of the data" in said
    assert len(load(home / "lost").rows) == 40
    assert kept(home / "lost") >= 40


def test_ctrl_c_ends_all_workers_and_leaves_what_is_done(home):
    in_a_worker(home, "os.kill(os.getppid(), signal.SIGINT); time.sleep(60)")
    code, said = ended(command(home, "--out", "cut", "--workers", "2"))
    assert (code, "cut short" in said) == (130, True)
    found = load(home / "cut")
    assert 32 <= found.interrupted.done == len(found.rows) < COUNT
    assert kept(home / "cut") >= 32


def test_from_python_rows_are_drawn_by_processes_and_stay_on_disk(home, alone, monkeypatch):
    monkeypatch.chdir(home)
    (home / "helper.py").write_text(SLOWLY)
    sizes = {"engine": "exact", "chains": 1, "num_samples": 2, "device": "cpu"}
    stages = set()
    found = lmppl.compile("p.lm").infer(
        data="d.jsonl",
        workers=2,
        folder="python",
        progress=lambda what, *_: stages.add(what.partition(" · ")[0]),
        **sizes,
    )
    assert isinstance(found.rows, KeptRows)
    assert stages == {"loading models", "reading rows", "beginning", "rows by 2 workers", "loading ./tiny"}
    assert rows_of(home / "python") == rows_of(alone) == found.document()["rows"]
