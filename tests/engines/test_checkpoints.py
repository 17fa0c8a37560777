"""Training that is killed, damaged, interrupted or asked for otherwise: what is kept, and what the command says."""

import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import learning
import numpy as np
import pytest
import tiny

from lmppl.compile import compile as compile_program
from lmppl.engines.amortised.objectives import OBJECTIVES
from lmppl.engines.amortised.recipe import Recipe
from lmppl.errors import LmpplError
from lmppl.lm.transformers.silence import quiet
from lmppl.storage.checksums import CHECKSUM

PROGRAM = 'lm LM = "./model"\ngiven X\nZ ~ LM(X)^1.5 max 3 tokens\nobserve " b" ~ LM(" a{Z}")\n'
STEPS = ("-o", "steps=30", "-o", "save_every=10", "-o", "draws=8", "-o", "rank=4", "--num-samples", "3")
GFLOWNET = ("run", "p.lm", "--data", "d.jsonl", "--engine", "gflownet", *STEPS)
SEEDED = ("-o", "seed_from=importance", "-o", "imitation=8")
MORE = ("-o", "replay=0.25", "-o", "buffer=12", "-o", "objective=tb", "-o", "first_beta=0.5", *SEEDED)
BEGUN = ("--out", "fit", "--force")  # over what an earlier run has left there
HELD_OUT = ("-o", "held_out=0.34", "-o", "look_every=2", "-o", "patience=100", "-o", "learning_rate=0.1")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return tiny.save(tmp_path_factory.mktemp("model"), seed=6)


@pytest.fixture
def here(tmp_path, model_folder):
    return furnished(tmp_path, model_folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory, model_folder):
    """A folder whose `fit` holds a run that was left alone. Tests copy it."""
    folder = furnished(tmp_path_factory.mktemp("done"), model_folder)
    learning.run(folder, *GFLOWNET, "--out", "fit")
    return folder


@pytest.fixture
def copied(done, tmp_path):
    return shutil.copytree(done, tmp_path / "copy", symlinks=True)


def furnished(folder, model):
    (folder / "model").symlink_to(model)
    (folder / "p.lm").write_text(PROGRAM)
    (folder / "d.jsonl").write_text('{"X": " a"}\n{"X": " b a"}\n{"X": "."}\n')
    return folder


def failure(folder, *arguments, code=2):
    out, err = learning.run(folder, *arguments, code=code)
    assert out == ""
    assert err.count("error[") == 1, err
    return err


# --- killed ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), MORE, HELD_OUT], ids=["plain", "replay, tb, seeds", "held-out rows"])
def test_killed_and_resumed_is_as_if_left_alone(here, options):
    learning.run(here, *GFLOWNET, *options, "--out", "alone")
    rng = np.random.default_rng(len(options))
    kills = 0
    for attempt in range(60):
        process = learning.start(here, *GFLOWNET, *options, "--resume", "fit")
        process.join(rng.uniform(0.4, 1.4) * (1 + attempt / 4))
        if process.exitcode is not None:
            assert process.exitcode == 0, (here / "stderr.txt").read_text()
            break
        process.kill()
        process.join()
        kills += 1
    assert kills >= 1  # more where the machine is slow
    assert learning.learned(here / "fit") == learning.learned(here / "alone")
    assert learning.steps(here / "fit") == ([20, 30], list(range(1, 31)))


@pytest.mark.slow
def test_a_kill_between_two_renames_is_undone(copied):
    (copied / "fit").rename(copied / "fit.earlier")
    learning.run(copied, *GFLOWNET, "--resume", "fit")
    assert not (copied / "fit.earlier").exists()


# --- damaged --------------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 + 1] ^= 64
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [("adapter.safetensors", truncate), ("optimiser.safetensors", flip), ("state.json", truncate),
     ("buffer-0.jsonl", lambda path: path.unlink()), ("state.json", lambda path: path.write_text("{}"))],
    ids=["cut", "flipped bit", "cut json", "gone", "empty json"],
)  # fmt: skip
def test_a_damaged_checkpoint_leaves_the_one_before(copied, done, name, damage):
    damage(copied / "fit" / "training" / "step-000030" / name)
    learning.run(copied, *GFLOWNET, "--resume", "fit")
    assert learning.learned(copied / "fit") == learning.learned(done / "fit")
    assert learning.steps(copied / "fit") == ([20, 30], list(range(1, 31)))


@pytest.mark.slow
def test_all_damaged_is_said(copied):
    for path in (copied / "fit" / "training").glob("step-*/state.json"):
        truncate(path)
    assert "broken-checkpoint" in failure(copied, *GFLOWNET, "--resume", "fit")
    learning.run(copied, *GFLOWNET, "--adapter", "fit")  # as the message says


# --- no room --------------------------------------------------------------------------------------


def with_small_files(folder, arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))
    learning.command(folder, arguments)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_state(copied, done):
    shutil.rmtree(copied / "fit" / "training" / "step-000030")
    before = learning.learned(copied / "fit")
    process = learning.context().Process(target=with_small_files, args=(str(copied), (*GFLOWNET, "--resume", "fit")))
    process.start()
    code, out, err = learning.finish(process, copied)
    assert (code, out) == (2, ""), err
    assert "unwritable-folder" in err
    assert "internal" not in err
    assert learning.learned(copied / "fit") == before
    assert learning.steps(copied / "fit")[0] == [20]
    learning.run(copied, *GFLOWNET, "--resume", "fit")
    assert learning.learned(copied / "fit") == learning.learned(done / "fit")


@pytest.mark.slow
def test_a_folder_that_cannot_be_made(here):
    assert "unwritable-folder" in failure(here, *GFLOWNET, "--out", "d.jsonl/fit")


# --- no number ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_said_and_nothing_is_kept_of_it(here, monkeypatch):
    """At the second step; rates that would bring it about are out of range."""
    at, imitates, vargrad = [0], Recipe.imitates, OBJECTIVES["vargrad"]

    def asked(recipe, step):
        at[0] = step
        return imitates(recipe, step)

    monkeypatch.setattr(Recipe, "imitates", asked)
    monkeypatch.setitem(OBJECTIVES, "vargrad", lambda *given: vargrad(*given) * (math.nan if at[0] else 1.0))
    with pytest.raises(LmpplError) as caught:
        compile_program(here / "p.lm").infer(
            "gflownet", data=here / "d.jsonl", folder=here / "fit", options={"steps": 4, "save_every": 1}
        )
    for part in ("diverged", "step 2", "learning_rate"):
        assert part in str(caught.value)
    assert learning.steps(here / "fit")[0] == [1]


# --- another run ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "change"),
    [("program", ()), ("data", ()), ("models", ("--lm", "LM=./other")), ("options", ("-o", "draws=9")),
     ("seed", ("--seed", "1")), ("engine", ("--engine", "ppo"))],
)  # fmt: skip
def test_a_checkpoint_of_another_run_is_refused(copied, tmp_path_factory, what, change):
    before = learning.learned(copied / "fit")
    if what == "program":
        (copied / "p.lm").write_text(PROGRAM.replace("1.5", "1.6"))
    if what == "data":
        (copied / "d.jsonl").write_text('{"X": " a"}\n')
    if what == "models":
        tiny.save(copied / "other", seed=7)
    message = failure(copied, *GFLOWNET, *change, "--resume", "fit")
    assert "checkpoint-differs" in message
    assert re.search(rf"was made with other .*{what}", message)
    assert learning.learned(copied / "fit") == before


@pytest.mark.slow
def test_a_finished_run_is_resumed_to_the_same(copied, done):
    learning.run(copied, *GFLOWNET, "--resume", "fit")
    assert learning.learned(copied / "fit") == learning.learned(done / "fit")
    assert learning.steps(copied / "fit") == ([20, 30], list(range(1, 31)))


@pytest.mark.slow
def test_a_new_run_replaces_the_training_of_a_longer_one(copied):
    learning.run(copied, *GFLOWNET, "-o", "steps=12", *BEGUN)
    assert learning.steps(copied / "fit")[0] == [10, 12]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--engine", "importance", "--resume", "fit"), "learns-nothing"),
        (("--engine", "mcmc", "--adapter", "fit"), "learns-nothing"),
        (("--adapter", "fit", "--resume", "fit"), "adapter-and-resume"),
        (("--adapter", "model"), "adapter-missing"),
        (("--adapter", "nowhere"), "adapter-missing"),
        (("--engine", "gflownet", "-o", "tracker=tensorboard", "--out", "other"), "missing-tracker"),
        (("--engine", "gflownet", "-o", "tracker=tensorbord", "--out", "other"), "unknown-tracker"),
        (("--engine", "gflownet", "-o", "objective=sub"), "bad-option"),
        (("--engine", "gflownet", "-o", "buffer_by=luck"), "bad-option"),
        (("--engine", "gflownet", "-o", "save_every=0"), "bad-option"),
        (("--engine", "gflownet", "-o", "lr=1"), "unknown-option"),
        (("--engine", "gflownet", "-o", "targets=none"), "bad-adapter-targets"),
        (("--engine", "gflownet", "-o", "seed_from=sft"), "unknown-engine"),
        (("--engine", "sft"), "nothing-to-learn"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_what_cannot_be_done_is_one_clear_error(copied, arguments, code):
    from accelerate.utils import is_tensorboard_available

    if code == "missing-tracker" and is_tensorboard_available():
        pytest.skip("the package is here")
    assert f"error[{code}]" in failure(copied, "run", "p.lm", "--data", "d.jsonl", *arguments)
    assert not (copied / "other" / "training").exists()


@pytest.mark.slow
def test_an_adapter_that_was_trained_for_other_latents_is_refused(copied):
    (copied / "fit" / "policy.json").write_text('{"trained": ["W"]}')
    message = failure(copied, "run", "p.lm", "--data", "d.jsonl", "--adapter", "fit")
    assert "error[learned-elsewhere]" in message
    assert "expected: `Z`" in message
    assert "found: `W`" in message


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"num_hidden_layers": 1}, {"intermediate_size": 48}], ids=["layers", "width"])
def test_an_adapter_of_another_model_is_refused(copied, change):
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(copied / "model", copied / "other")
    shape = json.loads((copied / "other" / "config.json").read_text())
    with quiet():
        LlamaForCausalLM(LlamaConfig(**{**shape, **change})).save_pretrained(copied / "other")
    message = failure(copied, "run", "p.lm", "--data", "d.jsonl", "--adapter", "fit", "--lm", "LM=./other")
    assert "adapter-unusable" in message


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_leaves_an_adapter_and_says_where(here):
    """In a process as a shell starts it."""
    command = [sys.executable, "-m", "lmppl", *GFLOWNET, "-o", "steps=100000", "--out", "fit"]
    with subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        learning.wait_for(here / "fit" / "training" / "step-000010")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    assert process.returncode == 130, err
    assert out == ""
    assert "/fit`" in err
    assert "--resume" in err
    assert "Writing" not in err
    learning.run(here, *GFLOWNET, "--adapter", "fit")
    kept, logged = learning.steps(here / "fit")
    assert kept[-1] == logged[-1]


# --- the adapter elsewhere ------------------------------------------------------------------------


@pytest.mark.slow
def test_the_adapter_is_one_of_peft_and_of_programs(copied):
    """log q of the draws, under the model that PEFT loads, and under one that a program names."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(copied / "model")
    network = PeftModel.from_pretrained(plain, str(copied / "fit")).eval()
    draws = [json.loads(line) for line in (copied / "fit" / "draws.jsonl").read_text().splitlines()]
    rows = [json.loads(line)["X"] for line in (copied / "d.jsonl").read_text().splitlines()]
    vocabulary = tiny.tokenizer().get_vocab()
    ids = {" a": [0], " b a": [1, 0], ".": [2]}
    expected = []
    for draw in draws:
        tokens = draw["tokens"]["Z"]
        scored = tokens if len(tokens) == 3 else [*tokens, vocabulary[tiny.END]]
        before = ids[rows[draw["row"]]]
        with torch.no_grad():
            law = network(input_ids=torch.tensor([[*before, *scored]])).logits[0].double().log_softmax(-1)
        expected.append(sum(float(law[len(before) - 1 + t, token]) for t, token in enumerate(scored)))
    np.testing.assert_allclose([draw["log_proposal"] for draw in draws], expected, atol=1e-3)
    named = 'lm LM = "./model" (adapter = "fit")\ngiven X\nZ ~ LM(X) max 3 tokens\n'
    (copied / "q.lm").write_text(named)
    draw = draws[0]
    out, _ = learning.run(copied, "explain", "q.lm", "--set", f"X={rows[draw['row']]}", "--value",
                          f"Z={draw['values']['Z']}")  # fmt: skip
    found = next(float(line.split()[-2]) for line in out.splitlines() if line.startswith("log density"))
    assert abs(found - expected[0]) < 1e-3


# --- several processes ----------------------------------------------------------------------------


def in_two_processes(folder, *arguments):
    """What they print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
               "-m", "lmppl", *arguments]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, env=environment)
    assert found.returncode == 0, found.stderr
    return found.stdout


def kept(checkpoint):
    """Its files, but for what was spent."""
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    state = json.loads(files.pop("state.json"))
    return files | {"state.json": {key: value for key, value in state.items() if key not in ("cost", CHECKSUM)}}


@pytest.mark.slow
def test_two_processes_go_on_as_if_left_alone(here):
    """Each with its own earlier draws to replay, and all at one β."""
    arguments = (*GFLOWNET, "-o", "rows=2", "-o", "replay=0.5", "-o", "buffer=6", "-o", "first_beta=0.5")
    in_two_processes(here, *arguments, "--out", "fit")
    last = here / "fit" / "training" / "step-000030"
    assert (last / "buffer-0.jsonl").read_text() != (last / "buffer-1.jsonl").read_text() != ""
    before = learning.learned(here / "fit"), kept(last)
    shutil.rmtree(last)
    in_two_processes(here, *arguments, "--resume", "fit")
    again = learning.learned(here / "fit"), kept(last)
    assert [name for name in before[1] if before[1][name] != again[1].get(name)] == []
    assert before == again


@pytest.mark.slow
def test_two_processes_train_one_adapter(copied):
    from safetensors.numpy import load_file

    arguments = [*GFLOWNET, "-o", "rows=2", "-o", "draws=48", "-o", "replay=0"]  # each process has draws of its own
    learning.run(copied, *arguments, "--out", "one")
    out = in_two_processes(copied, *arguments, "--json", "--out", "two")
    assert json.loads(out)["engine"] == "gflownet"  # one document: the first process alone prints
    assert learning.steps(copied / "two") == ([20, 30], list(range(1, 31)))
    one, two = (load_file(copied / name / "adapter_model.safetensors") for name in ("one", "two"))
    learned = [name for name in one if "lora_B" in name]  # they begin as 0
    ours, theirs = (np.concatenate([weights[name].ravel() for name in learned]) for weights in (one, two))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9
    assert 0.8 < np.linalg.norm(theirs) / np.linalg.norm(ours) < 1.25
