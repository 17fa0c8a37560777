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

ROOT = Path(__file__).parent.parent.parent


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


# --- devices that are full, pipes that close, little memory ---------------------------------------

FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")


@FULL
@pytest.mark.parametrize("form", ["full", "json"])
def test_output_to_a_full_device_is_one_clear_error(here, form):  # noqa: F811
    write(here, 'Z ~ LM("a ") max 3 tokens\n')
    with open("/dev/full", "w") as full:
        arguments = ("check", "p.lm", "--output-format", form)
        done = command(here, *arguments, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.count("\n")) == (2, 2)
    assert done.stderr.startswith("error[system]: the system refused: No space left")


@FULL
def test_errors_to_a_full_device_leave_the_exit_code(tmp_path):
    with open("/dev/full", "w") as full:
        assert command(tmp_path, "check", "none.lm", stdout=subprocess.PIPE, stderr=full).returncode == 2


@pytest.mark.parametrize("megabytes", [60, 300])
def test_little_memory_is_one_clear_error(here, megabytes):  # noqa: F811
    def limit():
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20,) * 2)

    done = command(here, "run", "p.lm", "--set", "X=a", capture_output=True, preexec_fn=limit)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error[")
    assert "internal" not in done.stderr
