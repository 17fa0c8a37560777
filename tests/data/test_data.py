"""Data: what a cell of a file or of Python is, columns, tables, and comparisons of texts and numbers."""

import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import tiny

import lmppl
from lmppl.compile import as_records
from lmppl.data.tables import records_of
from lmppl.decoding.randomness import Randomness
from lmppl.density.binding import bind
from lmppl.errors import LmpplError, abridged
from lmppl.expressions.functions import same
from lmppl.expressions.values import NoValue, cell, read_number, written
from lmppl.run import Request, run

DIGITS = (*"0123456789.e+-", " four.", " five.", "a", "b")
CHOICE = 'lm LM = "tiny"\ngiven X\nZ ~ LM("a{X}") in ["a", "b"]\n'


@pytest.fixture(scope="module")
def digits():
    """A model whose tokens are digits: every other way to write a number has another probability."""
    return tiny.model(DIGITS)


def written_to(folder, name, text) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows_of(body, data, **how):
    """The rows that a program makes of data, and warnings."""
    return lmppl.compile(body).configure(how.pop("settings", {}), as_records(data), **how)[1:]


def messages(body, data, **how):
    with pytest.raises(LmpplError) as caught:
        rows_of(body, data, **how)
    return [finding.message for finding in caught.value.diagnostics]


def posteriors(body, data, model, engine="exact"):
    program, rows, _ = lmppl.compile(body).configure({}, as_records(data))
    return run(program, rows, {"LM": model}, Request(engine, {"num_samples": 4, "chains": 1})).rows


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written_as", ["1234567", "3.14159265", "1e3", "1E+3", "9007199254740993", "-0", "0.10", "9" * 400, "1e999"]
)
def test_a_json_number_is_the_text_that_was_written(tmp_path, written_as, digits):
    data = written_to(tmp_path, "d.jsonl", f'{{"X": {written_as}}}\n{{"X": "{written_as}"}}\n')
    rows, _ = rows_of(CHOICE, data)
    assert [row.givens["X"] for row in rows] == [written_as, written_as]


def test_numbers_are_scored_by_their_digits(tmp_path, digits):
    body = 'lm LM = "tiny"\ngiven X\nZ ~ LM("a") in [" four.", " five."]\nobserve X | "b{Z}"\n'
    data = written_to(tmp_path, "d.jsonl", '{"X": 1234567}\n{"X": "1234567"}\n{"X": 1.23457e+06}\n')
    number, text, rounded = posteriors(body, data, digits)
    first = [digits.encode("a", markers=True), digits.encode("b", markers=True)]
    brute = []
    for option in (" four.", " five."):
        prior = tiny.reference_log_prob(digits, digits.begin(first[0]), digits.encode(option, markers=True))
        context = digits.begin(first[1] + digits.encode(option, markers=True))
        brute.append((prior, tiny.reference_log_prob(digits, context, digits.encode("1234567", markers=False))))
    prior = np.array([p for p, _ in brute])
    expected = np.logaddexp.reduce(prior - np.logaddexp.reduce(prior) + [likelihood for _, likelihood in brute])
    assert number.log_evidence == pytest.approx(expected, abs=1e-4)
    assert number.log_evidence == text.log_evidence
    assert abs(rounded.log_evidence - text.log_evidence) > 1


def test_observed_latents_and_worked_rows_keep_digits(tmp_path, digits):
    written_to(tmp_path, "pool.jsonl", '{"X": 1234567, "Z": 3.14159265}\n')
    body = (
        'lm LM = "tiny"\ngiven X\nexamples D = 1 from "pool.jsonl" as "{X}{Z}"\nZ ~ LM("{D}{X}") in ["10000001", "b"]\n'
    )
    program = lmppl.compile(written_to(tmp_path, "p.lm", body))
    data = written_to(tmp_path, "d.jsonl", '{"X": 12345678, "Z": 10000001}\n')
    _, rows, _ = program.configure({}, as_records(data))
    assert rows[0].observed == {"Z": "10000001"}
    assert rows[0].worked["D"] == ({"X": "1234567", "Z": "3.14159265"},)
    assert posteriors(written_to(tmp_path, "p.lm", body), data, digits)[0].givens == {"X": "12345678", "Z": "10000001"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1234567"), (2**53 + 1, "9007199254740993"), (10**400, "1" + "0" * 400), (3.14159265, "3.14159265"),
     (3.0, "3.0"), (np.int64(7), "7"), (np.float32(3.14), "3.14"), (Decimal("1.50"), "1.50"), ("é", "é"), ("", "")],
)  # fmt: skip
def test_python_numbers_are_texts(value, text):
    assert cell(value) == text


def test_missing_in_python():
    pandas = pytest.importorskip("pandas")
    gone = (None, math.nan, np.nan, np.float32("nan"), Decimal("nan"), pandas.NA, pandas.NaT)
    assert [cell(value) for value in gone] == [None] * len(gone)


@pytest.mark.parametrize(
    ("value", "problem"),
    [(True, "a truth"), (np.bool_(True), "a truth"), (["a"], "a list"), (("a",), "a list"), ({"a": 1}, "a mapping"),
     (math.inf, "infinite"), (np.float64("-inf"), "infinite"), (b"a", "kind `bytes`"),
     ("a\ud800b", "half a pair of surrogates"), ("a\udcff", "byte 0xFF")],
)  # fmt: skip
def test_what_is_no_value(value, problem):
    found = cell(value)
    assert isinstance(found, NoValue)
    assert problem in found.problem
    assert messages(CHOICE, [{"X": "a"}, {"X": value}]) == [f"the value of `X` in row 2 of the data {found.problem}"]
    with pytest.raises(LmpplError, match="X"):
        lmppl.compile(CHOICE).configure({"X": value}, [])


def test_an_integer_that_python_does_not_write():
    found = cell(10**5000)
    assert isinstance(found, NoValue)
    assert "too many digits" in found.problem


@pytest.mark.parametrize("value", ["null", "NaN"])
def test_missing_in_a_file_and_in_python(tmp_path, value):
    data = written_to(tmp_path, "d.jsonl", f'{{"X": {value}, "Y": 1}}\n{{"Y": 1}}\n')
    expected = ["`given X` has no value in this row of the data"] * 2
    assert messages(CHOICE, data) == expected
    python = [{"X": {"null": None, "NaN": math.nan}[value]}, {}]
    assert messages(CHOICE, python) == [f"`given X` has no value in row {i} of the data" for i in (1, 2)]
    with pytest.raises(LmpplError, match="`given X` has no value in what was given"):
        lmppl.compile(CHOICE).infer(X=python[0]["X"])


@pytest.mark.parametrize("value", ["true", "[1]", '{"a": 1}', "Infinity", '"\\ud800"'])
def test_no_value_in_a_file_is_located(tmp_path, value):
    data = written_to(tmp_path, "d.jsonl", f'{{"X": 1}}\n{{"X": {value}}}\n')
    with pytest.raises(LmpplError) as caught:
        rows_of(CHOICE, data)
    (finding,) = caught.value.diagnostics
    assert finding.code == "bad-data"
    assert finding.source.position(finding.span.start)[0] == 2


def test_columns_that_nothing_reads_may_hold_anything(tmp_path):
    line = '{"X": "a", "ok": true, "meta": {"id": 1, "id": 2}, "tags": ["p"], "far": Infinity, "odd": "\\ud800"}\n'
    rows, warnings = rows_of(CHOICE, written_to(tmp_path, "d.jsonl", 50 * line))
    assert len(rows) == 50
    assert [w.code for w in warnings] == ["unused-column"] * 5
    assert len(rows_of(CHOICE, [{"X": "a", "ok": True, "tags": ["p"]}])[0]) == 1


def test_a_setting_stands_in_for_a_bad_cell(tmp_path):
    rows, _ = rows_of(CHOICE, written_to(tmp_path, "d.jsonl", '{"X": [1]}\n'), settings={"X": "b"})
    assert rows[0].givens == {"X": "b"}


# --- columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.csv", "X,X\nfirst,second\n", "several columns are named `X`"),
        ("d.csv", "X,Y,Y\na,b,c\n", "several columns are named `Y`"),
        ("d.jsonl", '{"X": "first", "X": "second"}\n', "the key `X` stands twice in this line"),
        ("d.jsonl", '{"X": "first", "Y": 1, "Y": null}\n', "the key `Y` stands twice in this line"),
    ],
)
def test_repeated_names(tmp_path, name, text, message):
    assert messages(CHOICE, written_to(tmp_path, name, text)) == [message]


@pytest.mark.parametrize(
    ("name", "text"),
    [("d.csv", "X;Y\n1,5;b\n"), ("d.csv", "X\tY\n1,5\tb\n"), ("d.tsv", "X\tY\n1,5\tb\n"), ("d.csv", 'X,Y\n"1,5",b\n'),
     ("d.csv", '\ufeff"X";"a, b"\r\n"1,5";b\r\n'), ("d.csv", "\nX,Y,,\n\"1,5\",b,,\n"), ("d.tsv", "X\n1,5\n")],
)  # fmt: skip
def test_separators(tmp_path, name, text):
    assert rows_of(CHOICE, written_to(tmp_path, name, text))[0][0].givens == {"X": "1,5"}


def test_a_cell_may_be_as_long_as_its_file(tmp_path):
    long = "a" * 300_000
    assert rows_of(CHOICE, written_to(tmp_path, "d.csv", f"X\n{long}\n"))[0][0].givens == {"X": long}


def test_renamed_columns(tmp_path):
    data = written_to(tmp_path, "d.csv", "Customer Name,X\nAnna,no\n")
    rows, warnings = rows_of(CHOICE, data, columns={"X": "Customer Name"})
    assert rows[0].givens == {"X": "Anna"}
    assert warnings == ()
    assert messages(CHOICE, data, columns={"X": "Customer"}) == ["the data have no column `Customer`"]
    assert messages(CHOICE, data, columns={"V": "X"}) == ["--column V: the program has no given and no latent `V`"]


TABLE = {"X": ["a", None, "b"], "n": [1, 2, 3]}


def test_tables_of_python():
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    lists = [dict(zip(TABLE, values, strict=True)) for values in zip(*TABLE.values(), strict=True)]
    expected = [{"X": "a", "n": "1"}, {"n": "2"}, {"X": "b", "n": "3"}]
    frame = pandas.DataFrame(TABLE, index=[7, 7, 9])
    for data in (TABLE, lists, iter(lists), frame, pyarrow.table(TABLE), pyarrow.RecordBatch.from_pydict(TABLE)):
        records = records_of(data)
        assert [record.values for record in records] == expected
        assert [record.name for record in records] == [f"row {i} of the data" for i in (1, 2, 3)]
    small = pandas.DataFrame({"X": np.array([3.14, math.nan], dtype=np.float32), "n": pandas.array([1, None])})
    assert [record.values for record in records_of(small)] == [{"X": "3.14", "n": "1"}, {}]
    twice = pandas.DataFrame([[1, 2]], columns=["X", "X"])
    with pytest.raises(LmpplError, match="several columns are named `X`"):
        records_of(twice)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data have no rows"),
        ({}, "the data have no rows"),
        ({"X": []}, "the data have no rows"),
        ({"X": "abc"}, "`data` has no list of values for `X`"),
        ({"X": ["a"], "Y": [1, 2]}, "the columns of the data have different lengths: `X` 1, `Y` 2"),
        (["a"], "row 1 of the data is no mapping"),
        ([{"X": "a"}, None], "row 2 of the data is no mapping"),
        (5, "`data` is of the kind `int`"),
    ],
)
def test_what_is_no_table(data, message):
    assert messages(CHOICE, data) == [message]


# --- comparisons ----------------------------------------------------------------------------------


def test_one_rule_of_equality():
    assert same("5", "5")
    assert not same("5", "5.0")
    assert same("5.0", 5.0)
    assert same(" 5 ", 5.0)
    assert same("1", True)
    assert not same("five", 5.0)
    assert not same("nan", math.nan)
    assert math.isnan(read_number("1_000"))
    assert math.isnan(read_number("inf"))
    assert (written(17.0), written(1234567.0), written(0.1), written(True)) == ("17", "1234567", "0.1", "true")


@pytest.mark.parametrize(("operator", "left"), [("!=", {"6": 1.0}), ("==", {"5": 1.0})])
def test_a_number_of_the_data_equals_the_text(tmp_path, operator, left, digits):
    body = f'lm LM = "tiny"\ngiven X\nZ ~ LM("34") in ["5", "6"]\nconstrain Z {operator} X\n'
    data = written_to(tmp_path, "d.jsonl", '{"X": 5}\n{"X": "5"}\n')
    number, text = posteriors(body, data, digits)
    assert number.joint() == text.joint()
    assert {texts[0]: mass for texts, mass in number.joint().items()} == pytest.approx(left)


@pytest.mark.parametrize("operator", ["==", "!=", "<", ">="])
@pytest.mark.parametrize("given", ["1", "1.0", "2"])
def test_a_count_compares_with_a_given_as_with_a_number(operator, given):
    """By masks and at the end alike: draws of an engine that is guided, and the law of all texts."""
    model = tiny.model()
    body = f'lm LM = "tiny"\ngiven X\nZ ~ LM(" a") max 3 tokens\nconstrain count(Z, "b") {operator} X\n'
    by_text = posteriors(body, [{"X": given}], model)[0]
    by_number = posteriors(body.replace("given X\n", "").replace(" X\n", f" {given}\n"), [{}], model)[0]
    assert by_text.log_evidence == pytest.approx(by_number.log_evidence, abs=1e-9)
    program, rows, _ = lmppl.compile(body).configure({"X": given}, [])
    assert bind(program, {"LM": model}, rows[0])[0].text_latent("Z").masks is not None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('Y ~ LM("a") in [" yes", " no"]\nconstrain Y == "yes"\n', ["never holds", "did you mean ` yes`?"]),
        ('Y ~ LM("a") in [" yes", " no"]\nconstrain Y != "yes"\n', ["always holds"]),
        ('Y ~ LM("a") in [" yes", " no"]\nconstrain contains(Y, "s") or Y == 5\n', ["never holds", "no number"]),
        ('Z ~ LM("a")\nconstrain words(Z) != "many"\n', ["always holds", "equal to no number"]),
        ('Z ~ LM("a")\nstatistic s = "x" == chars(Z)\n', ["never holds", "no number"]),
        ('Y ~ LM("a") in ["a", "b"]\nW ~ LM("{Y}") in ["c", "d"]\nconstrain not (W == Y)\n', ["never holds"]),
    ],
)
def test_a_comparison_that_never_holds_is_found(body, words):
    program = lmppl.compile('lm LM = "tiny"\n' + body)
    (finding,) = [w for w in program.warnings if w.code == "never-equal"]
    for word in words:
        assert word in f"{finding.message} {finding.help}"


@pytest.mark.parametrize(
    "body",
    [
        'Y ~ LM("a") in ["5", "no"]\nconstrain Y == 5 or Y != "no"\n',
        'Z ~ LM("a")\nconstrain Z == "anything" or words(Z) == "5"\n',
        'Z ~ LM("a")\nconstrain contains(Z, "a") == 1\n',
    ],
)
def test_one_that_may_hold_is_not(body):
    assert not [w for w in lmppl.compile('lm LM = "tiny"\n' + body).warnings if w.code == "never-equal"]


def test_a_row_whose_comparison_never_holds(digits):
    body = 'lm LM = "tiny"\ngiven X\nZ ~ LM("a") in ["5", "6"]\nconstrain X == Z or Z != X or X == "7"\n'
    program, rows, _ = lmppl.compile(body).configure({"X": "8"}, [])
    found = [finding for finding in bind(program, {"LM": digits}, rows[0])[1] if finding.code == "never-equal"]
    assert [finding.source.slice(finding.span) for finding in found] == ["X == Z"]


@pytest.mark.parametrize(("given", "holds"), [("0", False), ("1", True), ("-2.5", True)])
def test_a_given_as_a_truth(given, holds, digits):
    body = 'lm LM = "tiny"\ngiven X\nZ ~ LM("a") in ["5", "6"]\nconstrain X or Z == "5"\n'
    assert len(posteriors(body, [{"X": given}], digits)[0].support) == (2 if holds else 1)


@pytest.mark.parametrize(
    "statement", ["factor X * tokens(Z)", "constrain X and tokens(Z) > 0", "constrain not X or tokens(Z) > 0"]
)
def test_a_text_that_is_no_number_is_located(statement, digits):
    body = f'lm LM = "tiny"\ngiven X\nZ ~ LM("a") in ["5", "6"]\n{statement}\n'
    with pytest.raises(LmpplError) as caught:
        posteriors(body, [{"X": "many"}], digits)
    (finding,) = caught.value.diagnostics
    assert finding.code == "evaluation-failed"
    assert finding.source.position(finding.span.start)[0] == 4


# --- names that no file has -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a" * 5000 + ".jsonl", "a" * 5000 + "/d.jsonl", "a\0b.jsonl", "a\udcff.jsonl"])
def test_names_that_no_file_has(tmp_path, name):
    with pytest.raises(LmpplError) as caught:
        rows_of(CHOICE, name)
    assert [finding.code for finding in caught.value.diagnostics] == ["unreadable-file"]
    body = f'lm LM = "tiny"\nexamples D = 1 from {json.dumps(name)} as "{{X}}"\nZ ~ LM("{{D}}") max 2 tokens\n'
    with pytest.raises(LmpplError) as caught:
        lmppl.compile(body.replace("\\u0000", "\\0"))
    assert caught.value.diagnostics[0].span is not None


# --- many rows ------------------------------------------------------------------------------------


def test_findings_of_one_kind_are_shown_ten_times_and_counted(tmp_path):
    text = "X,Y\n" + "".join(f"{'a' if i % 2 else ''},b\n" for i in range(100)) + "a,b,c\n"
    with pytest.raises(LmpplError) as caught:
        rows_of(CHOICE, written_to(tmp_path, "ragged.csv", text.replace("a,b\n", "a,b,c,d\n")))
    assert str(caught.value).count("this row has 4 cells") == 10
    assert str(caught.value).endswith("(and 41 more of this kind)")
    with pytest.raises(LmpplError) as caught:
        rows_of(CHOICE, written_to(tmp_path, "d.csv", text.removesuffix("a,b,c\n")))
    shown = abridged(caught.value.diagnostics)
    assert [more for _, more in shown] == [*[0] * 9, 40]
    assert len(caught.value.diagnostics) == 50


def test_kinds_of_findings_are_told_apart(tmp_path):
    body = 'lm LM = "tiny"\ngiven X, Y\nZ ~ LM("{X}{Y}") in ["a", "b"]\n'
    with pytest.raises(LmpplError) as caught:
        rows_of(body, [{"V": 1}] * 5 + [{"X": True}])
    assert [(f.code, more) for f, more in abridged(caught.value.diagnostics)] == [
        *[("missing-given", 0)] * 9,
        ("missing-given", 1),
        ("bad-data", 0),
    ]


def test_draws_of_a_known_law_are_those_of_the_seed_and_drawn_when_read(monkeypatch):
    """The draws that a plain loop over the same random numbers gives, and none of them without being asked for."""
    model = tiny.model()
    body = 'lm LM = "tiny"\nY ~ LM(" a") in [" a", " b", "."]\nobserve " b" ~ LM("{Y}")\n'
    asked = []
    uniforms = Randomness.uniforms
    monkeypatch.setattr(Randomness, "uniforms", lambda self, *key: asked.append(key) or uniforms(self, *key))
    program, rows, _ = lmppl.compile(body).configure({}, [])
    found = run(program, rows, {"LM": model}, Request("exact", {"chains": 2, "num_samples": 30}, seed=5))
    document = found.document()
    assert asked == []
    (row,) = found.rows
    mass = {state.values["Y"]: state.probability for state in row.support}
    cumulative = np.cumsum([mass[option] for option in (" a", " b", ".")])
    for draw in row.draws:
        level = uniforms(Randomness(5, 0), draw.chain, 0, 0, 30)[draw.draw] * cumulative[-1]
        assert draw.values["Y"] == (" a", " b", ".")[int(np.searchsorted(cumulative, level, side="right"))]
    assert [(draw.chain, draw.draw) for draw in row.draws] == [(c, d) for c in range(2) for d in range(30)]
    assert row.draws[-1] == row.draws[59] == row.draws[50:][-1]
    assert "draws" not in document["rows"][0]
    assert len(found.document(draws=True)["rows"][0]["draws"]) == 60
    few = run(program, rows, {"LM": model}, Request("exact", {"chains": 1, "num_samples": 7}, seed=5)).rows[0]
    assert list(few.draws) == list(row.draws[:7])  # fewer chains and draws are the first ones of more


def test_the_summary_of_a_known_law_is_its_own():
    model = tiny.model()
    body = 'lm LM = "tiny"\nY ~ LM(" a") in [" a", " b", "."]\nfactor count(Y, "b")\nstatistic s = 3 * count(Y, "a")\n'
    (row,) = posteriors(body, None, model)
    mass = {state.values["Y"]: state.probability for state in row.support}
    table, expected = row.summary(), sum(state.probability * state.log_density for state in row.support)
    assert table["s"]["mean"] == pytest.approx(3 * mass[" a"])
    assert table["s"]["sd"] == pytest.approx(3 * math.sqrt(mass[" a"] * (1 - mass[" a"])))
    assert table["log density"]["mean"] == pytest.approx(expected, abs=1e-4)
    assert table["s"]["mcse"] == 0
    assert table["s"]["ess_bulk"] is None
