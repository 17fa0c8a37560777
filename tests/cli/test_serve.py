"""The command that answers: what it refuses before its port is open, and one that runs."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from test_cli import here, lmppl, write  # noqa: F401  (here is a fixture)

from lmppl.compile import CompiledProgram, analyse
from lmppl.data import read_text
from lmppl.run import Request
from lmppl.screen import quiet
from lmppl.serve import load_programs

ROOT = Path(__file__).parent.parent.parent


def test_nobody_else_may_ask_without_a_token(here):  # noqa: F811
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        assert "error[no-token]" in lmppl(here, "serve", "p.lm", "--host", host, code=2).stderr
    for token in ("", "short", "with a space in it", "with\x1b[2Jescape"):
        flags = ("--host", "0.0.0.0", "--token-env", "ASKING")
        found = lmppl(here, "serve", "p.lm", *flags, code=2, env={"ASKING": token}).stderr
        assert "error[bad-token]" in found
        assert not token or token not in found


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("other/p.lm",), "error[same-name]"),
        (("--engine", "gflownet"), "error[engine-cannot]"),
        (("--engine", "nobody"), "error[unknown-engine]"),
        (("--set", "Q=1"), "error[unknown-name]"),
        (("--lm", "Q=x"), "error[unknown-name]"),
        (("--timeout", "0"), "error[bad-option]"),
        (("--max-body", "-1"), "error[bad-option]"),
        (("--port", "70000"), "error[no-address]"),
        (("--until", "0.02"), "expected se=X"),
        (("--until", "se=nan"), "expected se=X"),
        (("--num-samples", "0"), "error[bad-option]"),
    ],
)
def test_what_cannot_be_served_is_said_before_a_model_is_loaded(here, flags, found):  # noqa: F811
    (here / "other").mkdir()
    write(here, "given X\nZ ~ LM(X) max 3 tokens\n", "other/p.lm")
    assert found in lmppl(here, "serve", "p.lm", "--port", "0", *flags, code=2).stderr


def test_a_program_that_is_wrong_is_not_served(here):  # noqa: F811
    write(here, "given X\nZ ~ LM(Y) max 3 tokens\n")
    assert "error[unknown-name]" in lmppl(here, "serve", "p.lm", "--port", "0", code=1).stderr


def test_a_port_that_is_taken_is_named(here):  # noqa: F811
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        found = lmppl(here, "serve", "p.lm", "--port", port, code=2).stderr
    assert "error[no-address]" in found
    assert port in found


def test_programs_on_one_model_share_it(here):  # noqa: F811
    write(here, 'given X\nY ~ LM(X) in [" a", " b"]\n', "q.lm")
    write(here, 'given X\nY ~ LM(X) in [" a", " b"]\n', "r.lm", lm="./model/.")
    programs = {
        name: CompiledProgram(analyse(read_text(here / f"{name}.lm", "program"), here)) for name in ("p", "q", "r")
    }
    with load_programs(programs, {}, Request(), {"device": "cpu"}, quiet) as served:
        models = [one.session.models["LM"] for one in served.values()]
    assert models[0] is models[1]
    assert models[0] is not models[2]


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_answers_until_a_signal_ends_it(here, ending):  # noqa: F811
    write(here, 'given X, W\nparam K = 1\nY ~ LM("{X}{W}") in [" a", " b"]\n', "q.lm")
    command = [sys.executable, "-m", "lmppl", "serve", "p.lm", "q.lm", "--port", "0", "--set", "W= b"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=here, env=environment, stdout=-1, stderr=-1, text=True) as running:
        line = running.stdout.readline()
        url = re.fullmatch(r"serving p, q at (http://127\.0\.0\.1:\d+)\n", line)[1]
        body = json.dumps({"model": "q", "messages": [{"role": "user", "content": " a"}]}).encode()
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            found = json.load(reply)["lmppl"]
        assert found["engine"] == "exact"
        running.send_signal(ending)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (0, "")
    assert err.endswith("stopped\n")
    assert "Traceback" not in err
    run = lmppl(here, "run", "q.lm", "--set", "X= a", "--set", "W= b", "--json").stdout
    support = json.loads(run)["rows"][0]["support"]
    assert found["probability"] == pytest.approx(max(state["probability"] for state in support), abs=1e-5)
