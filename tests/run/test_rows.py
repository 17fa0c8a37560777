"""Many rows: what is held of them does not grow with their number, beyond the result."""

import gc
import weakref
from collections import Counter

import pytest
import tiny
import torch

from lmppl import compile as compile_program
from lmppl.data.rows import Row
from lmppl.density.binding import Binding, bind
from lmppl.density.context import BoundContext
from lmppl.density.target import Target
from lmppl.density.values import Density
from lmppl.engines.contract import Outcome
from lmppl.errors import LmpplError
from lmppl.lm.transformers import prompts
from lmppl.lm.transformers.prompts import Prompt, Prompts
from lmppl.run import Request, driver, run
from lmppl.run.bound_rows import BoundRows

PROGRAM = 'lm LM = "x"\ngiven X\nZ ~ LM("a{X}") in [" a", " b"]\n'


@pytest.fixture(scope="module")
def model():
    return tiny.model()


def rows(count):
    return [Row({"X": f"{' a' * (1 + n % 20)}{' b' * (n // 20)}"}, {}) for n in range(count)]


def bound(model, count, hold):
    program = compile_program(PROGRAM).program
    return BoundRows(rows(count), lambda row: bind(program, {"LM": model}, row), lambda *_: None, hold)


def test_few_targets_are_held_and_each_is_the_row_s(model):
    targets = bound(model, 30, hold=4)
    assert targets.open == list(range(30))
    alive = [weakref.ref(targets[number]) for number in range(30)]
    gc.collect()
    assert sum(reference() is not None for reference in alive) == 4
    assert [target.spelling.givens["X"] for target in targets] == [row.givens["X"] for row in rows(30)]


def test_what_is_lent_reaches_rows_that_are_bound_later(model):
    targets, lent = bound(model, 6, hold=2), []
    targets.lent(lambda target: lent.append(target.spelling.givens["X"]))
    for number in range(6):
        _ = targets[number]
    assert {row.givens["X"] for row in rows(6)} <= set(lent)


def test_findings_of_every_row_come_before_any_draw(model):
    program = compile_program(PROGRAM + 'observe X ~ LM("{Z}")\n').program
    data = [*rows(200), Row({"X": " a" * 200}, {})]  # the last one is too long for the window
    before = model.cost.forward_passes
    with pytest.raises(LmpplError):
        run(program, data, {"LM": model}, Request("exact"))
    assert model.cost.forward_passes == before


def test_a_context_s_literals_and_options_are_tokenised_once_for_all_rows(model, monkeypatch):
    written, plain = Counter(), model.encode

    def encode(text, **how):
        written[text] += 1
        return plain(text, **how)

    monkeypatch.setattr(model, "encode", encode)
    binding = Binding.of(compile_program(PROGRAM).program, {"LM": model})
    assert written == {"a": 1, " a": 1, " b": 1}
    for _ in range(5):
        binding.bind(Row({"X": "."}, {}))
    assert written == {"a": 1, " a": 1, " b": 1, ".": 5}


@pytest.mark.slow
def test_a_row_s_result_hangs_on_no_other_row(model):
    program = compile_program(PROGRAM).program
    many = run(program, rows(160), {"LM": model}, Request("exact")).rows
    for number in (0, 100, 159):
        alone = run(program, [rows(160)[number]], {"LM": model}, Request("exact")).rows[0]
        assert many[number].joint() == pytest.approx(alone.joint())


def test_prompts_that_are_kept_are_few_and_the_latest(model, monkeypatch):
    monkeypatch.setattr(prompts, "MOST_PROMPTS", 20)
    kept = Prompts()
    made = {(0,) * (1 + n): model.prompt((0,) * (1 + n)) for n in range(25)}
    for tokens, prompt in made.items():
        kept.keep(tokens, prompt)
        kept.keep(tokens, prompt)
    assert len(kept) == 20
    assert kept._bytes == sum(prompt.bytes for prompt in list(made.values())[-20:])
    kept.latest((0,) * 6)
    monkeypatch.setattr(prompts, "MOST_BYTES", 0)
    kept.keep((1,), made[(0,)])
    assert len(kept) == prompts.FEWEST_PROMPTS
    assert (0,) * 6 in kept


@pytest.mark.slow
def test_what_is_alive_beside_the_result_is_as_much_of_many_rows_as_of_few(model, monkeypatch):
    monkeypatch.setattr("lmppl.run.driver.HELD", 4)
    monkeypatch.setattr(prompts, "MOST_PROMPTS", 4)
    monkeypatch.setattr(prompts, "FEWEST_PROMPTS", 4)
    few, many = alive(model, 12, monkeypatch), alive(model, 36, monkeypatch)
    assert many == few
    assert all(many[kind] > 0 for kind in ("Target", "BoundContext", "Prompt"))


def alive(model, count, monkeypatch):
    """Objects of each kind, but those of other tests, while the last of so many rows is added to the result."""
    found, plain = [], driver._add_row
    kinds = (Target, BoundContext, Prompt, Outcome, Density, torch.Tensor)
    before = [one for one in gc.get_objects() if type(one) in kinds]  # held, so that no other gets their ids
    known = {id(one) for one in before}

    def add(results, *arguments):
        plain(results, *arguments)
        if len(results) == count:
            gc.collect()
            new = [one for one in gc.get_objects() if type(one) in kinds and id(one) not in known]
            found.append(Counter(type(one).__name__ for one in new))

    with monkeypatch.context() as patch:
        patch.setattr(driver, "_add_row", add)
        run(compile_program(PROGRAM).program, rows(count), {"LM": model}, Request("exact"))
    return found[0]
