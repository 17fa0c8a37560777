"""A real vLLM, float32 on a processor, held against the same weights run here. `make vllm` installs it."""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import lmppl
from lmppl.lm import load_models
from lmppl.lm.transformers import models

VLLM = os.environ.get("LMPPL_VLLM", "")
HERE = models.ALIASES["smollm2-135m"]
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not VLLM or os.name == "nt", reason="LMPPL_VLLM names no environment"),
]
FLAGS = ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager", "--no-enable-chunked-prefill"]
FLAGS += ["--max-num-batched-tokens", "16384", "--generation-config", "vllm"]
ENVIRONMENT = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
STARTING = 900  # seconds
PROGRAMS = {
    "infill": 'Z ~ LM("The cat sat down.") until "." max 16\nobserve " Then it slept." ~ LM("The cat sat down.{Z}")\n',
    "label": 'Z ~ LM("This review is") max 4\nobserve " bad" ~ LM("A boring film. This review is{Z}, so it is")\n',
    "constraint": 'Z ~ LM("Two words:") max 4\nconstrain contains(Z, "a")\n',
    "power": 'Z ~ LM("The sky is")^1.2 max 3\n',
    "choice": 'Y ~ LM("It is") in [" hot", " cold"]\nZ ~ LM("It is{Y}") max 3\nobserve " summer" ~ LM("It is{Y}{Z}")\n',
}


class Server:
    """A process of vLLM, and those that it starts: they are one group, and end together."""

    def __init__(self, folder, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = log
        self.command = [f"{VLLM}/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
        self.command += ["--served-model-name", "small", "--host", "127.0.0.1", "--port", str(self.port), *FLAGS]

    def start(self):
        environment = {**os.environ, **ENVIRONMENT}
        environment.pop("PYTHONPATH", None)
        with self.log.open("ab") as log:
            own = {"stdout": log, "stderr": log, "env": environment, "start_new_session": True}
            self.process = subprocess.Popen(self.command, **own)

    def wait(self):
        began = time.monotonic()
        while time.monotonic() - began < STARTING:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(1)
        pytest.fail(f"vLLM did not start within {STARTING} s")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = models.ensure(HERE, lambda *said: None)
    found = Server(Path(folder), tmp_path_factory.mktemp("vllm") / "log")
    found.start()
    try:
        found.wait()
        yield found
    finally:
        found.kill()


@pytest.fixture(scope="module")
def address(server):
    return f"http://127.0.0.1:{server.port}/v1#small"


@pytest.fixture(scope="module")
def local():
    return load("smollm2-135m")


@pytest.fixture(scope="module")
def served(address):
    return load(address)


def load(identifier, report=lambda *said: None):
    program = lmppl.compile(f'lm LM = "{identifier}"\nZ ~ LM("a") max 1\n')
    return load_models(program.program, {}, "cpu", report)["LM"]


def evidence(engine, body, model, num_samples=60, **more):
    program = lmppl.compile(f'lm LM = "a model"\n{body}')
    return program.infer(engine, lms={"LM": model}, num_samples=num_samples, **more).rows[0]


def test_draws_and_scores_are_the_local_models(local, served):
    prompt = served.begin(served.encode("The weather today is", markers=False, opening=True))
    assert prompt == local.begin(local.encode("The weather today is", markers=False, opening=True))
    suffixes = [(), served.encode(" not", markers=False)] * 8
    drawn = served.sample(prompt, suffixes, range(16), 12, ".")
    rows = [(*suffix, *one.tokens) for suffix, one in zip(suffixes, drawn, strict=True)]
    starts = [len(suffix) for suffix in suffixes]
    expected = local.score(prompt, rows, starts)
    again = served.score(prompt, rows, starts)
    for one, own, scored in zip(drawn, expected, again, strict=True):
        np.testing.assert_allclose(one.log_probs, own, atol=1e-4)
        np.testing.assert_allclose(scored, own, atol=1e-4)
    ended = served.score(prompt, [(*row, served.end) for row in rows], [len(row) for row in rows])
    for own, found in zip(
        local.score(prompt, [(*row, local.end) for row in rows], [len(row) for row in rows]), ended, strict=True
    ):
        np.testing.assert_allclose(found, own, atol=1e-4)


def test_the_same_seed_is_the_same_text_whatever_is_beside_it(served):
    prompt = served.encode("Once upon a time", markers=False)
    together = served.sample(prompt, [()] * 12, range(12), 8)
    alone = [served.sample(prompt, [()], [seed], 8)[0] for seed in (3, 7)]
    assert [together[3].tokens, together[7].tokens] == [one.tokens for one in alone]
    assert len({one.tokens for one in together}) > 6


@pytest.mark.parametrize("body", PROGRAMS.values(), ids=PROGRAMS)
def test_evidence_is_the_local_backends(body, local, served):
    ours, theirs = (evidence("importance", body, model) for model in (local, served))
    error = np.hypot(ours.log_evidence_se, theirs.log_evidence_se)
    assert abs(ours.log_evidence - theirs.log_evidence) < 3 * error


def test_choices_are_exact(local, served):
    body = 'Y ~ LM("It is") in [" hot", " cold"]\nobserve " summer" ~ LM("It is{Y}. It must be")\n'
    ours, theirs = (evidence("exact", body, model) for model in (local, served))
    assert theirs.log_evidence == pytest.approx(ours.log_evidence, abs=1e-3)


def test_a_server_that_is_killed_and_started_again_loses_nothing(server, served, address):
    """Runs last: what it starts again is another process."""
    body = PROGRAMS["infill"]
    expected = evidence("importance", body, served, 15)
    told = []
    again = load(address, lambda what, *_: told.append(what))
    killing = threading.Thread(target=killed, args=(server, again))
    killing.start()
    found = evidence("importance", body, again, 15, batch_size=8)
    killing.join()
    assert [draw.tokens for draw in found.draws] == [draw.tokens for draw in expected.draws]
    weights = [[draw.log_weight for draw in one.draws] for one in (found, expected)]
    np.testing.assert_allclose(*weights, atol=1e-3)  # texts that never end are −∞ in both
    assert any("waiting for the server" in what for what in told)


def killed(server, model):
    while model.cost.tokens_decoded < 60:
        time.sleep(0.05)
    server.kill()
    server.start()
    server.wait()
