"""The command under Ctrl-C at any moment, full devices, closed pipes, links, floods, little memory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import failure, here, lmppl, write  # noqa: F401  (here is a fixture)

from lmppl.compile import analyse
from lmppl.source import Source

ROOT = Path(__file__).parent.parent


def command(folder, *arguments, env=None, **more):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    arguments = [sys.executable, "-m", "lmppl", *arguments]
    return subprocess.run(arguments, cwd=folder, env=environment, text=True, timeout=120, **more)


# --- Ctrl-C ---------------------------------------------------------------------------------------

INTERRUPTING = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)\n"


@pytest.mark.parametrize("module", ["lark", "rich_click", "numpy"])
def test_ctrl_c_while_imports_run(tmp_path, module):
    """lark is imported by the package, rich_click by the command, numpy when draws are read."""
    (tmp_path / f"{module}.py").write_text(INTERRUPTING)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = command(tmp_path, "summary", "run", env={"PYTHONPATH": path}, capture_output=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path):
    (tmp_path / "lark.py").write_text(INTERRUPTING.replace("time.sleep(30)", "raise SystemExit(7)"))
    path = os.pathsep.join([str(tmp_path), str(ROOT)])

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    done = command(tmp_path, "engines", env={"PYTHONPATH": path}, capture_output=True, preexec_fn=ignore)
    assert (done.returncode, done.stderr) == (7, "")


# --- floods ---------------------------------------------------------------------------------------


def test_json_lists_ten_findings_of_a_kind_and_how_many_more(here):  # noqa: F811
    write(here, "".join(f"given G{i}\n" for i in range(500)) + 'Z ~ LM("a ") max 3 tokens\n')
    found = json.loads(lmppl(here, "check", "p.lm", "--output-format", "json", code=1).stdout)
    assert [entry["code"] for entry in found] == ["unused-name"] * 10 + ["trailing-space"]
    assert [entry["more"] for entry in found] == [0] * 9 + [490, 0]


@pytest.mark.parametrize("arguments", [("--engine", "hmc"), ("-o", "particles=none"), ("--num-samples", "1000000000")])
def test_options_are_judged_before_anything_is_announced(here, arguments):  # noqa: F811
    assert failure(here, "run", "p.lm", "--set", "X=a", *arguments).startswith("error[")


# --- files that a program names -------------------------------------------------------------------

NAMING = {
    "examples": 'examples E = 1 from "in/d.jsonl" as "{X}"\nZ ~ LM("{E}") max 3 tokens\n',
    "use": 'use f from "in/d.py"\nZ ~ LM("a") max 3 tokens\nconstrain f(Z)\n',
    "grammar": 'Z ~ LM("a") max 3 tokens\nconstrain in_grammar(Z, "in/d.lark")\n',
    "schema": 'Z ~ LM("a") max 3 tokens\nconstrain is_json(Z, "in/d.json")\n',
}
HELD = {"d.jsonl": '{"X": "a"}\n', "d.py": "def f(z):\n    return True\n", "d.lark": 'start: "a"\n', "d.json": "{}"}


@pytest.mark.parametrize("kind", NAMING)
@pytest.mark.parametrize("linked", [False, True])
def test_a_link_leads_no_file_out_of_the_folder(tmp_path, kind, linked):
    own, outside = tmp_path / "own", tmp_path / "outside"
    held = outside if linked else own / "in"
    held.mkdir(parents=True)
    own.mkdir(exist_ok=True)
    for name, text in HELD.items():
        (held / name).write_text(text)
    if linked:
        (own / "in").symlink_to(outside)
    found = analyse(Source("p.lm", 'lm LM = "tiny"\n' + NAMING[kind]), own).findings
    assert [finding.code for finding in found if finding.severity == "error"] == ["outside-folder"] * linked
