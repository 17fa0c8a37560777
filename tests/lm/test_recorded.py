"""Steps that are recorded once a shape, against streams that grow. The recorder here runs the step again, on the
tensors that it was recorded with, and writes over its earlier results: what a CUDA graph does, on any device."""

import numpy as np
import pytest
import tiny
import torch

from lmppl.lm.transformers import adapter
from lmppl.lm.transformers.recorded import RecordedStep
from lmppl.lm.transformers.static import FEWEST_COLUMNS, StaticStream

PROMPT = (0, 1, 1, 2, 0)
ROWS = [(0, 1, 2), (), (1,), (2, 2, 0, 1, 1, 0), (0, 2), (1, 1)]


class Recorder:
    """Counts what it records and what is replayed."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, act):
        self.recorded += 1
        results = act()

        def replay():
            self.replayed += 1
            for kept, new in zip(results, act(), strict=True):
                kept.copy_(new)

        return replay, results


def recording(model, recorder=None):
    recorder, told = recorder or Recorder(), []
    model.record(recorder, told.append)
    return model, recorder, told


def assert_close(ours, theirs):
    np.testing.assert_allclose(ours.log_probs(), theirs.log_probs(), atol=1e-4)


@pytest.mark.parametrize(
    "rows", [ROWS, *(pytest.param(some, marks=pytest.mark.slow) for some in ([(2,)], ROWS * 12))], ids=len
)
def test_laws_equal_those_of_streams_that_grow(rows):
    """Two streams in turn, pushed past the first room; one narrowed with a repeat."""
    plain = tiny.model(window=1024)
    fast, recorder, told = recording(tiny.model(window=1024))
    pairs = [[m.stream(prompt, rows) for m in (fast, plain)] for prompt in (PROMPT, PROMPT[:2])]
    assert isinstance(pairs[0][0], StaticStream)
    rng = np.random.default_rng(0)
    for step in range(FEWEST_COLUMNS + 4):
        for number, (ours, theirs) in enumerate(pairs):
            assert_close(ours, theirs)
            if step == 3 and number == 0:
                for stream in (ours, theirs):
                    stream.keep(np.array([len(rows) - 1, 0, 0]))
            tokens = rng.integers(0, 3, 3 if step >= 3 and number == 0 else len(rows))
            for stream in (ours, theirs):
                stream.push(tokens)
    for ours, theirs in pairs:
        assert_close(ours, theirs)
    assert told == []
    assert recorder.recorded <= 4  # rows before and after narrowing, two rooms
    assert recorder.replayed == 2 * (FEWEST_COLUMNS + 4)


def test_an_adapter_on_and_off_and_after_its_weights_have_changed():
    plain, (fast, recorder, _) = tiny.model(seed=3), recording(tiny.model(seed=3))
    fast.stream(PROMPT, [(), ()]).push(np.array([0, 1]))  # recorded before there was an adapter
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
    assert recorder.recorded == 2


def test_what_cannot_be_recorded_runs_as_it_is_and_is_said_once():
    def refusing(act):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    plain, (fast, _, told) = tiny.model(), recording(tiny.model(), refusing)
    ours, theirs = (m.stream(PROMPT, ROWS) for m in (fast, plain))
    for token in (0, 1):
        for stream in (ours, theirs):
            stream.push(np.full(len(ROWS), token))
        assert_close(ours, theirs)
    assert len(told) == 1
    assert "not permitted" in told[0]
    assert not isinstance(fast.stream(PROMPT, ROWS), StaticStream)  # growing streams are quicker than that


def test_a_recording_takes_what_it_is_given_each_time():
    """Not the tensors of the call that was recorded: these belong to a stream that goes on."""
    model, _, _ = recording(tiny.model())
    assert isinstance(model._step, RecordedStep)
    first = model.stream(PROMPT, [(0,)])
    first.push(np.array([1]))
    after = first.log_probs().clone()
    model.stream(PROMPT, [(2,)]).push(np.array([2]))
    np.testing.assert_array_equal(first.log_probs(), after)
