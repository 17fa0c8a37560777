"""`lmppl compare`: ranks engines rightly, repeats nothing, survives a kill, and says what is wrong."""

import itertools
import json
import math
import shutil
import sys
import time

import learning
import numpy as np
import pytest
import tiny
from filelock import FileLock

from lmppl.cli import main
from lmppl.compare import measure as measuring
from lmppl.compare import runs as running
from lmppl.compare.comparison import compare
from lmppl.compare.entries import parse_entries
from lmppl.compare.reference import Reference, Truth
from lmppl.compare.runs import Job
from lmppl.compare.store import Store, opened
from lmppl.compile import compile as compile_program
from lmppl.data.rows import Row
from lmppl.diagnosis.draws import Draw
from lmppl.diagnosis.prediction import ENTROPIES, Prediction
from lmppl.diagnosis.sampling import Estimate
from lmppl.engines.contract import quiet
from lmppl.lm import load_models
from lmppl.posterior.posterior import Posterior, load
from lmppl.posterior.result import RowPosterior
from lmppl.settings.budget import Budget
from lmppl.storage import sealed

PRIOR, POWER, MOST = " b a b", 2.0, 3
TEXT = 'lm LM = "{model}"\nZ ~ LM("' + PRIOR + '")^2 max 3 tokens\nconstrain contains(Z, "b")\n'


@pytest.fixture
def program(tiny_folder, tmp_path):
    path = tmp_path / "prog.lm"
    path.write_text(TEXT.format(model=tiny_folder))
    return path


def plan_of(program, engines, **more):
    compiled = compile_program(program)
    models = load_models(compiled.program, {}, "cpu", quiet)
    rows = [Row({}, {})]
    options = more.pop("options", [])
    return Job(compiled.program, rows, rows, rows, [{}], models, parse_entries(engines, options), **more)


def run_plan(folder, plan):
    with opened(folder) as store:
        return compare(plan, store)


def lmppl(folder, monkeypatch, capsys, *arguments, code=0, bug=False):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["lmppl", *arguments])
    try:
        main()
        found = 0
    except SystemExit as stop:
        found = stop.code or 0
    out, err = capsys.readouterr()
    assert found == code, out + err
    assert "Traceback" not in out + err
    assert ("bug in lmppl" in out + err) == bug
    return out, err


def brute_force(model):
    """Exact law over strings, every sequence scored by itself."""
    words, end = range(len(tiny.WORDS)), model.end
    law = {}
    for length in range(MOST + 1):
        for tokens in itertools.product(words, repeat=length):
            text = model.decode(tokens)
            if "b" in text:
                scored = [*tokens, end] if length < MOST else list(tokens)
                law[text] = law.get(text, 0) + math.exp(POWER * tiny.reference_log_prob(model, context(model), scored))
    total = sum(law.values())
    return {text: mass / total for text, mass in law.items()}


def context(model):
    return model.begin(model.encode(PRIOR, markers=True))


# --- the table is right ---------------------------------------------------------------------------


def broken(posterior):
    """The same draws, their weights forgotten."""
    rows = [
        RowPosterior(**{**vars(row), "draws": [type(d)(**{**vars(d), "log_weight": 0.0}) for d in row.draws]})
        for row in posterior.rows
    ]
    return Posterior(**{**vars(posterior), "rows": rows})


@pytest.mark.slow
def test_planted_engines_are_ranked_and_measured(program, tmp_path, monkeypatch):
    right = running.infer

    def planted(lowered, rows, models, request, *more):
        found = right(lowered, rows, models, request, *more)
        return broken(found) if request.engine == "importance" and request.options.get("temperatures") else found

    monkeypatch.setattr(running, "infer", planted)
    engines = "bad=importance,prompting,importance,exact,annealed,rejection"
    plan = plan_of(program, engines, options=["bad.temperatures=2"], budget=Budget(3_000))
    document = run_plan(tmp_path / "cmp", plan)
    entries = {entry["label"]: entry for entry in document["entries"]}
    tv = {label: entry["measures"]["total_variation"]["mean"] for label, entry in entries.items()}
    assert document["reference"]["kind"] == "exact"
    assert document["complete"]
    assert tv["exact"] == pytest.approx(0, abs=1e-9)
    assert max(tv["importance"], tv["annealed"], tv["rejection"]) < 0.08
    assert min(tv["bad"], tv["prompting"]) > 0.2
    assert document["advice"]["label"] == "exact"
    assert entries["bad"]["measures"]["efficiency"]["mean"] < entries["importance"]["measures"]["efficiency"]["mean"]
    (model,) = plan.models.values()
    truth = brute_force(model)
    for label in ("bad", "importance", "prompting"):
        own = []
        for run in entries[label]["runs"]:
            law = {text[0]: p for text, p in load(tmp_path / "cmp" / run).rows[0].joint().items()}
            own.append(0.5 * sum(abs(law.get(z, 0) - truth.get(z, 0)) for z in law.keys() | truth.keys()))
        found = entries[label]["measures"]["total_variation"]
        assert found["mean"] == pytest.approx(np.mean(own), abs=1e-4)
        assert found["high"] - found["mean"] == pytest.approx(3.18245 * np.std(own, ddof=1) / 2, rel=1e-3)


def test_an_engine_that_fails_is_a_line(tiny_folder, tmp_path, monkeypatch):
    path = tmp_path / "prog.lm"
    path.write_text(f'lm LM = "{tiny_folder}"\nZ ~ LM(" a b")^0.5 max 3 tokens\n')
    right = running.infer

    def planted(lowered, rows, models, request, *more):
        if request.engine == "mcmc":
            raise ZeroDivisionError("planted")
        return right(lowered, rows, models, request, *more)

    monkeypatch.setattr(running, "infer", planted)
    document = run_plan(tmp_path / "cmp", plan_of(path, "rejection,mcmc,importance", budget=Budget(500), seeds=2))
    rejection, mcmc, importance = document["entries"]
    assert "no bound" in rejection["reason"]
    assert mcmc["reason"] == "a bug in lmppl: ZeroDivisionError: planted"
    assert importance["reason"] is None
    assert document["advice"]["label"] == "importance"


@pytest.mark.parametrize(
    ("failure", "said", "code"),
    [
        (ZeroDivisionError("planted"), "error[internal]: this is a bug in lmppl: prompting: ZeroDivisionError", 2),
        (MemoryError(), "prompting: memory ran out", 0),
    ],
)
def test_the_exit_code_tells_that_an_engine_had_a_bug(program, monkeypatch, capsys, failure, said, code):
    right = running.infer

    def planted(lowered, rows, models, request, *more):
        if request.engine == "prompting":
            raise failure
        return right(lowered, rows, models, request, *more)

    monkeypatch.setattr(running, "infer", planted)
    monkeypatch.delenv("LMPPL_TRACEBACK", raising=False)
    command = ("compare", "prog.lm", "--engines", "prompting,exact", "--against", "none", "--seeds", "1")
    out, err = lmppl(program.parent, monkeypatch, capsys, *command, code=code, bug=code == 2)
    assert said in err
    assert "prompting was not run" in out
    assert "exact was not run" not in out


@pytest.mark.slow
def test_without_an_exact_posterior_there_is_gold_and_bounds(tiny_folder, tmp_path):
    path = tmp_path / "prog.lm"
    path.write_text(f'lm LM = "{tiny_folder}"\ngiven X, Y\nZ ~ LM("{{X}}") max 12 tokens\nobserve Y | X, Z\n')
    plan = plan_of(path, "importance,prompting", budget=Budget(600), seeds=2)
    row = [Row({"X": " a b", "Y": " b."}, {})]
    plan = type(plan)(**{**vars(plan), "rows": row, "lessons": row, "examples": row})
    document = run_plan(tmp_path / "cmp", plan)
    assert document["reference"]["kind"] == "gold"
    assert "no truth" in document["reference"]["note"]
    assert document["bounds"]["lower"]["mean"] <= document["bounds"]["upper"]["mean"] + 0.5
    importance = document["entries"][0]["measures"]
    assert importance["kolmogorov"]["mean"] < 0.5
    assert "total_variation" not in importance


@pytest.mark.slow
def test_held_out_columns_are_compared_with_and_learned_from_apart(tiny_folder, tmp_path, monkeypatch, capsys):
    text = f'lm LM = "{tiny_folder}"\ngiven X\nZ ~ LM("{{X}}") max 2 tokens\nY ~ LM("{{X}}{{Z}}") in [" a", " b"]\n'
    (tmp_path / "prog.lm").write_text(text + "predict Y\n")
    rows = [{"X": " a", "Y": " b", "Z": " a b"}, {"X": " b b", "Y": " a", "Z": " b b"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["compare", "prog.lm", "--data", "rows.jsonl", "--hold-out", "Y", "--hold-out", "Z", "--seeds", "2",
                 "--budget", "200", "--json"]  # fmt: skip
    out, _ = lmppl(tmp_path, monkeypatch, capsys, *arguments, "--engines", "sft,exact")
    assert "no row has the text" in json.loads(out)["entries"][0]["reason"]
    engines = [
        "--engines",
        "sft,gflownet,exact",
        "-o",
        "sft.steps=2",
        "-o",
        "gflownet.steps=2",
        "--train",
        "rows.jsonl",
    ]
    out, _ = lmppl(tmp_path, monkeypatch, capsys, *arguments, *engines)
    sft, gflownet, exact = json.loads(out)["entries"]
    for entry in (sft, gflownet):
        assert entry["reason"] is None
        assert entry["training"]["tokens"] > 0
        assert len(entry["fits"]) == 2
    law = load(tmp_path / "prog-compare" / exact["runs"][0]).rows
    loss = -np.mean([math.log(row.predictions["Y"][own["Y"]]) for row, own in zip(law, rows, strict=True)])
    assert exact["measures"]["log_loss"]["mean"] == pytest.approx(loss)
    assert 0 < exact["measures"]["bleu"]["mean"] < 1
    assert exact["measures"]["prediction_error"]["mean"] == 0
    for entry in (sft, gflownet, exact):
        whole, *parts = (entry["measures"][name]["mean"] for name in ENTROPIES)
        assert whole == pytest.approx(sum(parts))
        assert min(parts) >= 0


@pytest.mark.slow
def test_predicted_texts_are_right_or_wrong_as_strings_and_learned_from(tiny_folder, tmp_path, monkeypatch, capsys):
    """Y, a text that is predicted, is a label: engines that learn see it, and Z where a row has that."""
    text = f'lm LM = "{tiny_folder}"\ngiven X\nZ ~ LM("{{X}}") max 2 tokens\nY ~ LM("{{X}}{{Z}}") max 1 tokens\n'
    (tmp_path / "prog.lm").write_text(text + "predict Y\n")
    rows = [{"X": " a", "Y": "b"}, {"X": " b b", "Y": " a"}]  # a space is no difference
    train = [{"X": " b", "Y": " a", "Z": " b b"}, {"X": " a a", "Y": " a"}]
    for name, own in (("rows", rows), ("train", train)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, own)))
    out, _ = lmppl(
        tmp_path, monkeypatch, capsys, "compare", "prog.lm", "--data", "rows.jsonl", "--hold-out", "Y", "--seeds", "1",
        "--budget", "300", "--train", "train.jsonl", "--engines", "gflownet,importance", "-o", "gflownet.steps=3",
        "-o", "gflownet.imitation=1", "-o", "gflownet.seed_from=rows", "--against", "none", "--json",
    )  # fmt: skip
    document = json.loads(out)
    assert document["bounds"] is None
    assert document["reference"]["kind"] not in ("exact", "gold")
    for entry in document["entries"]:
        assert entry["reason"] is None
        found = load(tmp_path / "prog-compare" / entry["runs"][0]).rows
        laws = [{}, {}]
        for law, row in zip(laws, found, strict=True):
            for string, share in row.predictions["Y"].items():
                law[string.strip()] = law.get(string.strip(), 0) + share
        own = [(law, row["Y"].strip()) for law, row in zip(laws, rows, strict=True)]
        assert entry["measures"]["one_draw"]["mean"] == pytest.approx(
            np.mean([law.get(label, 0) for law, label in own])
        )
        assert entry["measures"]["accuracy"]["mean"] == np.mean([max(law, key=law.get) == label for law, label in own])
        assert "log_loss" not in entry["measures"]
    (fit,) = document["entries"][0]["fits"]
    taught = load(tmp_path / "prog-compare" / fit).rows
    assert [row.givens for row in taught] == train
    assert [len(row.draws) for row in taught] == [0, 0]


# --- nothing is repeated, nothing is lost ---------------------------------------------------------


def table(document):
    """A document without what time decides."""
    kept = json.loads(json.dumps(document))
    kept.pop("checksum", None)  # what was read from a folder has one
    for key in ("made", "command", "advice"):
        kept.pop(key)
    for entry in kept["entries"]:
        for found in [entry["measures"], *(point["measures"] for point in entry["curve"])]:
            for name in ("seconds", "training_seconds"):
                found.pop(name, None)
        for point in entry["curve"]:
            point.pop("seconds")
        if entry["training"]:
            entry["training"].pop("seconds")
    return kept


def test_a_second_time_and_another_engine_repeat_nothing(program, tmp_path):
    folder = tmp_path / "cmp"
    first = run_plan(folder, plan_of(program, "importance,prompting", budget=Budget(60), seeds=1))
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/run.json")}
    told = []
    again = run_plan(folder, plan_of(program, "importance,prompting", budget=Budget(60), seeds=1, told=told.append))
    assert told == []
    assert table(again) == table(first)
    run_plan(folder, plan_of(program, "importance,prompting,smc", budget=Budget(60), seeds=1, told=told.append))
    assert told
    assert all(line.startswith("smc") for line in told)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    shutil.rmtree(next(iter(times)).parent)
    told.clear()
    mended = run_plan(folder, plan_of(program, "importance,prompting", budget=Budget(60), seeds=1, told=told.append))
    assert len(told) == 1
    assert table(mended) == table(first)


def test_what_is_kept_is_of_its_key_and_as_it_was_written(tmp_path):
    store, path, made = Store(tmp_path), tmp_path / "kept.json", []

    def kept(key):
        return store.kept(path, key, lambda: made.append(key) or {"of": key})

    assert kept("a") == kept("a") == {"of": "a"}
    assert kept("b") == {"of": "b"}
    path.write_text(path.read_text().replace('{"of": "b"}', '{"of": "c"}'))
    assert kept("b") == {"of": "b"}
    assert made == ["a", "b", "b"]


def test_other_options_rows_params_and_helpers_are_other_runs(program, tmp_path):
    plan = plan_of(program, "importance")
    with opened(tmp_path / "cmp") as store:
        (entry,), others = plan.entries, parse_entries("importance", ["importance.temperatures=1,2"])
        place = running.place_of(plan, store, entry, 0, 8, None)
        assert running.place_of(plan, store, entry, 0, 8, None) == place
        elsewhere = type(plan)(**{**vars(plan), "rows": [Row({"X": " a"}, {})]})
        places = {
            place,
            running.place_of(plan, store, others[0], 0, 8, None),
            running.place_of(plan, store, entry, 1, 8, None),
            running.place_of(plan, store, entry, 0, 9, None),
            running.place_of(elsewhere, store, entry, 0, 8, None),
        }
        assert len(places) == 5


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4, "training"])
def test_a_killed_comparison_goes_on_to_the_same_table(program, tmp_path, after):
    arguments = ["compare", "prog.lm", "--engines", "importance,gflownet,mcmc", "--budget", "300", "--seeds", "2",
                 "-o", "gflownet.steps=60", "-o", "gflownet.save_every=5", "--out"]  # fmt: skip
    learning.run(tmp_path, *arguments, "whole")
    process = learning.start(tmp_path, *arguments, "cut")
    until = time.monotonic() + 100
    pattern = "fits/*/training/step-*" if after == "training" else "runs/*/run.json"
    while len(list((tmp_path / "cut").glob(pattern))) < (1 if after == "training" else after):
        assert time.monotonic() < until
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    learning.run(tmp_path, *arguments, "cut")
    whole, cut = (json.loads((tmp_path / name / "compare.json").read_text()) for name in ("whole", "cut"))
    assert table(cut) == table(whole)


def test_two_at_once_do_not_mix(program, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "prog-compare"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        _, err = lmppl(tmp_path, monkeypatch, capsys, "compare", "prog.lm", "--engines", "exact", code=2)
    assert "another comparison writes into" in err
    lmppl(tmp_path, monkeypatch, capsys, "compare", "prog.lm", "--engines", "exact", "--seeds", "1")


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_on_the_terminal_is_whole_at_any_width(program, tmp_path, monkeypatch, capsys):
    arguments = ("compare", "prog.lm", "--engines", "importance,prompting,exact", "--budget", "300", "--seeds", "2")
    for width in ("60", "200"):
        monkeypatch.setenv("COLUMNS", width)
        out, _ = lmppl(tmp_path, monkeypatch, capsys, *arguments)
        assert "…" not in out
        assert max(map(len, out.splitlines())) <= int(width)
        for title in ("TV", "log Ẑ", "self-BLEU", "worth / 1k", "Use exact."):
            assert title in out
    shown, _ = lmppl(tmp_path, monkeypatch, capsys, "summary", "prog-compare")
    assert shown == out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["compare", "prog.lm", "--engines", "exakt"], 2, "did you mean `exact`"),
        (["compare", "prog.lm", "--engines", "mcmc", "-o", "mcmc.levls=3"], 2, "`mcmc` has no option `levls`"),
        (["compare", "prog.lm", "--engines", "mcmc", "--budget", "lots"], 2, "expected tokens"),
        (["compare", "prog.lm", "--engines", "mcmc", "--against", "exakt"], 2, "did you mean `exact`"),
        (
            ["compare", "prog.lm", "--engines", "mcmc", "--hold-out", "Z"],
            2,
            "no latent or derived value that the data have a column of",
        ),
        (["compare", "prog.lm", "--engines", "mcmc", "--data", "empty.jsonl"], 2, "the data file has no rows"),
        (["compare", "prog.lm", "--engines", "mcmc", "--out", "full"], 2, "is no folder of a comparison"),
        (["compare", "prog.lm", "--engines", "mcmc", "--out", "prog.lm"], 2, "is no folder of a comparison"),
        (["compare", "missing.lm", "--engines", "mcmc"], 2, "cannot be read"),
        (["summary", "newer"], 2, "written by a newer lmppl (format 99"),
        (["summary", "damaged"], 2, "is damaged"),
        (["report", "newer"], 2, "written by a newer lmppl"),
        (["report", "full"], 2, "no run folder"),
        (["report", "nowhere"], 2, "no run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input(program, tmp_path, monkeypatch, capsys, arguments, code, said):
    (tmp_path / "empty.jsonl").write_text("\n")
    for name, text in (
        ("full/letter.txt", "mine"),
        ("newer/compare.json", '{"format": 99}'),
        ("damaged/compare.json", "{"),
    ):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    out, err = lmppl(tmp_path, monkeypatch, capsys, *arguments, code=code)
    assert said in " ".join((out + err).replace("│", " ").split())
    assert (tmp_path / "full" / "letter.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_page_is_written_of_a_comparison_and_of_a_run(program, tmp_path, monkeypatch, capsys):
    arguments = ("compare", "prog.lm", "--engines", "importance", "--budget", "100", "--seeds", "1", "--report")
    lmppl(tmp_path, monkeypatch, capsys, *arguments)
    text = (tmp_path / "prog-compare" / "report.html").read_text()
    assert "<title>" in text
    texts = tmp_path / "prog-compare" / "texts.json"
    for other in (texts.read_text().replace("-", "", 1), "", texts.read_text().replace('"key": "', '"key": "0')):
        texts.write_text(other)
        _, said = lmppl(tmp_path, monkeypatch, capsys, "report", "prog-compare", code=2)
        assert "texts.json` is damaged" in said
    texts.write_text(json.dumps(sealed({"key": "0", "value": [[]]})))
    assert "not of the runs" in lmppl(tmp_path, monkeypatch, capsys, "report", "prog-compare", code=2)[1]
    lmppl(tmp_path, monkeypatch, capsys, "run", "prog.lm", "--engine", "mcmc", "--num-samples", "8", "--out", "fit")
    lmppl(tmp_path, monkeypatch, capsys, "report", "fit", "--out", "page.html")
    assert "mcmc" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_bounds_of_a_rare_constraint_are_given_up_soon(tiny_folder, tmp_path, monkeypatch):
    path = tmp_path / "prog.lm"
    rare = "b a b b a b a b b a b a a b"  # no draw of the prior is likely to hold it
    path.write_text(f'lm LM = "{tiny_folder}"\nZ ~ LM(" a") max 40 tokens\nconstrain contains(Z, "{rare}")\n')
    plan = plan_of(path, "prompting", budget=Budget(400), seeds=1, against="prompting")
    with opened(tmp_path / "cmp") as store:
        before = sum(model.cost.tokens_decoded for model in plan.models.values())
        assert running.evidence_bounds(plan, store) is None
        spent = sum(model.cost.tokens_decoded for model in plan.models.values()) - before
        assert 0 < spent < 2 * running.ATTEMPTS * 40
        assert running.evidence_bounds(plan, store) is None
        assert sum(model.cost.tokens_decoded for model in plan.models.values()) - before == spent


@pytest.mark.slow
def test_training_that_a_kill_left_moved_aside_is_put_back(program, tmp_path):
    told = []
    more = {"options": ["gflownet.steps=2"], "budget": Budget(400), "seeds": 1, "told": told.append}
    run_plan(tmp_path / "cmp", plan_of(program, "gflownet", **more))
    assert [line for line in told if "training" in line]
    (fit,) = (tmp_path / "cmp" / "fits").iterdir()
    fit.rename(fit.with_name(f"{fit.name}.earlier"))
    told.clear()
    document = run_plan(tmp_path / "cmp", plan_of(program, "gflownet", **more))
    assert document["entries"][0]["reason"] is None
    assert told == []


def test_divergence_of_a_proposal_leaves_what_is_impossible_apart():
    q, possible = {"a": 0.5, "b": 0.3, "c": 0.2}, {"a": 0.25, "b": 0.75}  # c is impossible
    evidence = math.log(0.1)
    draws = [
        Draw({"Z": text}, {"Z": [0]}, math.log(possible[text]) + evidence if text in possible else -math.inf, {}, 0.0,
             math.log(q[text]), 0, 0)
        for text in "aaaaabbbcc"
    ]  # fmt: skip
    truth = Truth(evidence, *np.ones((3, 1)))
    found = measuring.measure(
        posterior_of(RowPosterior({}, draws)), Reference("gold", "", "", [truth]), [{}], measuring.Names(["Z"], [])
    )["measures"]
    kept = {text: share / 0.8 for text, share in q.items() if text in possible}
    assert found["proposal_divergence"] == pytest.approx(
        sum(share * math.log(share / possible[text]) for text, share in kept.items())
    )
    assert found["satisfied"] == pytest.approx(0.8)


def test_weights_and_rows_count_in_what_is_measured():
    def row(*draws):
        made = [Draw({"Z": text}, {"Z": [0]}, density, {}, math.log(weight), None, 0, i)
                for i, (text, density, weight) in enumerate(draws)]  # fmt: skip
        return RowPosterior({}, made)

    rows = [row(("a", -1.0, 3), ("b", -math.inf, 1)), row(("a", -1.0, 1), ("c", -2.0, 1), ("c", -2.0, 2))]
    cost = {"tokens_decoded": 20, "tokens_scored": 10, "seconds": 4.0}
    posterior = Posterior({}, "importance", 0, {}, {}, rows, cost)
    found = measuring.measure(posterior, Reference("none", "", "", [None, None]), [{}, {}], measuring.Names(["Z"], []))[
        "measures"
    ]
    assert found["satisfied"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["log_density"] == pytest.approx((-1 - 7 / 4) / 2)
    assert {name: found[name] for name in ("draws", "tokens_decoded", "tokens_scored", "seconds")} == {
        "draws": 2.5, "tokens_decoded": 10, "tokens_scored": 5, "seconds": 2.0,
    }  # fmt: skip


def test_few_draws_are_measured_for_diversity_once_each():
    draws = [Draw({"Z": text}, {"Z": [0]}, 0.0, {}, 0.0, None, 0, i) for i, text in enumerate(("a b c", "d e f g"))]
    found = measuring.measure(
        posterior_of(RowPosterior({}, draws)), Reference("none", "", "", [None]), [{}], measuring.Names(["Z"], [])
    )["measures"]
    assert found["distinct_2"] == 1
    assert found["self_bleu"] < 0.5


def test_uncertainty_of_predictions_is_measured_over_rows():
    def row(share, error, whole, part):
        entropies = Estimate(whole, 0.1), Estimate(part, 0.1), Estimate(whole - part, None)
        predicted = {"Y": Prediction({"a": share}, {"a": error, "b": None}, *entropies)}
        return RowPosterior({}, [], predictions=predicted, slopes={"n": Estimate(10 * share, 0.1)})

    cost = {"tokens_decoded": 0, "tokens_scored": 0, "seconds": 0.0}
    posterior = Posterior({}, "importance", 0, {}, {}, [row(0.5, 0.1, 0.6, 0.4), row(0.7, 0.3, 0.2, 0.1)], cost)
    found = measuring.measure(posterior, Reference("none", "", "", [None] * 2), [{}] * 2, measuring.Names([], ["Y"]))
    expected = {"prediction_error": 0.2, "entropy": 0.4, "conditional_entropy": 0.25, "mutual_information": 0.15}
    expected["slope"] = 6.0
    assert {name: found["measures"][name] for name in expected} == pytest.approx(expected)


def posterior_of(row):
    cost = {"tokens_decoded": 0, "tokens_scored": 0, "seconds": 0.0}
    return Posterior({}, "prompting", 0, {}, {}, [row], cost)
