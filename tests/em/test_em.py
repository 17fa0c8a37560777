"""Expectation-maximisation: the M-step's density and gradient against brute force, rounds, and what is kept of them."""

import itertools
import json
import signal
from pathlib import Path

import learning
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from lmppl.compile import analyse
from lmppl.compile import compile as compile_program
from lmppl.data.records import Record
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.em.cases import Case
from lmppl.em.findings import finding
from lmppl.em.maximise import Fit, _some, learnable, log_joints, maximise
from lmppl.em.rounds import Job, expectation_maximisation, learned_adapters
from lmppl.errors import LmpplError, raise_errors
from lmppl.lm import load_models
from lmppl.lm.transformers import adapter
from lmppl.run import Request
from lmppl.source import Source

BODY = """given X, W
learn LM
Z ~ LM("{X}") max 2
V ~ LM("{X}{Z}.") max 2
Y ~ LM("{X}{Z}{V}.") in [" a", " b ."]
observe W | X, Z, Y
constrain not contains(Z, ".")
"""
ROWS = (
    Row({"X": " a", "W": " b ."}, {}),
    Row({"X": " b", "W": " a"}, {"Y": " a"}),
    Row({"X": ".", "W": "."}, {"Z": " b"}),
)


def program(body=BODY):
    analysis = analyse(Source("p.lm", f'lm LM = "tiny"\n{body}'), ".")
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


def every_state(target):
    """All values of the latents to infer."""
    texts = [z for size in range(3) for z in itertools.product(range(3), repeat=size)]
    names = [latent.name for latent in target.latents]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(
        *(texts if name in "ZV" else range(2) for name in names))]  # fmt: skip


def possible_states(target):
    states = every_state(target)
    return [state for state, value in zip(states, target.log_density(states).total, strict=True) if np.isfinite(value)]


@pytest.fixture
def adapted():
    """An adapter that does something, on a tiny model with two end tokens."""
    base = tiny.model(seed=4, ends=("<end>", "<stop>"))
    found = adapter.add(base, rank=4, alpha=8, targets="all-linear", seed=1)
    torch.manual_seed(0)
    for value in found.parameters.values():
        value.data.normal_(0, 0.2)
    yield found
    found.remove()


def joint(target, states, model):
    """What is fitted, log density of states with gradients, and the prompts that these go through."""
    row = learnable(Case(target, states, np.full(len(states), 1 / len(states))), "LM")
    opened = model.open_prompts([piece.prompt for piece in row.pieces])
    return log_joints([row], model, opened)[0], opened


@pytest.mark.parametrize("row", ROWS, ids=["free", "label observed", "text observed"])
def test_what_is_fitted_is_the_programs_density(adapted, row):
    target = bind(program(), {"LM": adapted.model}, row, batch_size=512)[0]
    states = every_state(target)
    density = target.log_density(states)
    possible = np.isfinite(density.total)
    assert 5 < possible.sum() <= len(states)
    found, _ = joint(target, [s for s, ok in zip(states, possible, strict=True) if ok], adapted.model)
    np.testing.assert_allclose(found.detach().numpy(), density.total[possible], atol=1e-4)


def test_a_mixture_is_fitted_in_the_part_that_is_learned(adapted):
    """Its gradient is that of its density: found by steps along it, too."""
    observed = 'observe X ~ mix(LM("{Y}"), 3 * OTHER(" b{Y}"))'
    body = f'lm OTHER = "tiny"\ngiven X\nlearn LM\nY ~ OTHER(X) in [" a", " b"]\n{observed}\n'
    models = {"LM": adapted.model, "OTHER": tiny.model(seed=1)}
    target = bind(program(body), models, Row({"X": " a b ."}, {}))[0]
    states = [{"Y": 0}, {"Y": 1}]

    def total():
        adapted.model.forget_prompts()
        return target.log_density(states).factors["observe X"].sum()

    found, opened = joint(target, states, adapted.model)
    assert float(found.detach().sum()) == pytest.approx(total(), abs=1e-4)
    found.sum().backward()
    opened.backward()
    gradients = {name: value.grad.clone() for name, value in adapted.parameters.items()}
    size = float(sum((g**2).sum() for g in gradients.values()) ** 0.5)
    assert size > 0.1

    def moved(step):
        for name, value in adapted.parameters.items():
            value.data += step * gradients[name] / size
        return total()

    up, down = moved(0.02), moved(-0.04)
    assert (up - down) / 0.04 == pytest.approx(size, rel=0.05)


def test_what_a_tool_writes_is_not_fitted():
    model = tiny.model(words=("1", "+", "=", "2"), seed=2)
    found = adapter.add(model, rank=4, alpha=8, targets="all-linear", seed=1)
    body = 'given X\nlearn LM\nZ ~ LM("{X}") with calculator(trigger = "=") max 5\nconstrain contains(Z, "=2")\n'
    target = bind(program(body), {"LM": found.model}, Row({"X": "1+1"}, {}), batch_size=2000)[0]
    texts = [{"Z": z} for size in range(6) for z in itertools.product(range(4), repeat=size)]
    density = target.log_density(texts).total
    states = [state for state, value in zip(texts, density, strict=True) if np.isfinite(value)]
    assert {"Z": (0, 1, 0, 2, 3)} in states
    scores = joint(target, states, found.model)[0].detach().numpy()
    np.testing.assert_allclose(scores, density[np.isfinite(density)], atol=1e-4)


def test_the_gradient_is_that_of_the_log_evidence(adapted):
    """Fisher's identity, with the posterior enumerated: E[∇ log p(z, y)] = ∇ log Σ p(z, y)."""
    target = bind(program(), {"LM": adapted.model}, ROWS[0], batch_size=512)[0]
    states = possible_states(target)

    def gradient(of):
        adapted.model.forget_prompts()
        for value in adapted.parameters.values():
            value.grad = None
        scores, opened = joint(target, states, adapted.model)
        of(scores).backward()
        opened.backward()
        return torch.cat([value.grad.flatten() for value in adapted.parameters.values()])

    weights = torch.softmax(torch.as_tensor(target.log_density(states).total), 0)
    expected = gradient(lambda scores: torch.logsumexp(scores, 0))
    torch.testing.assert_close(gradient(lambda scores: weights @ scores), expected, atol=1e-4, rtol=1e-3)
    assert expected.norm() > 0.1
    uniform = torch.full_like(weights, 1 / len(weights))
    assert (gradient(lambda scores: uniform @ scores) - expected).norm() > 0.1 * expected.norm()


def test_a_step_takes_states_as_often_as_they_weigh():
    """Of six states four at a time: one of half the weight is there twice, and counts as two."""
    weights, total = np.array([0.5, 0.2, 0.1, 0.1, 0.06, 0.04]), np.zeros(6)
    case = Case(None, list(range(6)), weights)
    for step in range(400):
        some = _some(case, 4, 0, 0, step)
        assert some.weights.sum() == pytest.approx(1)
        total[some.states] += some.weights
    np.testing.assert_allclose(total / 400, weights, atol=0.02)


@pytest.mark.slow
def test_maximising_makes_the_expectation_larger_and_leaves_the_base_alone():
    base = tiny.model(seed=4)
    found = adapter.add(base, rank=4, alpha=8, targets="all-linear", seed=1)
    target = bind(program(), {"LM": base}, ROWS[0], batch_size=512)[0]
    states = possible_states(target)
    before = target.log_density(states).total
    weights = np.exp(before - np.logaddexp.reduce(before))
    losses = []
    case = Case(target, states, weights)
    maximise(
        [case], "LM", found, Fit(steps=30, draws=64, learning_rate=3e-3), 0, lambda step, loss: losses.append(loss)
    )
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_array_equal(target.log_density(states).total, before)
    learned = bind(program(), {"LM": found.model}, ROWS[0], batch_size=512)[0].log_density(states).total
    assert weights @ learned == pytest.approx(-losses[-1], abs=0.3)
    assert np.logaddexp.reduce(learned) > np.logaddexp.reduce(before) + 0.5  # the log evidence has gone up as well


# --- rounds ---------------------------------------------------------------------------------------

LABELS = """lm LM = "./tiny"
given X
learn LM
Z ~ LM("{X}") max 2
Y ~ LM("{X}{Z}.") in [" a", " b"]
guide Z | X
predict Y
"""
RULE = [{"X": x + y, "Y": " b" if x == " a" else " a"} for x in (" a", " b") for y in (" a", " b", ".")]
FIT = Fit(steps=20, draws=32, learning_rate=5e-3, rank=4, alpha=8)
ASKED = {"chains": 1, "num_samples": 50}


@pytest.fixture
def folder(tmp_path):
    """A program whose label follows from the first word, which the model does not know yet."""
    tiny.save(tmp_path / "tiny", seed=4)
    (tmp_path / "labels.lm").write_text(LABELS, encoding="utf-8")
    for name, rows in (("train.jsonl", RULE[::2]), ("held.jsonl", RULE[1::2])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def plan(folder, engine="exact", load=None, request=None, **options):
    compiled = compile_program(folder / "labels.lm")
    program, rows, _ = compiled.configure({}, [Record(row) for row in RULE[::2]])
    held_out = compiled.configure({}, [Record(row) for row in RULE[1::2]])[1]
    models = load or (lambda learned: load_models(program, {}, "cpu", lambda *told: None, learned))
    return Job(
        program, rows, held_out, models, request or Request(engine, ASKED), **{"fit": FIT, "rounds": 3, **options}
    )


@pytest.mark.slow
def test_exact_rounds_raise_the_log_evidence_and_are_kept(folder):
    document = expectation_maximisation(plan(folder, patience=3), folder / "em")
    training = [line["training_log_evidence"] for line in document["rounds"]]
    assert len(training) == 4
    assert all(later > earlier for earlier, later in itertools.pairwise(training))
    assert training[-1] > training[0] + 0.3
    best = document["best"]
    assert best == np.argmax([line["log_evidence"] for line in document["rounds"]])
    assert document["rounds"][best]["log_evidence"] > document["rounds"][0]["log_evidence"]
    assert "rises by" in document["finding"]
    learned = compile_program(folder / "labels.lm").infer("exact", data=folder / "held.jsonl", learned=folder / "em")
    mean = np.mean([row.log_evidence for row in learned.rows])
    assert mean == pytest.approx(document["rounds"][best]["log_evidence"], abs=1e-4)
    assert learned.models["LM"]["revision"].startswith("local + adapter ")


@pytest.mark.slow
def test_an_m_step_that_unlearns_is_seen_and_undone(folder, monkeypatch):
    """Planted: the M-step climbs down. Rounds end, and say that the model is best as it was."""
    from lmppl.em import maximise as module

    plain = module.log_joints
    monkeypatch.setattr(module, "log_joints", lambda *key: [-one for one in plain(*key)])
    document = expectation_maximisation(plan(folder), folder / "em")
    assert [line["round"] for line in document["rounds"]] == [0, 1]
    assert document["best"] == 0
    assert "does not rise" in document["finding"]
    assert learned_adapters(folder / "em") == {}


@pytest.mark.slow
def test_what_is_done_is_not_done_again(folder):
    first = expectation_maximisation(plan(folder, rounds=1), folder / "em")
    idle = plan(folder, rounds=1, load=lambda learned: pytest.fail("a model was loaded for nothing"))
    assert expectation_maximisation(idle, folder / "em") == first
    again = expectation_maximisation(plan(folder, rounds=2, patience=3), folder / "em")
    assert again["rounds"][:2] == first["rounds"]  # seconds and all
    assert len(again["rounds"]) == 3
    with pytest.raises(LmpplError, match="were made with other seed"):
        expectation_maximisation(plan(folder, request=Request("exact", ASKED, seed=1)), folder / "em")
    (folder / "other").mkdir()
    (folder / "other" / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(LmpplError, match="is no folder of expectation-maximisation"):
        expectation_maximisation(plan(folder), folder / "other")


def test_a_folder_without_its_document_is_said(tmp_path):
    with pytest.raises(LmpplError, match=r"holds no em\.json"):
        learned_adapters(tmp_path)


@pytest.mark.slow
def test_what_is_learned_is_published_at_once_before_it_is_said_to_be(folder, monkeypatch):
    """Ctrl-C between two adapters' files: nothing half done is taken, and the next run puts it right."""
    from lmppl.em import rounds

    def interrupted(source, target):
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rounds.shutil, "copyfile", interrupted)
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            expectation_maximisation(plan(folder, rounds=1), folder / "em")
    with pytest.raises(LmpplError, match="holds no expectation-maximisation that has ended"):
        learned_adapters(folder / "em")
    assert not list((folder / "em").glob("learned*"))
    assert expectation_maximisation(plan(folder, rounds=1), folder / "em")["best"] == 1
    assert learned_adapters(folder / "em")["LM"] == folder / "em" / "learned" / "LM"
    assert (folder / "em" / "learned" / "LM" / "adapter_model.safetensors").stat().st_size > 4


def test_rows_that_have_every_latent_are_learned_by_maximum_likelihood(folder):
    text = 'lm LM = "./tiny"\ngiven X\nlearn LM\nY ~ LM(X) in [" a", " b"]\n'
    (folder / "labels.lm").write_text(text, encoding="utf-8")
    document = expectation_maximisation(plan(folder, rounds=1, engine="auto"), folder / "em")
    lines = document["rounds"]
    assert lines[-1]["training_log_evidence"] > lines[0]["training_log_evidence"] + 0.3
    assert all(line["error"] == 0 for line in lines)


@pytest.mark.slow
def test_a_trained_policy_does_the_e_step_and_is_kept(folder):
    options = {"steps": 10, "draws": 8, "rank": 4, "alpha": 8}
    request = Request("gflownet", {"chains": 2, "num_samples": 50}, options, seed=2)
    document = expectation_maximisation(plan(folder, request=request, rounds=1), folder / "em")
    assert all(line["error"] > 0 for line in document["rounds"])
    assert (folder / "em" / "learned" / "policy" / "adapter_model.safetensors").exists()
    second = json.loads((folder / "em" / "rounds" / "1" / "draws" / "run.json").read_text(encoding="utf-8"))
    assert second["options"]["start_from"].endswith("rounds/0/draws")
    policy = folder / "em" / "learned" / "policy"
    drawn = compile_program(folder / "labels.lm").infer(
        data=[{"X": " a ."}], learned=folder / "em", adapter=policy, num_samples=20
    )
    assert sum(drawn.rows[0].predictions["Y"].values()) == pytest.approx(1)


@pytest.mark.slow
def test_training_may_begin_where_another_has_ended(folder):
    program = compile_program(folder / "labels.lm")

    def learned(name, **options):
        place = folder / name
        program.infer(
            "gflownet", data=RULE[::2], options={"rank": 4, "alpha": 8, **options}, folder=place, num_samples=4
        )
        return load_file(str(place / "adapter_model.safetensors"))

    first = learned("first", steps=10, draws=8)
    next_one = learned("next", steps=1, draws=4, learning_rate=1e-12, start_from=str(folder / "first"))
    fresh = learned("fresh", steps=1, draws=4, learning_rate=1e-12)
    assert max(float(value.abs().max()) for name, value in first.items() if "lora_B" in name) > 1e-3
    for name, value in first.items():
        torch.testing.assert_close(next_one[name], value, atol=1e-9, rtol=0)
    assert all(float(value.abs().max()) < 1e-9 for name, value in fresh.items() if "lora_B" in name)


def test_findings_name_what_is_within_its_error():
    def said(first, second):
        names = ("log_evidence", "error")
        return finding([dict(zip(names, first, strict=True)), dict(zip(names, second, strict=True))])

    assert said((-2.0, 0.1), (-1.0, 0.1)) == "The log evidence rises by 1.000 ± 0.141 nats a row in 1 round."
    assert said((-2.0, 0.1), (-1.9, 0.1)).endswith("which is within its error.")
    assert "does not rise" in said((-2.0, 0.1), (-2.1, 0.1))
    assert "unknown error" in said((-2.0, None), (-1.0, 0.1))


# --- the command ----------------------------------------------------------------------------------

FLAGS = ("--held-out", "held.jsonl", "--rounds", "2", "--patience", "2", "--fit", "steps=12", "--fit", "rank=4")
COMMAND = ("em", "labels.lm", "--data", "train.jsonl", "--engine", "exact")


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_rounds(folder):
    whole, _ = learning.run(folder, *COMMAND, *FLAGS, "--out", "whole", "--json")
    killed = learning.start(folder, *COMMAND, *FLAGS, "--out", "cut")
    learning.wait_for(folder / "cut" / "rounds" / "0" / "LM")
    killed.kill()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    again, _ = learning.run(folder, *COMMAND, *FLAGS, "--out", "cut", "--json")

    def without_seconds(found):
        rounds = json.loads(found)["rounds"]
        return [{name: value for name, value in line.items() if name != "seconds"} for line in rounds]

    assert without_seconds(again) == without_seconds(whole)
    files = [(folder / name / "learned" / "LM" / "adapter_model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_the_command_shows_rounds_and_names_mistakes(folder):
    out, told = learning.run(folder, *COMMAND, *FLAGS)
    assert "round 0: log evidence" in told
    assert "rises by" in out
    assert "--learned labels-em" in out
    unlearned = LABELS.replace("learn LM\n", "")
    for text, flags, expected in (
        (unlearned, (), "has no `learn`"),
        (LABELS, ("--fit", "step=3"), "steps"),
        (LABELS, ("--engine", "exct"), "exact"),
        (LABELS, ("--out", "tiny"), "is no folder of expectation-maximisation"),
    ):
        (folder / "labels.lm").write_text(text, encoding="utf-8")
        assert expected in learning.run(folder, *COMMAND, *flags, code=2)[1]
    told = learning.run(folder, "run", "labels.lm", "--set", "X= a", "--learned", "tiny", code=2)[1]
    assert "no expectation-maximisation has ended there" in told
