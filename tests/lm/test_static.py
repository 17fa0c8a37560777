"""Streams of few shapes, whose step is compiled, against those that grow: through dynamo, without a C++ compiler."""

import json
import shutil
import subprocess
import sys

import grid
import numpy as np
import pytest
import tiny
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)  # fmt: skip

from lmppl.data.rows import Row
from lmppl.errors import LmpplError
from lmppl.lm.transformers import adapter, static
from lmppl.lm.transformers.static import FEWEST_COLUMNS, FEWEST_ROWS, STRIDE, StaticStream, rounded
from lmppl.run import Request, run

PROMPT = (0, 1, 1, 2, 0)
PROMPTS = [PROMPT, PROMPT[:1], PROMPT * 30]
ROWS = [(0, 1, 2), (), (1,), (2, 2, 0, 1, 1, 0), (0, 2), (1, 1)]


class Compiler:
    """Torch's, up to the program it finds, which is then run as it is, and must not change what it is given."""

    def __init__(self):
        self.programs, self.shapes = 0, set()

    def __call__(self, graph, example):
        self.programs += 1

        def program(*arguments):
            given = [value for value in arguments if isinstance(value, torch.Tensor)]
            before = [value.clone() for value in given]
            self.shapes.add(tuple(tuple(value.shape) for value in given))
            found = graph.forward(*arguments)
            assert all(map(torch.equal, given, before))
            return found

        return program


def compiled(model):
    compiler = Compiler()
    model.compile(compiler)
    return model, compiler


@pytest.fixture(scope="module", params=["as it is", pytest.param("compiled", marks=pytest.mark.slow)])
def pair(request):
    """The same model decoding by what grows, and by steps of few shapes: as they are, or compiled."""
    fast = tiny.model(window=1024)
    if request.param == "compiled":
        compiled(fast)
    else:
        fast._step = static.step
    return tiny.model(window=1024), fast


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours.log_probs(), theirs.log_probs(), atol=1e-4)


def both(model, other, action):
    ours, theirs = action(other), action(model)
    assert isinstance(ours, StaticStream)
    assert not isinstance(theirs, StaticStream)
    return ours, theirs


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
@pytest.mark.parametrize(
    "rows", [ROWS, *(pytest.param(some, marks=pytest.mark.slow) for some in ([(), ()], [(2,)], ROWS * 20))], ids=len
)
def test_laws_equal_those_of_streams_that_grow(pair, prompt, rows):
    """Pushed past the first room, narrowed with a repeat, and pushed on."""
    model, other = pair
    ours, theirs = both(model, other, lambda m: m.stream(prompt, rows))
    rng = np.random.default_rng(0)
    for step in range(FEWEST_COLUMNS + 8):
        assert_close(ours, theirs)
        if step == 3:
            for stream in (ours, theirs):
                stream.keep(np.array([len(rows) - 1, 0, 0]))
        tokens = rng.integers(0, 3, len(rows) if step < 3 else 3)
        for stream in (ours, theirs):
            stream.push(tokens)
    assert_close(ours, theirs)


@pytest.mark.parametrize(("first", "second"), [(ROWS, [(1,), ()]), ([()], ROWS), (ROWS, [(2, 1) * 20])])
def test_rows_are_joined_taken_out_and_gone_on_from(pair, first, second):
    model, other = pair
    ours, theirs = both(model, other, lambda m: m.stream(PROMPT, first))
    joining = both(model, other, lambda m: m.stream(PROMPT, second))
    count = len(first) + len(second)
    for stream, more in zip((ours, theirs), joining, strict=True):
        stream.push(np.zeros(len(first), dtype=np.int64))
        stream.join(more)
        stream.push(np.arange(count) % 3)
    assert_close(ours, theirs)
    pasts = ours.take(range(count)), theirs.take(range(count))
    assert [past.tokens for past in pasts[0]] == [past.tokens for past in pasts[1]]
    for one, another in zip(*pasts, strict=True):
        np.testing.assert_allclose(one.block, another.block, atol=1e-4)
    lengths = [max(len(past.tokens) - b % 3, 0) for b, past in enumerate(pasts[0])]
    again = [m.resume(PROMPT, taken, lengths) for m, taken in zip((other, model), pasts, strict=True)]
    for _ in range(2):
        for stream in again:
            stream.push(np.arange(count)[::-1] % 3)
        assert_close(*again)


def test_streams_that_take_turns_leave_each_other_alone(pair):
    model, other = pair
    streams = [[m.stream(prompt, ROWS[:n]) for n, prompt in enumerate(PROMPTS, 2)] for m in (other, model)]
    for step in range(3):
        tokens = [np.full(n, step) for n in range(2, 5)]
        for m, some in zip((other, model), streams, strict=True):
            m.push(some, tokens)
        for ours, theirs in zip(*streams, strict=True):
            assert_close(ours, theirs)


@pytest.mark.slow
def test_there_is_one_program_and_few_shapes():
    model, compiler = compiled(tiny.model(window=1024))
    for prompt in PROMPTS:
        for count in range(1, 70, 3):
            stream = model.stream(prompt, [()] * count)
            for _ in range(2):
                stream.push(np.zeros(count, dtype=np.int64))
    assert compiler.programs == 1
    rows = {rounded(count, FEWEST_ROWS) for count in range(1, 70, 3)}
    assert rows == {8, 16, 32, 64, 128}
    prompts = {rounded(len(prompt), STRIDE) for prompt in PROMPTS}
    assert len(compiler.shapes) == len(rows) * len(prompts)


def test_tokens_are_counted_and_rows_that_are_nobodys_are_not(pair):
    model, other = pair
    for m in (model, other):
        m.forget_prompts()
    before = [(m.cost.tokens_decoded, m.cost.tokens_scored, m.cost.forward_passes) for m in (model, other)]
    for m in (model, other):
        stream = m.stream(PROMPT, ROWS)
        stream.push(np.zeros(len(ROWS), dtype=np.int64))
        stream.keep(np.array([0]))
        stream.push(np.zeros(1, dtype=np.int64))
    after = [(m.cost.tokens_decoded, m.cost.tokens_scored, m.cost.forward_passes) for m in (model, other)]
    spent = [np.subtract(now, then).tolist() for now, then in zip(after, before, strict=True)]
    assert spent[0] == spent[1] == [7, 5 + 14, 4]


@pytest.mark.slow
def test_an_adapter_on_and_off_and_after_its_weights_have_changed():
    plain, (fast, compiler) = tiny.model(seed=3), compiled(tiny.model(seed=3))
    ours, theirs = (adapter.add(m, rank=2, alpha=4, targets="all-linear", seed=0) for m in (fast, plain))
    generator = torch.Generator().manual_seed(1)
    for _ in range(2):
        weights = {name: torch.randn(value.shape, generator=generator) * 0.3 for name, value in ours.parameters.items()}
        for one in (ours, theirs):
            one.put(weights)
        laws = []
        for kind in ("base", "model"):
            streams = [getattr(one, kind).stream(PROMPT, [(), ()]) for one in (ours, theirs)]
            for stream in streams:
                stream.push(np.array([0, 1]))
            assert_close(*streams)
            laws.append(streams[0].log_probs())
        assert not np.allclose(*laws, atol=0.1)
    assert compiler.programs == 2


ENGINES = {
    "importance": {}, "annealed": {"particles": 8}, "mcmc": {}, "smc": {"particles": 8}, "rejection": {},
    "gflownet": {"steps": 4, "draws": 8},
}  # fmt: skip
CELL = ("tempered", "until", "choice")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_runs_draw_the_same(engine):
    models = grid.models()
    settings = {"chains": 2, "num_samples": 20} | ({"num_warmup": 5} if engine == "mcmc" else {})
    request = Request(engine, settings, ENGINES[engine], 0, batch_size=512)
    plain = run(grid.program(*CELL), [Row({}, {})], grid.used_models(CELL, models), request).rows[0]
    compilers = [compiled(model)[1] for model in models.values()]
    fast = run(grid.program(*CELL), [Row({}, {})], grid.used_models(CELL, models), request).rows[0]
    assert [draw.values for draw in fast.draws] == [draw.values for draw in plain.draws]
    np.testing.assert_allclose([d.log_density for d in fast.draws], [d.log_density for d in plain.draws], atol=1e-4)
    programs = max(compiler.programs for compiler in compilers)
    assert programs <= 2 if engine == "gflownet" else programs == 1  # with the adapter, and without


FAMILIES = {
    "learned positions": (GPT2Config, GPT2LMHeadModel, {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    "normalised queries": (Qwen3Config, Qwen3ForCausalLM, {}),
    "experts": (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 2}),
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_decode_as_before(family):
    config, network, options = FAMILIES[family]
    model = tiny.of_another_kind(config, network, **options)
    other, compiler = compiled(tiny.of_another_kind(config, network, **options))
    ours, theirs = both(model, other, lambda m: m.stream(PROMPT, ROWS))
    for step in range(3):
        for stream in (ours, theirs):
            stream.push(np.full(len(ROWS), step))
        assert_close(ours, theirs)
    assert compiler.programs == 1


@pytest.mark.slow
def test_programs_are_counted_for_each_model_by_itself(monkeypatch):
    """Three networks have a program each where two are allowed."""
    monkeypatch.setattr("lmppl.lm.transformers.static.MOST_COMPILED", 2)

    def push(model):
        model.stream(PROMPT, [()]).push(np.zeros(1, dtype=np.int64))

    with torch._dynamo.config.patch(recompile_limit=2):
        fast = [compiled(tiny.of_another_kind(*kinds, **options))[0] for *kinds, options in FAMILIES.values()]
        for model in fast:
            push(model)


@pytest.mark.slow
def test_layers_that_see_a_window_decode_as_before():
    options = {"sliding_window": 3, "scale": 0.5}
    model, compiler = compiled(tiny.of_another_kind(MistralConfig, MistralForCausalLM, **options))
    stream = model.stream(PROMPT, ROWS)
    stream.push(np.zeros(len(ROWS), dtype=np.int64))
    assert not isinstance(stream, StaticStream)
    assert compiler.programs == 0


@pytest.mark.slow
def test_a_network_that_is_no_one_program_is_refused():
    model, _ = compiled(tiny.model())
    forward = model.model.model.forward

    def breaking(*arguments, **options):
        torch._dynamo.graph_break()
        return forward(*arguments, **options)

    model.model.model.forward = breaking
    with pytest.raises(LmpplError, match="cannot compile"):
        model.stream(PROMPT, [()]).push(np.array([1]))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_command_draws_the_same_by_a_step_that_is_compiled(tiny_folder, tmp_path, monkeypatch):
    """The whole way, through torch's own compiler."""
    program = tmp_path / "prog.lm"
    program.write_text(f'lm LM = "{tiny_folder}"\nZ ~ LM(" a b")^0.6 until "." max 6 tokens\nobserve " b" | Z\n')
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    asked = [sys.executable, "-m", "lmppl", "run", str(program), "--engine", "annealed", "--num-samples", "8"]
    shown = [  # in processes of their own: inductor brings modules that others here must not find
        subprocess.run([*asked, "--json", "--draws", *more], capture_output=True, text=True)
        for more in ([], ["--torch-compile"])
    ]
    assert [result.returncode for result in shown] == [0, 0]
    assert "compiling" in shown[1].stderr
    plain, fast = (json.loads(result.stdout)["rows"][0]["draws"] for result in shown)
    assert [draw["values"] for draw in fast] == [draw["values"] for draw in plain]
    ours, theirs = ([draw["log_weight"] for draw in draws] for draws in (fast, plain))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
