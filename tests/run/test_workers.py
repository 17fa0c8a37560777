"""Rows over workers: one posterior, that of one process bit for bit; kept as it comes, gone on with after a kill."""

import json
import random
from collections import deque
from dataclasses import replace
from functools import partial

import pytest

import lmppl
from lmppl.compile import as_records
from lmppl.errors import LmpplError
from lmppl.posterior import WrittenRow, load, save
from lmppl.posterior.kept_rows import DRAWS, ROWS, KeptRows
from lmppl.run import Request
from lmppl.run.shards import SHARD
from lmppl.run.workers import Ways, infer_over, require_unfinished, require_workers
from lmppl.run.workers.crew import Lost
from lmppl.run.workers.worker import Worker
from lmppl.settings import parse_budget
from lmppl.storage import UNFINISHED

COUNT = 2 * SHARD + 5
CHOICE = 'given X\nZ ~ LM(" a b a b a b a b a b a b a b a b a b{X}") in [" a", " b"]\nobserve " b" ~ LM(" a{X}{Z}")\n'
TEXT = (
    'given X\nZ ~ LM(" a b a b a b a b a b a b a b a b a b{X}") max 3 tokens\nobserve " b" ~ LM(" a{X}{Z}")\n'
    'observe " a" ~ LM("{X} a b{Z}")\n'
)
SIZES = {"chains": 2, "num_samples": 3, "num_warmup": 4}
ENGINES = {
    "exact": (CHOICE, {}), "importance": (TEXT, {}), "smc": (TEXT, {"particles": 6}), "mcmc": (TEXT, {}),
    "annealed": (TEXT, {"particles": 4}),
}  # fmt: skip


def data(count=COUNT):
    """Short texts, of which some begin and some end alike."""
    return [{"X": f"{' a' * (n % 3)}{' b' * (n % 5)}{' .' if n % 2 else ''}"} for n in range(count)]


class InThisProcess:
    """Workers with models of their own: which of those that have an order obeys next is left to chance."""

    def __init__(self, opening, size=3, seed=0, dies=None):
        self.size, self._chance, self._dies = size, random.Random(seed), dies
        self._said = [deque() for _ in range(size)]
        self._orders = {}
        self._workers = [Worker(opening, self._said[number].append) for number in range(size)]

    def send(self, worker, order):
        assert worker not in self._orders, "one at a time"
        self._orders[worker] = order

    def receive(self):
        while not any(self._said):
            worker = self._chance.choice(sorted(self._orders))
            order = self._orders.pop(worker)
            if self._dies and order.verb == "draw" and self._dies(order.about):
                self._said[worker].append(Lost("signal 9"))
            else:
                self._said[worker].append(self._workers[worker].obey(order))
        worker = self._chance.choice([number for number in range(self.size) if self._said[number]])
        return worker, self._said[worker].popleft()

    def close(self):
        pass


def program(tiny_folder, body):
    return lmppl.compile(f'lm LM = "{tiny_folder}"\n{body}')


def over(compiled, rows, request, start=InThisProcess, *, told=None, **more):
    """told: is given the number of every row that was drawn."""

    class Listening(start if isinstance(start, type) else start.func):
        def receive(self):
            worker, said = super().receive()
            if told is not None and isinstance(said, WrittenRow):
                told(said.number)
            return worker, said

    options = {} if isinstance(start, type) else start.keywords
    lowered, made, _ = compiled.configure({}, as_records(rows))
    return infer_over(partial(Listening, **options), lowered, made, request, Ways("cpu"), **more)


def without_time(posterior):
    document = posterior.document(draws=True)
    assert document.pop("cost").keys() == {"tokens_decoded", "tokens_scored", "forward_passes", "seconds"}
    return document


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ENGINES if name != "exact"]


@pytest.mark.parametrize("engine", ["exact", *SLOW])
def test_the_posterior_is_that_of_one_process_bit_for_bit(engine, tiny_folder):
    body, options = ENGINES[engine]
    compiled = program(tiny_folder, body)
    alone = compiled.infer(engine, data=data(), options=options, device="cpu", seed=3, **SIZES)
    found = over(compiled, data(), Request(engine, SIZES, options, seed=3))
    assert json.dumps(without_time(found)) == json.dumps(without_time(alone))
    assert found.cost["tokens_scored"] > 0


def test_prompts_are_run_anew_where_a_shard_begins_in_one_process_as_well(tiny_folder):
    compiled = program(tiny_folder, CHOICE)
    alone = compiled.infer("exact", data=data(), device="cpu", **SIZES)
    found = over(compiled, data(), Request("exact", SIZES), partial(InThisProcess, size=1))
    assert {**found.cost, "seconds": 0} == {**alone.cost, "seconds": 0}


# --- what is kept ---------------------------------------------------------------------------------


def kept(tmp_path):
    return tmp_path / "run" / UNFINISHED


def begun(compiled, tmp_path, rows=None):
    """A run that was cut short where its second shard was drawn."""
    request = Request("exact", SIZES, folder=tmp_path / "run")
    dying = partial(InThisProcess, size=1, dies=lambda shard: shard.first == SHARD)
    with pytest.raises(LmpplError, match="worker-lost") as raised:
        over(compiled, rows or data(), request, dying)
    assert f"row {SHARD + 1} of the data" in str(raised.value)
    assert "signal 9" in str(raised.value)
    return replace(request, resume=True)


@pytest.fixture(scope="module")
def whole(tiny_folder):
    compiled = program(tiny_folder, CHOICE)
    return compiled, without_time(compiled.infer("exact", data=data(), device="cpu", **SIZES))


def test_what_a_kill_has_left_is_gone_on_with_and_the_end_is_the_same(whole, tmp_path):
    compiled, alone = whole
    request = begun(compiled, tmp_path)
    lines = (kept(tmp_path) / ROWS).read_bytes().splitlines(keepends=True)
    assert len(lines) == SHARD
    (kept(tmp_path) / ROWS).write_bytes(b"".join(lines) + lines[0][:40])  # as a kill cuts it
    with (kept(tmp_path) / DRAWS).open("ab") as file:
        file.write(b'{"row": 16, "val')
    drawn = []
    found = over(compiled, data(), request, told=drawn.append)
    assert sorted(drawn) == list(range(SHARD, COUNT))
    assert isinstance(found.rows, KeptRows)
    assert json.dumps(without_time(found)) == json.dumps(alone)
    save(found, tmp_path / "run")
    assert not kept(tmp_path).exists()
    assert json.dumps(without_time(load(tmp_path / "run"))) == json.dumps(alone)
    assert json.dumps(without_time(found)) == json.dumps(alone), "held rows stay readable"
    with pytest.raises(LmpplError, match="every row of it is done"):
        require_unfinished(request)


@pytest.mark.slow
def test_a_shard_that_was_cut_is_drawn_again_from_its_first_row(whole, tmp_path):
    compiled, alone = whole
    request = begun(compiled, tmp_path)
    lines = (kept(tmp_path) / ROWS).read_bytes().splitlines(keepends=True)
    (kept(tmp_path) / ROWS).write_bytes(b"".join(lines[:-3]))
    drawn = []
    found = over(compiled, data(), request, told=drawn.append)
    assert sorted(drawn) == list(range(COUNT))
    assert json.dumps(without_time(found)) == json.dumps(alone)
    assert found.cost["seconds"] > json.loads(lines[0].partition(b" ")[2])["seconds"]


def test_a_run_made_from_other_things_is_not_gone_on_with(whole, tmp_path):
    compiled, _ = whole
    request = begun(compiled, tmp_path)
    with pytest.raises(LmpplError, match="made with other data"):
        over(compiled, [{"X": " a"}, *data()[1:]], request)
    with pytest.raises(LmpplError, match="made with other seed"):
        over(compiled, data(), replace(request, seed=1))


@pytest.mark.parametrize("file", [ROWS, DRAWS])
def test_rows_that_are_not_as_they_were_written_are_damage(whole, tmp_path, file):
    compiled, _ = whole
    request = begun(compiled, tmp_path)
    path = kept(tmp_path) / file
    raw = bytearray(path.read_bytes())
    raw[30] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LmpplError, match="broken-run"):
        save(over(compiled, data(), request), tmp_path / "run")


@pytest.mark.slow
def test_a_run_is_written_row_by_row_as_it_is_at_once(whole, tmp_path):
    compiled, _ = whole
    request = Request("exact", SIZES, folder=tmp_path / "run")
    save(over(compiled, data(), request), tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "run.json").read_text())
    in_memory = over(compiled, data(), replace(request, folder=None))
    save(in_memory, tmp_path / "other")
    others = json.loads((tmp_path / "other" / "run.json").read_text())
    assert list(rows) == list(others)
    assert rows["rows"] == others["rows"]
    assert (tmp_path / "run" / "draws.jsonl").read_bytes() == (tmp_path / "other" / "draws.jsonl").read_bytes()
    text = (tmp_path / "other" / "run.json").read_text()
    assert text == json.dumps(others, indent=1, ensure_ascii=False)


# --- what ends a run ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_error_is_that_of_the_first_row_that_has_one(tiny_folder):
    compiled = program(tiny_folder, 'given X\nZ ~ LM(" a{X}") max 2 tokens\nconstrain contains(X, " a")\n')
    rows = [{"X": " a"} for _ in range(COUNT)]
    for number in (SHARD + 2, 2 * SHARD + 1):
        rows[number] = {"X": " b"}
    with pytest.raises(LmpplError) as alone:
        compiled.infer("importance", data=rows, device="cpu", **SIZES)
    for seed in range(3):
        told = []
        with pytest.raises(LmpplError) as found:
            over(compiled, rows, Request("importance", SIZES), partial(InThisProcess, seed=seed), cut_short=told.append)
        assert str(found.value) == str(alone.value)
        assert (told[0].interrupted.done, len(told[0].rows)) == (SHARD + 2, SHARD + 2)
        assert told[0].interrupted.rows == COUNT


def test_rows_that_cannot_be_bound_are_said_before_any_is_drawn(tiny_folder):
    compiled = program(tiny_folder, TEXT)
    rows = [*data(), {"X": " a" * 200}]
    drawn = []
    with pytest.raises(LmpplError, match="context-too-long"):
        over(compiled, rows, Request("importance", SIZES), told=drawn.append)
    assert drawn == []


def test_ctrl_c_leaves_the_first_rows_that_are_done(whole):
    compiled, alone = whole

    class Interrupted(InThisProcess):
        left = SHARD + 3

        def receive(self):
            worker, said = super().receive()
            if isinstance(said, WrittenRow):
                self.left -= 1
                if not self.left:
                    raise KeyboardInterrupt
            return worker, said

    told = []
    with pytest.raises(KeyboardInterrupt):
        over(compiled, data(), Request("exact", SIZES), partial(Interrupted, size=1), cut_short=told.append)
    document = without_time(told[0])
    assert (document["reason"], document["rows_done"]) == ("interrupted", SHARD + 2)
    assert document["rows"] == alone["rows"][: SHARD + 2]


def test_what_cannot_be_spread_is_refused_with_the_reason(tiny_folder, tiny_model):
    lowered = program(tiny_folder, TEXT).program
    for engine in ("gflownet", "ppo", "sft"):
        with pytest.raises(LmpplError, match="learns from all rows together"):
            require_workers(lowered, Request(engine))
    with pytest.raises(LmpplError, match="one clock"):
        require_workers(lowered, Request("importance", budget=parse_budget("10s")))
    with pytest.raises(LmpplError, match="an object of this process"):
        require_workers(lowered, Request("importance", lms={"LM": tiny_model}))
