"""The paper's experiments: the frame that they share, their data, and each of them at its smallest scale."""

import json
import re
import string
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

PAPER = Path(__file__).resolve().parent.parent / "benchmarks" / "paper"
sys.path.insert(0, str(PAPER))

import arithmetic  # noqa: E402
import continuation  # noqa: E402
import experiment  # noqa: E402
import infilling  # noqa: E402
import rocstories  # noqa: E402
import subjectivity  # noqa: E402
import transfer  # noqa: E402

from lmppl.expressions.calculator import calculate  # noqa: E402
from lmppl.posterior.posterior import load  # noqa: E402

INFILL = 'lm LM = "{model}"\ngiven X, Y\nZ ~ LM("{{X}}") max 3 tokens\nobserve Y | X, Z\n'


@pytest.fixture(scope="module")
def framed(tiny_folder, tmp_path_factory):
    """An experiment of one comparison, one of its arms an impossible one."""
    folder = tmp_path_factory.mktemp("framed")
    program = folder / "prog.lm"
    program.write_text(INFILL.format(model=tiny_folder))
    study = experiment.start("toy", {"smoke": {"steps": 2}}, ["--scale", "smoke", "--out", str(folder / "work")])
    options = [f"{arm}.{text}" for arm in ("raw", "corrected") for text in ("steps=2", "draws=4", "num_samples=20")]
    rows = [{"X": " a b", "Y": " b.", "Z": " a."}]
    document = study.compare(
        program, {"Y": "given"}, engines="raw=gflownet,corrected=gflownet,exact,rejection,sft", data=rows,
        hold_out=["Z"], options=[*options, "raw.weighted=false"], seeds=2,
    )  # fmt: skip
    path = study.finish("A toy", experiment.columns("log_observed", "gleu", "bert_score"), ["A note."])
    return study, document, path


@pytest.mark.slow
def test_a_table_has_every_arm_and_its_lines_hold_all_seeds(framed):
    study, document, path = framed
    text = path.read_text()
    assert "python benchmarks/paper/toy.py --scale smoke" in text
    assert "steps = 2" in text
    assert "BERTScore" not in text  # a column that no arm has
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| given")}
    assert list(rows) == ["raw", "corrected", "exact", "rejection", "sft"]
    assert "given, sft: " in text  # the reason why it has no numbers
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert [line["seed"] for line in lines] == [0, 1, 0, 1, 0, 1, 0, 1, None]
    own = [line["log_observed"] for line in lines if line["arm"] == "raw"]
    mean = document["entries"][0]["measures"]["log_observed"]["mean"]
    assert np.mean(own) == pytest.approx(mean)
    assert f"{mean:.2f} ± {abs(own[0] - own[1]) / 2 * 12.706:.2f}" in rows["raw"]
    assert (study.folder({"Y": "given"}) / "report.html").exists()
    assert not (PAPER / "results" / path.name).exists()


def test_a_scale_may_name_models_and_another_may_be_asked_for(tmp_path):
    scales = {"gpu": {"models": {"LM": "large", "R": "judge"}, "batch_size": 7}}
    study = experiment.start("toy", scales, ["--scale", "gpu", "--out", str(tmp_path), "--lm", "LM=./mine"])
    assert study.lms == {"LM": "./mine", "R": "judge"}
    assert study.command.endswith("--scale gpu --lm LM=./mine --lm R=judge")
    assert study.parameters["batch_size"] == 7


@pytest.mark.slow
def test_an_experiment_goes_on_where_it_was(framed, monkeypatch):
    study, document, _ = framed
    monkeypatch.setattr("lmppl.compare.runs.infer", None)  # nothing may be run
    again = experiment.Experiment(study.name, study.scale, study.sizes, study.out)
    options = [f"{label}.{key}={value}" for label, key, value in _asked(document)]
    found = again.compare(
        study.out.parent / "prog.lm", {"Y": "given"}, engines="raw=gflownet,exact",
        data=[{"X": " a b", "Y": " b.", "Z": " a."}], hold_out=["Z"], options=options, seeds=2,
    )  # fmt: skip
    assert [entry["reason"] for entry in found["entries"]] == [None, None]


def _asked(document):
    return [("raw", key, value) for key, value in document["entries"][0]["options"].items()]


@pytest.mark.slow
def test_draws_as_they_come_have_equal_mass_and_share_what_was_learned(framed):
    study, document, _ = framed
    raw, corrected = document["entries"][:2]
    assert raw["fits"] == corrected["fits"]
    posteriors = [load(study.folder({"Y": "given"}) / entry["runs"][0]).rows[0] for entry in (raw, corrected)]
    plain, weighted = ([draw.log_weight for draw in row.draws] for row in posteriors)
    assert set(plain) == {0.0}
    assert len(set(weighted)) > 1
    assert [d.log_density for d in posteriors[0].draws] == [d.log_density for d in posteriors[1].draws]
    assert posteriors[0].log_evidence == pytest.approx(posteriors[1].log_evidence)


@pytest.mark.slow
def test_log_p_of_what_is_observed_is_the_mean_of_its_factor(framed):
    study, document, _ = framed
    exact = next(entry for entry in document["entries"] if entry["label"] == "exact")
    place = study.folder({"Y": "given"}) / exact["runs"][0]
    row = load(place).rows[0]
    mean = np.average([draw.factors["observe Y"] for draw in row.draws], weights=row.weights)
    found = json.loads((place / "measures.json").read_text())["value"]["measures"]
    assert found["log_observed"] == pytest.approx(mean)
    assert found["log_density"] < mean  # which the prior is a part of as well


# --- stories --------------------------------------------------------------------------------------


def test_shipped_stories_are_many_different_and_short():
    rows = [json.loads(line) for line in (experiment.PROGRAMS / "stories.jsonl").read_text().splitlines()]
    assert len(rows) >= 64
    for name in ("X", "Y", "Z"):
        assert len({row[name] for row in rows}) == len(rows)
    for row in rows:
        assert row["X"].count(". ") == 2
        assert [row[name][0] == " " for name in ("X", "Z", "Y")] == [False, True, True]
        assert row["Z"].find(".") == len(row["Z"]) - 1


@pytest.mark.model
def test_shipped_stories_fit_into_the_program(smollm2):
    rows = [json.loads(line) for line in (experiment.PROGRAMS / "stories.jsonl").read_text().splitlines()]
    assert max(len(smollm2.encode(row["Z"], markers=False)) for row in rows) <= 24


HEAD = "storyid,storytitle,sentence1,sentence2,sentence3,sentence4,sentence5\n"


def test_rocstories_are_read_and_what_does_not_fit_is_counted(tmp_path, monkeypatch, capsys):
    (tmp_path / "s.csv").write_text(
        HEAD + 'a,Rain,It rained.,"Bo, who was late, ran.",He fell.,"He said ""no"". ",He laughed.\n'
        "b,Sun,It shone.,Al sang.,Bea danced.,They met at noon.,They married.\n"
        "c,Snow,It snowed.,Cy ran.,He slid.,He shouted!,He laughed.\n"
        "d,Fog,It was foggy.,Di drove.,She stopped.,She met Mr. Li.,He laughed.\n"
    )
    monkeypatch.setattr(sys, "argv", ["rocstories.py", str(tmp_path / "s.csv"), str(tmp_path / "s.jsonl")])
    rocstories.main()
    said, rain = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert said == {"X": "It rained. Bo, who was late, ran. He fell.", "Z": ' He said "no".', "Y": " He laughed."}
    assert rain == {"X": "It shone. Al sang. Bea danced.", "Z": " They met at noon.", "Y": " They married."}
    assert "2 left out" in capsys.readouterr().out


@pytest.mark.parametrize("text", [HEAD + "a,Rain,It rained.,Bo ran.,,He fell.,He laughed.\n", "storyid,text\na,b\n"])
def test_broken_rocstories_are_refused(tmp_path, text):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ValueError, match=r"fewer than five sentences|no column sentence1"):
        rocstories.read(tmp_path / "s.csv")


# --- the experiments ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wordy(tmp_path_factory):
    """The tiny model with the words of the smallest scales' rows, sentence ends in one piece, and all characters."""
    files = [experiment.PROGRAMS / name for name in ("stories.jsonl", "tempered.jsonl")]
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    texts = [text for row in [*rows[:6], *rows[72:]] for text in row.values()]
    words = dict.fromkeys(word for text in texts for word in re.findall(r" ?[^ ]+", text))
    characters = sorted(set("\n".join(map(str, rows)) + string.printable))
    return tiny.save(tmp_path_factory.mktemp("wordy"), (*words, *characters), scale=0.5, window=512)


def smoke(module, model, folder):
    """Lines of a table by arm, and records, of an experiment at its smallest scale."""
    path = module.main(["--scale", "smoke", "--out", str(folder), "--lm", f"LM={model}"])
    lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines if "reason" in line] == []
    return path.read_text(), lines


def require_kept(module, model, folder, pattern, text):
    """Given again, an experiment writes the same table, and none of its runs."""
    written = {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}
    assert written
    assert smoke(module, model, folder)[0] == text
    assert {path: path.stat().st_mtime_ns for path in folder.glob(pattern)} == written


def require_apart(folder):
    """No row that is measured was trained on, by any arm."""
    fits = [json.loads(path.read_text()) for path in folder.glob("fits/*/run.json")]
    trained = {row["givens"]["X"] for fit in fits for row in fit["rows"]}
    measured = {row["givens"]["X"] for row in json.loads((folder / "compare.json").read_text())["rows"]}
    assert trained
    assert measured
    assert not trained & measured


@pytest.mark.slow
def test_infilling_at_its_smallest(wordy, tmp_path):
    text, lines = smoke(infilling, wordy, tmp_path)
    for condition in ("given", "simulated"):
        own = [line for line in lines if line["condition"] == {"Y": condition}]
        assert {line["arm"] for line in own} == set(infilling.ARMS)
        for line in own:
            assert line["bleu"] is not None
            assert line["log_observed"] < 0
        require_apart(tmp_path / f"Y={condition}")
        for arm in infilling.ARMS:
            assert re.search(rf"^\| {condition} \| {arm} \| 2 \| [\d.]+ ± [\d.]+ \|", text, re.MULTILINE)
    bounded = [line for line in lines if "missed_low" in line]
    assert {line["arm"] for line in bounded} == {"importance", "sft", "gflownet"}
    assert all(line["symmetric"] is not None for line in bounded)
    assert "KL(π‖q)" in text
    assert "BERTScore is left out" in text or "| BERTScore |" in text
    require_kept(infilling, wordy, tmp_path, "*/runs/*/run.json", text)


@pytest.mark.slow
def test_continuation_at_its_smallest(wordy, tmp_path):
    text, lines = smoke(continuation, wordy, tmp_path)
    long = [line for line in lines if line["condition"]["most tokens"] == 20]
    short = [line for line in lines if line["condition"]["most tokens"] == 6]
    assert {line["arm"] for line in long} == set(continuation.ARMS)
    assert {line["arm"] for line in short} == {*continuation.ARMS, "exact"} - {"gflownet"}
    for line in lines:
        assert line["likelihood"] == pytest.approx(line["log_density"] * line["condition"]["T"])
        assert line["distinct_2"] is not None
    far = {line["arm"]: line["total_variation"] for line in short}
    assert far.pop("exact") == pytest.approx(0, abs=0.01)
    assert all(-1e-6 < distance < 1 + 1e-6 for distance in far.values())
    require_apart(tmp_path / "T=0.8-most_tokens=20")
    for arm in continuation.ARMS:
        assert re.search(rf"^\| 0.8 \| 20 \| {arm} \| 2 \| -[\d.]+ ± [\d.]+ \|", text, re.MULTILINE)


@pytest.mark.slow
def test_arithmetic_at_its_smallest(wordy, tmp_path):
    text, lines = smoke(arithmetic, wordy, tmp_path)
    assert {line["condition"]["operands"] for line in lines} == set(arithmetic.MEASURED)
    for line in lines:
        assert 0 <= line["one_draw"] <= 1
        assert line["accuracy"] in (0, 0.5, 1)  # of two questions
    for arm in arithmetic.ARMS:
        assert {line["seed"] for line in lines if line["arm"] == arm} == {0, 1}
        assert re.search(rf"^\| 5 \| {arm} \| 2 \| [\d.]+ ± [\d.]+ \|", text, re.MULTILINE)
    data = arithmetic.questions(arithmetic.SCALES["smoke"])
    fits = list(tmp_path.glob("*/operands=3/fits/*/run.json"))
    assert len(fits) == 6  # three arms that learn, two seeds, for all lengths
    for fit in fits:
        taught = [row["givens"] for row in json.loads(fit.read_text())["rows"]]
        assert taught == list(data.train)
    for operands in arithmetic.MEASURED:
        for arm in arithmetic.ARMS[1:]:  # prompting learns nothing
            require_apart(tmp_path / arm / f"operands={operands}")


# --- questions ------------------------------------------------------------------------------------


def test_questions_are_right_and_apart():
    for sizes in arithmetic.SCALES.values():
        data = arithmetic.questions(sizes)
        worked = [row for row in data.train if "Z" in row]
        assert (len(worked), len(data.train) - len(worked)) == (sizes["worked"], sizes["pairs"])
        assert {operands: len(rows) for operands, rows in data.test.items()} == dict.fromkeys((3, 4, 5), sizes["test"])
        if sizes["pairs"] > 2:  # a step before the last goes below zero
            assert any("= -" in row["Z"].rpartition(",")[0] for row in worked)
        groups = [data.demonstrations, data.train, *data.test.values()]
        texts = [row["X"] for group in groups for row in group]
        assert len(set(texts)) == len(texts)
        assert {len(re.findall(r"\d+", row["X"])) for row in data.train} == {3, 4}
        for row in (row for group in groups for row in group):
            signed = re.findall(r"([-+]?) ?(\d+)", row["X"])
            assert int(row["Y"].removesuffix(".")) == sum(int(sign + number) for sign, number in signed)
    assert arithmetic.solved([6, 0, 8], "--") == {"X": "6 - 0 - 8", "Z": " 6 - 0 = 6, 6 - 8 = -2.", "Y": " -2."}


def test_rationales_are_what_the_calculator_writes():
    for row in arithmetic.generated(5, 50, 7):
        for step in row["Z"].removesuffix(".").split(","):
            question, _, result = step.partition("=")
            assert calculate(question + "=") == result


def test_worked_questions_are_read_and_kept_out_of_the_others(tmp_path):
    own = arithmetic.generated(3, 1, 3) + arithmetic.generated(4, 8, 99)  # the first is a test question
    entries = [
        {"str_query": f"Question: {row['X']} = ? Answer:", "str_rationale": row["Z"][1:-1], "num_sol": row["Y"][:-1]}
        for row in own
    ]  # fmt: skip
    path = tmp_path / "worked.json"
    path.write_text(json.dumps(entries))
    assert arithmetic.read(path) == own
    data = arithmetic.questions({"worked": 4, "pairs": 3, "test": 5}, arithmetic.read(path))
    assert data.demonstrations == own[1:4]
    assert data.train[:4] == own[4:8]
    assert all("Z" not in row for row in data.train[4:])
    texts = [row["X"] for rows in (data.demonstrations, data.train, *data.test.values()) for row in rows]
    assert len(set(texts)) == len(texts)
    path.write_text(json.dumps([{**entries[0], "str_query": "What is 3 + 4?"}]))
    with pytest.raises(ValueError, match="no question"):
        arithmetic.read(path)


def test_test_rows_are_never_trained_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"X": str(number)}) + "\n" for number in range(10)))
    train, test = infilling.split(path, 7, 3)
    assert [row["X"] for row in train] == list("0123456")
    assert [row["X"] for row in test] == list("789")
    with pytest.raises(ValueError, match="fewer than 8"):
        infilling.split(path, 8, 3)
    for module in (infilling, continuation):
        for sizes in module.SCALES.values():
            assert sizes["train"] + sizes["test"] <= 74


# --- subjectivity ---------------------------------------------------------------------------------


def reviews(folder, *, shared=False):
    """A folder of labelled rows as they are published, one of them both learned from and asked about where `shared`."""
    rows = [{"text": f"row {i} .", "label": i % 2, "label_text": ["objective", "subjective"][i % 2]} for i in range(20)]
    for name, own in (("train.50", rows[:10]), ("dev.500", rows[9 if shared else 10 :])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return folder


def test_reviews_are_read_as_they_are_published(tmp_path):
    folder = reviews(tmp_path)
    assert {"X": "row 1 .", "Y": " subjective"} in subjectivity.training_rows(folder, 10, 0)
    assert [row["X"] for row in subjectivity.test_rows(folder, 2)] == ["row 11 .", "row 13 ."]
    with pytest.raises(ValueError, match="5 rows to ask about, fewer than 6"):
        subjectivity.test_rows(folder, 6)


def test_a_row_that_was_learned_from_is_not_asked_about(tmp_path):
    folder = reviews(tmp_path, shared=True)
    study = experiment.start("subjectivity", subjectivity.SCALES, ["--scale", "smoke", "--out", str(tmp_path / "out")])
    train, dev = subjectivity.training_rows(folder, 10, 0), subjectivity._read(folder / "dev.500.jsonl")
    with pytest.raises(ValueError, match="among those to learn from"):
        subjectivity.Bench.of(study, train, dev)


def test_our_own_reviews_are_split_and_balanced():
    train, test = subjectivity.training_rows(None, 10, 0), subjectivity.test_rows(None, 12)
    assert not {row["X"] for row in train} & {row["X"] for row in test}
    for rows in (train, test):
        assert {row["Y"] for row in rows} == {" objective", " subjective"}
        assert sum(row["Y"] == " objective" for row in rows) * 2 == len(rows)
    with pytest.raises(ValueError, match="fewer than 13"):
        subjectivity.training_rows(None, 13, 0)


def test_seeds_learn_from_other_rows_of_either_label():
    chosen = [subjectivity.training_rows(None, 4, seed) for seed in (0, 1, 0)]
    assert chosen[0] == chosen[2] != chosen[1]
    for rows in chosen:
        assert sorted(row["Y"] for row in rows) == [" objective"] * 2 + [" subjective"] * 2


def test_rows_are_ranked_whatever_the_threshold_is():
    laws = [{"a": share, "b": 1 - share} for share in (0.9, 0.8, 0.8, 0.7)]
    assert subjectivity.ranked(laws, ["a", "a", "b", "b"]) == pytest.approx(3.5 / 4)
    assert subjectivity.ranked(laws, ["b", "b", "a", "a"]) == pytest.approx(0.5 / 4)


def test_answers_at_once_are_told_all_that_chains_are():
    chain, told = (path.read_text(encoding="utf-8") for path in (subjectivity.CHAIN, subjectivity.TOLD))
    *sentences, asked = re.search(r'^Z ~ LM\("(.*)"\) max 2 tokens$', chain, re.MULTILINE)[1].split(r"\n")
    kinds = re.search(r'^Y ~ LM\("(.*)\{Z\}:"\) in', chain, re.MULTILINE)[1]
    assert len(sentences) == 4
    assert kinds.count(": objective") == kinds.count(": subjective") == 8
    for line in (kinds, *(line.removesuffix(".") for line in sentences), asked.split(" It ")[0]):
        assert line in told


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The tiny model with the words of our own reviews and of what it is asked, and all characters."""
    programs = [path.read_text().replace("\\n", "\n") for path in subjectivity.ALL]
    text = "\n".join([*programs, subjectivity.REVIEWS.read_text()])
    words = dict.fromkeys(word for word in re.findall(r" ?[A-Za-z]+", text))
    letters = sorted(set(text + string.printable) - {*words})
    return tiny.save(tmp_path_factory.mktemp("reader"), (*words, *letters), scale=0.5, window=512)


@pytest.mark.slow
def test_subjectivity_at_its_smallest(reader, tmp_path):
    text, lines = smoke(subjectivity, reader, tmp_path)
    chained = [f"{arm}, {count}" for arm in ("GFlowNet", "GFlowNet + EM") for count in ("one chain", "3 chains")]
    learned = {line["arm"] for line in lines if line["condition"] == {"labels": 4}}
    assert learned == {"in-context", "SFT", "SFT, told", *chained}
    for arm in learned:
        assert sorted(line["seed"] for line in lines if line["arm"] == arm) == [0, 1]
        assert re.search(rf"^\| 4 \| {re.escape(arm)} \| 2 \| [\d.]+ ± [\d.]+ \|", text, re.MULTILINE)
    assert {line["arm"] for line in lines if line["condition"] == {"labels": 0}} == {
        "zero-shot", "zero-shot, told", "chain of thought, one chain", "chain of thought, 3 chains",
    }  # fmt: skip
    assert "Accuracy of GFlowNet with 4 labels above that of: zero-shot " in text
    assert "EM, 4 labels, seed 1: The log evidence " in text
    folders = list(tmp_path.glob("labels=4-*"))
    assert len(folders) == 2  # a seed has rows of its own
    (folder,) = (place for place in folders if (place / "gflownet-0").exists())
    for name in ("gflownet-0", "gflownet-em-0", "sft-0", "sft-told-0", "in-context-0"):
        asked = {row.givens["X"] for row in load(folder / name).rows}
        assert asked == {row["X"] for row in subjectivity.test_rows(None, 4)}
    for name in ("learned-sft-0", "learned-sft-told-0", "learned-gflownet-0"):
        rows = load(folder / name / "rounds" / "0" / "draws").rows
        assert {row.givens["X"] for row in rows} == {row["X"] for row in subjectivity.training_rows(None, 4, 0)}
    assert (folder / "gflownet-em-0" / "report.html").exists()
    found = load(folder / "gflownet-0")
    laws = subjectivity.one_chain(found)
    for number, row in enumerate(found.rows):  # the average of one-chain answers is what the run predicts
        for option, share in row.predictions["Y"].items():
            assert np.mean([law[number][option] for law in laws]) == pytest.approx(share, abs=1e-5)
    require_kept(subjectivity, reader, tmp_path, "*/*/run.json", text)


@pytest.mark.slow
def test_transfer_at_its_smallest(wordy, tmp_path):
    text, lines = smoke(transfer, wordy, tmp_path)
    tasks = transfer.rows_by_task()
    for task in tasks:
        for trained, arms in (("itself", {"prompting", "gflownet"}), ("both", {"gflownet"})):
            own = [line for line in lines if line["condition"] == {"task": task, "trained on": trained}]
            assert {line["arm"] for line in own} == arms
            assert all(line["log_observed"] < 0 for line in own if line["satisfied"])
    together = [
        json.loads(path.read_text()) for path in (tmp_path / "task=stories-trained_on=both").glob("fits/*/run.json")
    ]
    learned = {row["givens"]["P"] for fit in together for row in fit["rows"]}
    counts = [sum(row["P"] in learned for row in rows) for rows in tasks.values()]
    assert counts == [2, 2, 0]
    asked = {row["P"] for rows in tasks.values() for row in rows[-transfer.SCALES["smoke"]["test"] :]}
    assert not learned & asked
    assert "sums" in text
