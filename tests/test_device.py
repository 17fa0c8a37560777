"""Everything that touches tensors, on a pretended accelerator: nothing is made, read or indexed on the wrong device."""

import shutil

import grid
import numpy as np
import pyro
import pytest
import tiny
import torch
from accelerator import Pretended, There, move
from pyro import poutine
from transformers import MistralConfig, MistralForCausalLM

from lmppl.compile import CompiledProgram, analyse
from lmppl.data import Row
from lmppl.driver import Request, run
from lmppl.em.maximise import Fit
from lmppl.em.rounds import Plan, expectation_maximisation
from lmppl.engines.contract import quiet
from lmppl.lm.huggingface import HuggingFaceModel
from lmppl.lm.load import load_models
from lmppl.lm.static import StaticStream, step
from lmppl.pyro_bridge import pyro_model
from lmppl.records import Record
from lmppl.source import Source

PROMPT = (0, 1, 1, 2, 0)
ROWS = [(0, 1, 2), (), (1,), (2, 2, 0, 1, 1, 0), (0, 2)]
STARTS = [0, 0, 1, 3, 1]


@pytest.fixture(autouse=True)
def pretended():
    with Pretended():
        yield


def there(model):
    """The same model on the pretended device."""
    return HuggingFaceModel(move(model.model), model.tokenizer)


# --- the double ------------------------------------------------------------------------------------


def test_what_cuda_refuses_is_refused():
    x, index = There(torch.arange(6.0).reshape(2, 3)), torch.tensor([1, 0])
    wrong = [
        lambda: x + torch.ones(3),
        lambda: x.gather(1, index[:, None]),
        lambda: x.index_select(0, index),
        lambda: torch.cat([x, torch.ones(1, 3)]),
        lambda: x.masked_fill(torch.ones(3, dtype=torch.bool), 0.0),
        lambda: torch.where(torch.ones(3, dtype=torch.bool), x, x),
        lambda: torch.ones(3)[There(index)],
    ]
    for action in wrong:
        with pytest.raises(RuntimeError, match="same device"):
            action()
    with pytest.raises(RuntimeError, match="numpy"):
        x.numpy()


def test_what_cuda_takes_is_taken():
    x, index = There(torch.arange(6.0).reshape(2, 3)), torch.tensor([1, 0])
    assert (x + torch.tensor(1.0)).cpu().tolist() == [[1, 2, 3], [4, 5, 6]]
    assert x[index].cpu().tolist() == [[3, 4, 5], [0, 1, 2]]
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]
    y = torch.zeros(2, 3, device=x.device)
    y[:, 1] = torch.tensor([7.0, 8.0]).to(x.device)
    y.copy_(y + 1)
    y[index, 0] = x[:, 2]
    assert y.cpu().numpy().tolist() == [[5, 8, 1], [2, 9, 1]]
    assert float(y.sum()) == 26


# --- models ----------------------------------------------------------------------------------------

MODELS = {
    "llama": lambda: tiny.model(seed=6),
    "several ends": lambda: tiny.model(seed=6, ends=(tiny.END, "<stop>")),
    "sliding window": lambda: tiny.of_another_kind(MistralConfig, MistralForCausalLM, sliding_window=3),
}


@pytest.mark.parametrize("kind", MODELS)
def test_scores_and_streams(kind):
    here, far = MODELS[kind](), there(MODELS[kind]())

    def numbers(model):
        yield from model.score(PROMPT, ROWS, STARTS)
        for pair in model.score_prefixes(PROMPT, ROWS, STARTS):
            yield from pair
        both = [(PROMPT, list(zip(ROWS, STARTS, strict=True))), (PROMPT[:2], [((1, 2), 0)])]
        model.prepare([prompt for prompt, _ in both])
        for found in model.score_all(both):
            yield from found
        yield from (law.cpu() for law in model.laws(PROMPT, ROWS, STARTS))
        yield from model.score_trees(PROMPT, [[((0, 1, 2, 0), 2), ((0, 2), 1)], [((1, 1), 1)]])
        streams = [model.stream(PROMPT, ROWS), model.stream(PROMPT[:2], [(), (1,)])]
        assert isinstance(streams[0].log_probs(), There) is (model is far)
        model.push(streams, [np.arange(5) % 3, np.array([0, 1])])
        streams[0].keep(np.array([4, 1, 1]))
        if streams[0].joins:
            streams[0].join(model.stream(PROMPT, [(2, 1)]))
            streams[0].push(np.array([1, 1, 2, 0]))
            pasts = streams[0].take([0, 3])
            again = model.resume(PROMPT, pasts, [2, 1])
            again.push(np.array([1, 2]))
            yield again.log_probs().cpu()
        yield from (stream.log_probs().cpu() for stream in streams)

    for ours, theirs in zip(numbers(far), numbers(here), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_steps_of_static_shapes():
    """The function that torch compiles, as it is."""
    far, here = there(tiny.model()), tiny.model()
    far._step = step
    streams = [model.stream(PROMPT, ROWS) for model in (far, here)]
    assert isinstance(streams[0], StaticStream)
    for token in range(3):
        for stream in streams:
            stream.push(np.full(len(stream.log_probs()), token))
            if token == 1:
                stream.keep(np.array([2, 0]))
    for stream, model in zip(streams, (far, here), strict=True):
        stream.join(model.resume(PROMPT, stream.take([0]), [1]))
        stream.push(np.array([0, 1, 2]))
    np.testing.assert_allclose(*(stream.log_probs().cpu() for stream in streams), atol=1e-4)


# --- engines ---------------------------------------------------------------------------------------

TRAINED = {"steps": 2, "draws": 4}
ENGINES = {
    "exact": {}, "importance": {}, "annealed": {"particles": 8}, "mcmc": {}, "smc": {"particles": 8}, "rejection": {},
    "prompting": {}, "gflownet": TRAINED, "ppo": {**TRAINED, "steps": 1},
}  # fmt: skip
CELLS = [("tempered", "until", "choice"), ("plain", "until", "constraint"), ("product", "cut", "nothing")]
OTHERWISE = {
    "subtb": ("gflownet", {"objective": "subtb", "prefixes": 2}),
    "tb": ("gflownet", {"objective": "tb", "micro_batch": 3}),
    "hot": ("gflownet", {"temperature": 2.0, "min_p": 0.01, "first_beta": 0.5, "seed_from": "importance"}),
    "beams": ("prompting", {"method": "beam"}),
    "nucleus": ("prompting", {"method": "nucleus"}),
    "levels": ("mcmc", {"levels": 2}),
    "pairs": ("mcmc", {"lag": 1}),
    "rungs": ("annealed", {"temperatures": "1,0.5", "search": 16}),
}


def moved():
    return {name: there(model) for name, model in grid.models().items()}


def drawn(cell, models, engine, options, **request):
    settings = {"chains": 2, "num_samples": 6} | ({"num_warmup": 2} if engine == "mcmc" else {})
    asked = Request(engine, settings, {**ENGINES[engine], **options}, 0, batch_size=64, **request)
    return run(grid.program(*cell), [Row({}, {})], grid.used_models(cell, models), asked, quiet).rows[0]


def assert_same(cell, engine, options=(), **request):
    here, far = (drawn(cell, models, engine, dict(options), **request) for models in (grid.models(), moved()))
    assert [draw.values for draw in far.draws] == [draw.values for draw in here.draws]
    ours, theirs = ([draw.log_density for draw in row.draws] for row in (far, here))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_engines_draw_as_they_do_here(engine):
    for cell in CELLS:
        if engine in ("rejection", "gflownet", "ppo") and cell[0] == "product":
            continue  # one needs a bound, the others one model
        assert_same(cell, engine)


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["regex", "grammar", "tool", "two texts"])
def test_masks_tools_and_several_texts(extra):
    assert_same(("plain", "until", extra), "importance")


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERWISE)
def test_their_options_too(name):
    engine, options = OTHERWISE[name]
    assert_same(("tempered", "until", "nothing"), engine, options)


@pytest.mark.slow
def test_training_is_kept_gone_on_with_and_drawn_from(tmp_path):
    """Adapter, optimiser and buffer come back to the device; what is learned there serves here."""
    cell, models = ("tempered", "until", "nothing"), moved()
    whole = drawn(cell, models, "gflownet", {"steps": 4, "save_every": 2}, folder=tmp_path)
    shutil.rmtree(tmp_path / "training" / "step-000004")
    resumed = drawn(cell, models, "gflownet", {"steps": 4, "save_every": 2}, folder=tmp_path, resume=True)
    here = drawn(cell, grid.models(), "gflownet", {}, adapter=tmp_path)
    for row in (resumed, here):
        assert [draw.values for draw in row.draws] == [draw.values for draw in whole.draws]
    for engine in ("importance", "annealed", "mcmc"):
        assert_same(cell, engine, {"proposal": str(tmp_path)})


LABELS = """lm LM = "./tiny"
given X
learn LM
Z ~ LM("{X}") max 2
Y ~ LM("{X}{Z}.") in [" a", " b"]
guide Z | X
predict Y
"""
DATA = [{"X": x + y, "Y": " b" if x == " a" else " a"} for x in (" a", " b") for y in (" a", " b")]


@pytest.mark.slow
def test_expectation_maximisation_learns_the_same(tmp_path):
    tiny.save(tmp_path / "tiny", seed=4)
    program, rows, _ = CompiledProgram(analyse(Source("labels", LABELS), tmp_path)).configure(
        {}, [Record(row) for row in DATA]
    )

    def load(learned, place=lambda model: model):
        loaded = load_models(program, {}, "cpu", quiet, learned)
        return {name: place(model) for name, model in loaded.items()}

    def evidence(name, loading):
        request = Request("gflownet", {"chains": 1, "num_samples": 4}, {"steps": 2, "draws": 4})
        plan = Plan(program, rows, rows, loading, request, Fit(steps=2, draws=4), rounds=1)
        return [line["log_evidence"] for line in expectation_maximisation(plan, tmp_path / name)["rounds"]]

    far = evidence("far", lambda learned: load(learned, there))
    np.testing.assert_allclose(far, evidence("here", load), atol=1e-3)


@pytest.mark.slow
def test_rows_that_have_the_text_are_learned_from_and_labels_predicted():
    body = LABELS.replace("learn LM\n", "").replace("./tiny", "tiny")
    compiled = CompiledProgram(analyse(Source("labels", body), grid.FOLDER))
    examples = [{**row, "Z": " a"} for row in DATA[:2]]
    for engine, data in (("sft", examples), ("gflownet", [{"X": " a"}, {"X": " b"}])):
        program, rows, _ = compiled.configure({}, [Record(row) for row in data])
        request = Request(engine, {"chains": 1, "num_samples": 8}, {"steps": 2, "draws": 4}, 0)
        found = [run(program, rows, {"LM": place(tiny.model(seed=6))}, request, quiet) for place in (there, same)]
        for ours, theirs in zip(*(one.rows for one in found), strict=True):
            assert [draw.values for draw in ours.draws] == [draw.values for draw in theirs.draws]
            for option, probability in theirs.predictions.get("Y", {}).items():
                assert ours.predictions["Y"][option] == pytest.approx(probability, abs=1e-3)


def same(model):
    return model


@pytest.mark.slow
def test_the_pyro_model_and_guide():
    cell = ("tempered", "until", "choice")
    traces = []
    for models in (grid.models(), moved()):
        target = grid.target(cell, models)
        pyro.set_rng_seed(0)
        traces.append(poutine.trace(pyro_model(target)).get_trace())
    assert float(traces[1].log_prob_sum()) == pytest.approx(float(traces[0].log_prob_sum()), abs=1e-4)
