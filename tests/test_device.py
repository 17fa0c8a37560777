"""lmppl on a device that is not the processor: the same numbers, and no operation that a GPU would refuse.

The device is the double of accelerator.py.
"""

import itertools
import json
import shutil
from contextlib import contextmanager
from unittest import mock

import grid
import numpy as np
import pyro
import pytest
import tiny
import torch
from accelerator import DEVICE, DeviceTensor, plugged_in
from learning import learned
from pyro import poutine
from quick import covered
from safetensors.torch import load_file
from test_cli import lmppl, write
from transformers import MistralConfig, MistralForCausalLM

from lmppl.engines.amortised.policy import Policy
from lmppl.errors import LmpplError
from lmppl.lm.transformers import adapter, load, static
from lmppl.lm.transformers.huggingface import HuggingFaceModel
from lmppl.pyro import SuffixKernel, pyro_guide, pyro_model

PROMPT, OTHER = (0, 1, 1, 2, 0), (2, 1) * 9
ROWS = [(0, 1, 2), (), (1,), (2, 2, 0, 1, 1, 0), (0, 2), (1, 1)]
STARTS = [0, 0, 1, 3, 1, 0]
ENDS = (tiny.END, "<stop>")


# --- the double -----------------------------------------------------------------------------------

REFUSED = {
    "pointwise": lambda x: x + torch.ones(3),
    "pointwise, the processor's first": lambda x: torch.ones(3) * x,
    "written into": lambda x: torch.tensor(1.0).add_(x[0]),
    "cat": lambda x: torch.cat([x, torch.ones(3)]),
    "stack": lambda x: torch.stack([x, torch.ones(3)]),
    "matmul": lambda x: torch.ones(3) @ x,
    "where": lambda x: torch.where(torch.ones(3, dtype=torch.bool), x, 0.0),
    "mask": lambda x: x.masked_fill(torch.ones(3, dtype=torch.bool), 0.0),
    "gather": lambda x: x.gather(0, torch.tensor([0])),
    "scatter": lambda x: x.scatter(0, torch.tensor([0]), 1.0),
    "index_select": lambda x: x.index_select(0, torch.tensor([0])),
    "embedding": lambda x: torch.nn.functional.embedding(torch.tensor([0]), x[:, None]),
    "searchsorted": lambda x: torch.searchsorted(x, torch.ones(1)),
    "isin": lambda x: torch.isin(x, torch.ones(1)),
    "index of the processor's": lambda x: torch.ones(3)[x.long()],
    "values put": lambda x: x.index_put_((torch.tensor([0]),), torch.ones(1)),
    "numpy": lambda x: x.numpy(),
    "array": lambda x: np.asarray(x),
}
ALLOWED = {
    "a number": lambda x: x * 2 + 1,
    "without dimensions": lambda x: torch.tensor(2.0) * x,
    "indices": lambda x: x[torch.tensor([2, 0])],
    "mask as an index": lambda x: x[torch.tensor([True, False, True])],
    "put": lambda x: x.index_put((torch.tensor([0]),), x[:1]),
    "filled": lambda x: x.masked_fill(x > 1, torch.tensor(7.0)),
    "moved": lambda x: torch.cat([x, torch.ones(3).to(x.device)]),
    "copied": lambda x: x.clone().copy_(torch.ones(3)),
    "made like it": lambda x: torch.cat([x, torch.zeros_like(x), x.new_tensor([1.0]), x.new_ones(1)]),
    "made there": lambda x: x + torch.arange(3, device="lazy") + torch.as_tensor(np.ones(3), device=x.device),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_double_refuses_what_a_gpu_refuses(name):
    with plugged_in(), pytest.raises((RuntimeError, TypeError), match=r"same device|to numpy"):
        REFUSED[name](torch.arange(3.0, device=DEVICE))


@pytest.mark.parametrize("name", ALLOWED)
def test_the_double_computes_what_a_gpu_allows(name):
    expected = ALLOWED[name](torch.arange(3.0).clone()) if name != "made there" else torch.tensor([1.0, 3, 5])
    with plugged_in():
        found = ALLOWED[name](torch.arange(3.0, device=DEVICE))
        assert isinstance(found, DeviceTensor)
        assert found.device == DEVICE
        moved = found.cpu()
    assert type(moved) is torch.Tensor
    np.testing.assert_array_equal(moved, expected)


def test_gradients_and_steps_stay_on_the_double():
    def learned(device):
        value, share = torch.nn.Parameter(torch.ones(2, device=device)), torch.nn.Parameter(torch.zeros(2).double())
        optimiser = torch.optim.AdamW([value, share], lr=0.1, foreach=False)
        ((value * torch.tensor([2.0, -1.0], device=device)).exp() - share[0]).sum().backward()
        assert value.grad.device == torch.device(device)
        assert share.grad.device.type == "cpu"
        norm = torch.nn.utils.clip_grad_norm_([value], 1.0)
        optimiser.step()
        return [part.detach().cpu() for part in (value, share, norm)]

    expected = learned("cpu")
    with plugged_in():
        found = learned(DEVICE)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


# --- a model --------------------------------------------------------------------------------------

MODELS = {
    "llama": tiny.model,
    "several ends": lambda: tiny.model(ends=ENDS),
    "a beginning": lambda: tiny.model(bos=True),
    "a window": lambda: tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=3),
    "a window with room": lambda: tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=14),
}


def moved(model):
    return HuggingFaceModel(model.model.to(DEVICE), model.tokenizer)


def plain(value):
    """Numbers wherever they lie, as lists of arrays."""
    if isinstance(value, list | tuple):
        return [part for one in value for part in plain(one)]
    return [value.cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)]


def assert_close(found, expected):
    found, expected = plain(found), plain(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def scores(model):
    model.expect(OTHER[:16])
    model.prepare([PROMPT, OTHER, (*OTHER, 0)])
    asked = [(PROMPT, list(zip(ROWS, STARTS, strict=True))), (OTHER, [((0, 1), 0)]), ((0,), [])]
    trees = [[((0, 1, 2, 0), 2), ((0, 2), 1), ((0,), 0)], [((1, 1), 1)]]
    return [
        model.score(PROMPT, ROWS, STARTS), model.score_all(asked), model.score_prefixes(PROMPT, ROWS, STARTS),
        model.score_prefixes(OTHER, ROWS, STARTS, closing=2), model.laws(PROMPT, ROWS, STARTS),
        model.score_trees(PROMPT, trees), model.score((*OTHER, 2), ROWS, STARTS),
    ]  # fmt: skip


def growth(model):
    """Laws of streams that are pushed, narrowed, and, where they do that, joined, taken from and resumed."""
    streams = [model.stream(PROMPT, ROWS), model.stream(OTHER, [(), (1, 0)])]
    found = []
    for step in range(7):
        if step == 3:
            streams[0].keep(np.array([5, 0, 3, 3]))
            if streams[0].joins:
                streams[0].join(model.stream(PROMPT, [(2, 1), ()]))
        sizes = [len(stream.log_probs()) for stream in streams]
        model.push(streams, [np.arange(step, step + size) % 3 for size in sizes])
        found += [stream.log_probs() for stream in streams]
    if streams[0].joins:
        pasts = streams[0].take([0, 4, 5])
        resumed = model.resume(PROMPT, pasts, [2, 1, 0])
        resumed.push(np.array([0, 1, 2]))
        found.append(resumed.log_probs())
    streams[0].push(np.arange(sizes[0]) % 3)
    return [*found, streams[0].log_probs()]


def test_steps_of_static_shapes_are_the_same():
    """The function that torch compiles, as it is."""

    def decoded(model):
        model._step = static.step
        assert isinstance(model.stream(PROMPT, ROWS), static.StaticStream)
        return growth(model)

    expected = decoded(tiny.model())
    with plugged_in():
        assert_close(decoded(moved(tiny.model())), expected)


@pytest.mark.parametrize(("name", "act"), covered(itertools.product(MODELS, ["scores", "growth"])))
def test_a_model_says_the_same(name, act):
    act = {"scores": scores, "growth": growth}[act]
    expected = act(MODELS[name]())
    with plugged_in():
        model = moved(MODELS[name]())
        assert model.device == DEVICE
        assert_close(act(model), expected)


# --- which device ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rank", "expected"),
    [("auto", None, "cuda:0"), ("cuda", None, "cuda:0"), ("auto", "1", "cuda:1"), ("cuda", "3", "cuda:1"),
     ("cuda:0", "1", "cuda:0"), ("cpu", "1", "cpu")],
)  # fmt: skip
def test_processes_that_train_together_have_a_gpu_each(monkeypatch, name, rank, expected):
    """As the variable says that `torchrun` and `accelerate launch` set; of two GPUs here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert load.torch_device(name) == torch.device(expected)


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(LmpplError, match="no CUDA device 2"):
        load.torch_device("cuda:2")


# --- the command ----------------------------------------------------------------------------------

BODY = """given X
Z ~ LM("{X} a b")^1.5 max 3 tokens
observe " b" ~ LM(" a{Z}")
constrain matches(Z, /( a| b)*\\.?( a)?/) and tokens(Z) >= 1
Y ~ LM(" b{Z}") in [" a", " b a", "."]
predict Y
"""
OPTIONS = 'in [" a", " b a", "."]'
OBSERVED = 'observe " b" ~ LM(" a{Z}")\n'
PROGRAMS = {
    "p.lm": BODY,
    "choices.lm": f'given X\nY ~ LM("{{X}} a") {OPTIONS}\nW ~ LM("{{Y}}") {OPTIONS}\nobserve " b" ~ LM("{{W}}{{Y}}")\n',
    "plain.lm": 'given X\nZ ~ LM("{X}") max 3 tokens\n' + OBSERVED,
    "product.lm": 'lm OTHER = "./other"\ngiven X\nZ ~ LM("{X}")^1.4 * OTHER(" b")^0.5 until "." max 4 tokens\n'
    + OBSERVED,
    "tool.lm": 'use echo from "helpers.py"\ngiven X\nZ ~ LM(X)^1.5 with echo(trigger = " a") max 4 tokens\n' + OBSERVED,
    "asked.lm": 'use odd from "helpers.py"\ngiven X\nZ ~ LM(X) max 4 tokens\nW ~ LM("{Z} b") max 2\nconstrain odd(Z)\n',
    "simulated.lm": 'given X, V\nZ ~ LM(X) max 2 tokens\nobserve V ~ LM(" a{Z}")\n',
    "learned.lm": f'given X\nlearn LM\nZ ~ LM(X) max 2\nY ~ LM("{{X}}{{Z}}.") {OPTIONS}\n' + OBSERVED,
    "named.lm": "given X\nZ ~ LM(X) max 3\n",
}
VARYING = ("seconds", "tokens_per_second")  # keys of what is no function of the seed
DERIVED = (
    "summary",
    "checks",
    "verdict",
    "warnings",
    "masses",
)  # quantiles and ranks, where rounding parts values that tie


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """Programs on tiny models, and rows."""
    folder = tmp_path_factory.mktemp("device")
    tiny.save(folder / "model", seed=6)
    tiny.save(folder / "other", seed=1)
    tiny.save(folder / "ends", seed=6, ends=ENDS)
    window = MODELS["a window with room"]()
    window.model.save_pretrained(folder / "window")
    window.tokenizer.save_pretrained(folder / "window")
    for name, body in PROGRAMS.items():
        write(folder, body, name)
    shutil.copy(grid.FOLDER / "helpers.py", folder)
    (folder / "tuned.jsonl").write_text('{"X": " a", "Z": " b a"}\n{"X": " b", "Z": "."}\n')
    (folder / "d.jsonl").write_text('{"X": " a", "V": " b"}\n{"X": " b a", "V": "."}\n')
    return folder


@pytest.fixture
def here(furnished, tmp_path):
    return shutil.copytree(furnished, tmp_path / "here")


@contextmanager
def on_device():
    """`--device auto` is the double."""
    with plugged_in(), mock.patch.object(load, "torch_device", return_value=DEVICE):
        yield


def run(folder, *arguments):
    draws = ["--draws"] if arguments[0] == "run" else []
    return json.loads(lmppl(folder, *arguments, *draws, "--json").stdout)


def alike(one, other, tolerance, place=""):
    """Two documents that differ by rounding at most."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one.keys() - {*VARYING, *DERIVED}:
            alike(one[key], other[key], tolerance, f"{place}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), place
        for i, pair in enumerate(zip(one, other, strict=True)):
            alike(*pair, tolerance, f"{place}[{i}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=tolerance, rel=tolerance), place
    else:
        assert one == other, place


def assert_same_on_device(folder, *arguments, tolerance=1e-3):
    expected = run(folder, *arguments)
    with on_device():
        alike(run(folder, *arguments), expected, tolerance)


FEW = ("--chains", "2", "--num-samples", "4", "--num-warmup", "3")
RUNS = [
    ("p.lm", "annealed", "particles=8", "search=8"),
    ("p.lm", "importance"),
    ("p.lm", "mcmc"),
    ("plain.lm", "mcmc", "levels=2"),
    ("plain.lm", "mcmc", "lag=2", "pairs=2"),
    ("p.lm", "rejection"),
    ("p.lm", "smc", "particles=8", "spread=true"),
    ("choices.lm", "exact"),
    ("plain.lm", "exact"),
    ("asked.lm", "exact"),
    *(("plain.lm", "prompting", f"method={method}") for method in ("nucleus", "beam", "diverse_beam")),
    ("asked.lm", "smc", "particles=8", "tries=1", "rounds=1"),
    ("product.lm", "smc", "particles=8", "temperature=1"),
    ("tool.lm", "smc", "particles=8"),
    ("tool.lm", "annealed", "particles=8", "search=8"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("asked", RUNS, ids=" ".join)
def test_an_engine_draws_the_same(here, asked):
    program, engine, *options = asked
    told = [part for option in options for part in ("-o", option)]
    assert_same_on_device(here, "run", program, "--data", "d.jsonl", "--engine", engine, *FEW, *told)


# --- learning -------------------------------------------------------------------------------------

STEPS = ("-o", "steps=4", "-o", "save_every=2", "-o", "draws=4", "-o", "rank=2")
LEARNERS = {
    "vargrad": ("p.lm", "gflownet", "first_beta=0.5"),
    "vargrad, seeded and held out": (
        "plain.lm", "gflownet", "seed_from=importance", "imitation=2", "held_out=0.5", "look_every=2",
    ),
    "trajectory balance": ("tool.lm", "gflownet", "objective=tb", "steps=1"),  # the next: rounding
    "subtrajectory balance": ("plain.lm", "gflownet", "objective=subtb"),
    "some prefixes": ("plain.lm", "gflownet", "objective=subtb", "prefixes=2", "micro_batch=2"),
    "ppo": ("p.lm", "ppo", "epochs=2"),
    "sft": ("plain.lm", "sft"),
}  # fmt: skip


def training(name):
    program, engine, *options = LEARNERS[name]
    told = [part for option in options for part in ("-o", option)]
    data = "tuned.jsonl" if name == "sft" else "d.jsonl"
    return ["run", program, "--data", data, "--engine", engine, *FEW, *STEPS, *told]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"),
    [*((name, "model") for name in LEARNERS), ("vargrad", "window"), ("trajectory balance", "ends")],
)
def test_training_learns_the_same(here, name, model):
    assert_same_on_device(here, *training(name), "--lm", f"LM=./{model}", tolerance=1e-2)


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint(here):
    """As if it had been left alone, bit for bit, and from where the processor has left off as well."""
    asked = training("vargrad")
    with on_device():
        run(here, *asked, "--out", "alone")
        shutil.copytree(here / "alone", here / "cut")
        shutil.rmtree(here / "cut" / "training" / "step-000004")
        run(here, *asked, "--resume", "cut")
        assert learned(here / "cut") == learned(here / "alone")
    lmppl(here, *asked, "--out", "processor")
    shutil.copytree(here / "processor", here / "moved")
    shutil.rmtree(here / "moved" / "training" / "step-000004")
    with on_device():
        run(here, *asked, "--resume", "moved")
    expected, found = (load_file(here / name / "adapter_model.safetensors") for name in ("processor", "moved"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-2, rtol=1e-2)


@pytest.mark.slow
def test_what_was_learned_is_used(here):
    """The adapter by itself, as a proposal, where other training begins, and as the model of a program."""
    lmppl(here, *training("vargrad"), "--out", "fit")
    asked = ("run", "p.lm", "--data", "d.jsonl", *FEW)
    assert_same_on_device(here, *asked, "--adapter", "fit")
    for engine in ("importance", "mcmc", "annealed"):
        fewer = ("-o", "particles=8", "-o", "search=0") if engine == "annealed" else ()
        assert_same_on_device(here, *asked, "--engine", engine, "-o", "proposal=fit", *fewer)
    assert_same_on_device(here, *training("vargrad"), "-o", "start_from=fit", "-o", "steps=1", tolerance=1e-2)
    text = (here / "named.lm").read_text().replace('"./model"', '"./model" (adapter = "fit")')
    (here / "named.lm").write_text(text)
    assert_same_on_device(here, "run", "named.lm", "--set", "X= a", "--engine", "importance", *FEW)


@pytest.mark.slow
def test_a_model_is_learned_where_latents_are_not_observed(here):
    fit = [part for option in ("steps=3", "draws=8", "rank=2") for part in ("--fit", option)]
    asked = ("em", "learned.lm", "--data", "d.jsonl", "--engine", "importance", "--rounds", "2", *FEW, *fit)
    expected = run(here, *asked, "--out", "em")
    with on_device():
        alike(run(here, *asked, "--out", "again"), expected, 1e-2)
    with_learned = ("run", "learned.lm", "--set", "X= a", "--engine", "smc", "--learned", "em", *FEW)
    assert_same_on_device(here, *with_learned)


# --- what else reads tensors ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked",
    [
        ("sbc", "simulated.lm", "--data", "d.jsonl", "--engine", "importance", "--simulations", "2", "--seed", "1"),
        ("bounds", "simulated.lm", "--data", "d.jsonl", "--simulations", "2", "--num-samples", "4"),
    ],
    ids=lambda asked: asked[0],
)
def test_checks_say_the_same(here, asked):
    assert_same_on_device(here, *asked)


def test_a_density_is_explained_the_same(here):
    asked = ("explain", "p.lm", "--set", "X= a", "--value", "Z= b", "--value", "Y= a")
    expected = lmppl(here, *asked).stdout
    with on_device():
        assert lmppl(here, *asked).stdout == expected


def test_pyro_runs_on_it():
    """Sites are the processor's, and so are log densities."""

    def traced(model):
        target = grid.target(("tempered", "free", "choice"), {"LM": model})
        added = adapter.add(model, rank=4, alpha=8, targets="all-linear", seed=0)
        policy = Policy(added, frozenset({"Z", "Y"}))
        pyro.set_rng_seed(0)
        guide = poutine.trace(pyro_guide(target, policy)).get_trace()
        traces = [guide, poutine.trace(poutine.replay(pyro_model(target), trace=guide)).get_trace()]
        chain = SuffixKernel(target, seed=1)
        chain.setup(0)
        steps = [chain.sample(chain.initial_params) for _ in range(3)]
        return [[trace.log_prob_sum() for trace in traces], [list(step.values()) for step in steps]]

    expected = traced(tiny.model(seed=6))
    with plugged_in():
        assert_close(traced(moved(tiny.model(seed=6))), expected)
