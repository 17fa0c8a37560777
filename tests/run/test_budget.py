"""What is asked to keep to a budget does; what it made can be made again by flags; what is short of a pass is said."""

import json
import shlex
import sys
from functools import partial

import pytest
import tiny

import lmppl
from lmppl.cli import main
from lmppl.compare.comparison import overrun
from lmppl.data.rows import Row
from lmppl.decoding.randomness import Randomness
from lmppl.density.binding import bind
from lmppl.diagnosis.verdict import Check
from lmppl.engines.contract import Outcome, OutOfTime, RowJob, Settings
from lmppl.engines.table import engine
from lmppl.errors import LmpplError
from lmppl.lm.protocol import Cost
from lmppl.run import Request, automatic, run, sizing
from lmppl.run.sizing import Purse, Trials, needed
from lmppl.settings.budget import Budget, Point

TEXT = 'lm LM = "{model}"\nZ ~ LM(" b a")^1.5 max 6 tokens\nconstrain contains(Z, "b")\nobserve " a ." | Z\n'
ENGINES = ("annealed", "importance", "mcmc", "prompting", "smc")


class Slow(type(tiny.model())):
    """A tiny model that says that it is none."""

    @property
    def slow(self):
        return True


def slow_model():
    return Slow(*tiny.build())


def infer(text, models, rows=1, **request):
    program = lmppl.compile(text.format(model="unused")).program
    return run(program, [Row({}, {}) for _ in range(rows)], models, Request(**request))


def spent(posterior):
    return posterior.cost["tokens_decoded"] + posterior.cost["tokens_scored"]


@pytest.mark.parametrize(
    ("engine", "amount", "rows"),
    [
        ("importance", 1_500, 1), ("prompting", 500, 2),
        *(pytest.param(name, 4_000, rows, marks=pytest.mark.slow) for name in ENGINES for rows in (1, 2)),
    ],
)  # fmt: skip
def test_engines_keep_to_a_budget_of_tokens(engine, amount, rows):
    posterior = infer(TEXT, {"LM": tiny.model()}, rows, engine=engine, budget=Budget(amount))
    assert spent(posterior) <= 1.2 * amount
    assert spent(posterior) >= 0.3 * amount or posterior.options["num_samples"] >= 1_000
    again = infer(
        TEXT, {"LM": tiny.model()}, rows, engine=engine,
        settings={"num_samples": posterior.options["num_samples"], "num_warmup": posterior.options["num_warmup"]},
        options={name: posterior.options[name] for name in ("particles", "search") if name in posterior.options},
    )  # fmt: skip
    assert [d.values for row in again.rows for d in row.draws] == [d.values for r in posterior.rows for d in r.draws]


@pytest.mark.slow
def test_what_is_asked_for_is_not_sized():
    posterior = infer(
        TEXT, {"LM": tiny.model()}, engine="annealed", settings={"chains": 2}, options={"particles": 9},
        budget=Budget(4_000),
    )  # fmt: skip
    assert (posterior.options["chains"], posterior.options["particles"]) == (2, 9)


@pytest.mark.slow
def test_training_is_part_of_the_budget():
    posterior = infer(TEXT, {"LM": tiny.model()}, engine="gflownet", options={"rank": 2}, budget=Budget(12_000))
    assert spent(posterior) <= 1.2 * 12_000
    assert posterior.options["steps"] > sizing.FIRST


def test_a_budget_of_seconds_is_said_and_flags_repeat_it(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Purse, "over", False)  # a busy machine cuts no row short here
    path = tmp_path / "prog.lm"
    path.write_text(TEXT.format(model=tiny_folder))
    posterior = lmppl.compile(path).infer("importance", budget="1s")
    assert posterior.options["budget"]["amount"] == 1
    arguments = ["run", str(path), *shlex.split(posterior.options["budget"]["again"]), "--json"]
    monkeypatch.setattr(sys, "argv", ["lmppl", *arguments])
    with pytest.raises(SystemExit):
        main()
    again = json.loads(capsys.readouterr().out)
    assert again["options"]["num_samples"] == posterior.options["num_samples"]
    assert again["rows"][0]["log_evidence"] == pytest.approx(posterior.rows[0].log_evidence)


def test_what_no_budget_has_room_for_is_an_error():
    with pytest.raises(LmpplError) as caught:
        infer(TEXT, {"LM": tiny.model()}, engine="rejection", budget=Budget(1_000))
    (finding,) = caught.value.diagnostics
    assert finding.code == "budget-too-small"
    assert finding.message == "`rejection` cannot make 4 draws a chain within 1,000 tokens"


def test_rows_that_are_not_done_in_time_are_left_with_a_smaller_run(monkeypatch):
    monkeypatch.setattr(automatic, "PATIENCE", 0.0)
    monkeypatch.setattr("lmppl.run.planning.PATIENCE", 0.0)
    monkeypatch.setattr(automatic, "ENOUGH", 4_000)
    posterior = infer(TEXT, {"LM": slow_model()}, rows=2, quick=True)
    for row, made in zip(posterior.rows, (automatic.LOOK, sizing.FIRST), strict=True):  # only the first was looked at
        assert any(f"as --num-samples {made} gives them" in warning for warning in row.warnings)
        assert len(row.draws) == 4 * made


def spending(monkeypatch, tokens):
    """Runs that nobody gives a budget spend this, however much their draws are worth."""
    monkeypatch.setattr(automatic, "ENOUGH", 4_000)
    monkeypatch.setattr(automatic, "DEFAULT", Budget(tokens))
    monkeypatch.setattr(automatic, "LEAST", 1)


def cut_after(monkeypatch, seconds):
    """A clock that goes on by a second a pass of a network: rows are cut short after so many."""
    now = [0.0]
    monkeypatch.setattr(sizing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr("lmppl.run.planning.PATIENCE", seconds)
    begin = Cost.begin_pass

    def passing(cost):
        now[0] += 1.0
        begin(cost)

    monkeypatch.setattr(Cost, "begin_pass", passing)
    return now


@pytest.mark.slow
def test_a_row_whose_time_is_over_has_its_whole_blocks(monkeypatch):
    spending(monkeypatch, 2_000)
    asked = {"quick": True, "batch_size": 16}
    whole = infer(TEXT, {"LM": slow_model()}, rows=2, **asked)
    clock = cut_after(monkeypatch, 70.0)
    posterior = infer(TEXT, {"LM": slow_model()}, rows=2, **asked)
    assert posterior.options["num_samples"] == whole.options["num_samples"]
    for row, full in zip(posterior.rows, whole.rows, strict=True):
        made = len(row.draws) // 4
        assert automatic.LOOK < made < whole.options["num_samples"]
        assert any(f"as --num-samples {made} gives them" in warning for warning in row.warnings)
        assert any("time is over" in warning for warning in row.warnings)
        first = [draw.values for draw in full.draws if draw.draw < made]
        assert [draw.values for draw in row.draws] == first
    assert clock[0] < 80  # one pass more, and what is asked of the draws that there are


def test_a_network_is_not_asked_when_the_time_is_over(monkeypatch):
    model = tiny.model()
    purse = Purse.of(Budget(0.0, "seconds"), {"LM": model})
    with pytest.raises(OutOfTime), purse.watching(RowJob([], 0, Randomness(0))):
        model.prompt((0, 1))
    assert model.cost.forward_passes == 0
    model.prompt((0, 1))
    assert model.cost.forward_passes == 1


def test_a_row_has_its_share_of_the_time_that_is_left(monkeypatch):
    monkeypatch.setattr(sizing.time, "perf_counter", lambda: 100.0)
    purse = Purse(Budget(60, "seconds"), [], deadline=140.0)
    assert [purse.share(rows).deadline for rows in (4, 2, 1)] == [110.0, 120.0, 140.0]


def test_what_a_larger_run_goes_on_from_is_paid_in_all_rows_that_were_looked_at():
    """Three rows have cost 50 each: with 270 to spend, six have room for 70 each, at 5 a draw and 10 at least."""
    asked = sizing.EngineRequest(engine("importance"), {}, {})
    trials = Trials([Point(4, 30.0), Point(8, 50.0)], looked=3)
    assert trials.kept(asked) == 150
    assert trials.room(asked, 270.0, 6) == 12
    assert trials.room(sizing.EngineRequest(engine("rejection"), {}, {}), 300.0, 6) == 8


def test_ctrl_c_is_not_the_clock():
    def interrupted(row_job):
        raise KeyboardInterrupt

    def small(row_job):
        return Outcome([])

    purse = Purse.of(Budget(1_000), {})
    with pytest.raises(KeyboardInterrupt):
        list(sizing.in_time([RowJob([], 0, Randomness(0))], interrupted, purse, Trials(), 5, small))


def test_what_was_drawn_is_not_drawn_again():
    program = lmppl.compile(TEXT.format(model="unused")).program
    model = tiny.model()
    target = bind(program, {"LM": model}, Row({}, {}))[0]
    importance, settings = engine("importance"), partial(Settings, 3)

    def drawn(number, earlier=None):
        row_job = RowJob([target], 0, Randomness(4), earlier=earlier)
        before = model.cost.tokens_decoded
        found = importance.infer(row_job, settings(number), importance.options())
        return found, model.cost.tokens_decoded - before

    (few, paid), (many, whole) = drawn(7), drawn(30)
    grown, rest = drawn(30, few)
    assert paid + rest == pytest.approx(whole, rel=0.02)  # a text that has ended is run along for a while
    assert [(s.chain, s.draw, s.state) for s in grown.samples] == [(s.chain, s.draw, s.state) for s in many.samples]
    assert grown.log_evidence == pytest.approx(many.log_evidence, abs=1e-5)
    less, nothing = drawn(5, few)
    assert (nothing, len(less.samples)) == (0, 15)


@pytest.mark.slow
def test_the_look_is_part_of_the_last_run(monkeypatch):
    spending(monkeypatch, 2_500)
    posterior = infer(TEXT, {"LM": slow_model()}, rows=2, quick=True)
    again = infer(
        TEXT, {"LM": slow_model()}, rows=2, engine="importance",
        settings={"num_samples": posterior.options["num_samples"]},
    )  # fmt: skip
    assert posterior.options["num_samples"] >= 1.5 * automatic.LOOK
    assert posterior.cost["tokens_decoded"] == again.cost["tokens_decoded"]
    assert [r.log_evidence for r in posterior.rows] == pytest.approx([r.log_evidence for r in again.rows], abs=1e-5)


RARE = 'lm LM = "{model}"\nZ ~ LM(" b a") max 16 tokens\nconstrain {constraint}\n'
AHEAD = 'contains(Z, "b. a") and contains(Z, "..") and contains(Z, "b b b")'


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (RARE.replace("{constraint}", AHEAD), "smc"),
        (RARE.replace("{constraint}", AHEAD).replace(" max", "^1.5 max"), "not smc"),  # a prior that is sharpened
        (RARE.replace("{constraint}", 'contains(Z, "b")'), "not smc"),  # draws of the look are worth something
    ],
)
def test_auto_takes_what_looks_ahead_where_draws_are_worth_nothing(text, taken, monkeypatch):
    spending(monkeypatch, 1_500)
    posterior = infer(text, {"LM": slow_model()}, quick=True)
    assert (posterior.engine == "smc") == (taken == "smc")
    assert ("its automaton looks ahead to words" in posterior.options["engine_reason"]) == (taken == "smc")


@pytest.mark.slow
def test_auto_takes_its_time_on_a_fast_model():
    fast = infer(TEXT, {"LM": tiny.model()}, quick=True)
    assert (fast.engine, fast.options["num_samples"]) == ("annealed", 100)


@pytest.mark.slow
def test_auto_takes_what_ends_soon_on_a_slow_model():
    slow = infer(TEXT, {"LM": slow_model()}, quick=True)
    assert slow.engine == "importance"
    assert "64 draws by importance are worth" in slow.options["engine_reason"]
    assert spent(slow) <= 1.2 * automatic.DEFAULT.amount
    small = {"chains": 1, "num_samples": 5}
    asked = infer(TEXT, {"LM": slow_model()}, quick=True, settings=small, options={"particles": 6})
    assert (asked.engine, asked.options["num_samples"], asked.options["particles"]) == ("annealed", 5, 6)


def test_what_would_be_needed_is_told_from_effective_sizes_alone():
    short = Check("ess", "warn", 40.0, 100.0, "…")
    assert needed([short], 60.0, "seconds") == (
        "draws are worth 40 of the 100 that a pass asks for, after 60 s: about 180 s would do (--budget 180s)"
    )
    assert "--budget 1500tokens" in needed([short], 500, "tokens")
    assert needed([short, Check("pareto_k", "fail", 1.4, 1.0, "…")], 60.0, "seconds") is None
    assert needed([Check("ess", "pass", 140.0, 100.0, "")], 60.0, "seconds") is None
    assert needed([Check("ess", "fail", 0.0, 10.0, "…")], 60.0, "seconds") is None


def test_a_comparison_says_where_it_overran():
    runs = [{"measures": {"tokens_decoded": 900, "tokens_scored": spent, "seconds": 1.0}} for spent in (0, 1_000)]
    assert overrun(Budget(1_200), runs) is None
    assert overrun(None, runs) is None
    assert overrun(Budget(1_000), runs).startswith("took 1,400 tokens a data row, more than the budget of 1,000 tokens")


def test_a_purse_counts_each_model_once():
    model = tiny.model()
    purse = Purse.of(Budget(100), {"A": model, "B": model})
    model.cost.tokens_scored += 40
    assert (purse.spent, purse.left) == (40, 60)


@pytest.mark.parametrize("number", [5, 40])
def test_draws_that_are_asked_for_are_made_by_the_engine_that_is_chosen_without(number):
    models = {"LM": slow_model()}
    asked = infer(TEXT, models, quick=True, settings={"num_samples": number, "chains": 3})
    assert asked.engine == infer(TEXT, models, quick=True).engine == "importance"
    assert [len(row.draws) for row in asked.rows] == [3 * number]
    again = infer(TEXT, models, engine="importance", settings={"num_samples": number, "chains": 3})
    assert [d.tokens for d in asked.rows[0].draws] == [d.tokens for d in again.rows[0].draws]


def test_draws_that_are_asked_for_do_not_take_particles_away(monkeypatch):
    monkeypatch.setattr(automatic, "HOPELESS", 1e9)
    monkeypatch.setattr(automatic, "ENOUGH", 1e9)
    monkeypatch.setattr(automatic, "_looks_ahead", lambda row_job: True)
    found = infer(TEXT, {"LM": slow_model()}, quick=True, settings={"num_samples": 4})
    assert found.engine == "smc"
    assert len(found.rows[0].draws) == 4 * 4
    assert found.rows[0].diagnostics.particles > 16
