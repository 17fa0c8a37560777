"""Derived values of draws: as results, files and exports have them, absent ones included."""

import csv
import json

import pytest
import toy
import xarray
from rich.console import Console

from lmppl.compare.measure import _fit as fit
from lmppl.compare.measure import names_of
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.errors import raise_errors
from lmppl.export.files import export
from lmppl.language.graph import graph_document
from lmppl.posterior import store
from lmppl.posterior.notebook import notebook_html
from lmppl.report.page.answer import answer_html
from lmppl.report.page.graph import layout
from lmppl.report.run import show_posterior
from lmppl.run import Request, run
from lmppl.source import Source

PROGRAM = """lm LM = "toy"
given X
Z ~ LM("{X} a") max 3
derive A = after(Z, " b")
derive N = words(A)
observe " a" | X, A
predict A
predict N
"""


@pytest.fixture(scope="module")
def program():
    analysis = analyse(Source("p.lm", PROGRAM), ".")
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


@pytest.fixture(scope="module")
def posterior(program):
    settings = {"chains": 2, "num_samples": 20}
    return run(program, [Row({"X": " b"}, {})], {"LM": toy.ToyModel(seed=3)}, Request("importance", settings, {}, 0))


def part(text):
    return text.partition(" b")[2] if " b" in text else None


def test_a_draw_has_what_is_derived_from_it(posterior):
    (row,) = posterior.rows
    assert {draw.derived["A"] for draw in row.draws} > {None, ""}
    for draw in row.draws:
        words = part(draw.values["Z"])
        assert draw.derived == {"A": words, "N": None if words is None else str(len(words.split()))}
    law = {}
    for draw, weight in zip(row.draws, row.weights, strict=True):
        law[draw.derived["A"]] = law.get(draw.derived["A"], 0) + weight
    assert posterior["A"] == pytest.approx(law)
    assert sum(row.probabilities("A", "Z").values()) == pytest.approx(1)
    known = row.predictions["A"]
    assert known.absent.value == pytest.approx(law[None])
    assert 0 < known.absent.error < 0.2
    assert known[""] == pytest.approx(law[""])
    with pytest.raises(KeyError, match="there is Z, A, N"):
        row.probabilities("B")


def test_files_keep_it_and_null_is_absent(posterior, tmp_path):
    store.save(posterior, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "draws.jsonl").read_text("utf-8").splitlines()]
    assert [line["derived"]["A"] for line in lines] == [part(line["values"]["Z"]) for line in lines]
    back = store.read(tmp_path / "run").rows[0]
    assert [draw.derived for draw in back.draws] == [draw.derived for draw in posterior.rows[0].draws]
    assert back.predictions["A"].outcomes == posterior.rows[0].predictions["A"].outcomes
    assert back.predictions["A"].absent is not None


def test_exports_have_a_column_of_texts(posterior, tmp_path):
    store.save(posterior, tmp_path / "run")
    for form in ("csv", "jsonl", "arviz"):
        export(tmp_path / "run", form)
    expected = [draw.derived["A"] for draw in posterior.rows[0].draws]
    with (tmp_path / "run" / "export" / "run.csv").open(newline="") as file:
        assert [line["A"] for line in csv.DictReader(file)] == [text or "" for text in expected]
    lines = (tmp_path / "run" / "export" / "run.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["A"] for line in lines] == expected
    with xarray.open_datatree(tmp_path / "run" / "export" / "run.nc", engine="h5netcdf") as tree:
        found = set(tree["text"]["A"].values.ravel().tolist())
        assert "N" in tree["text"]
        assert "A" not in tree["posterior"]
    assert found <= {text if text is not None else "(absent)" for text in expected}
    assert "(absent)" in found


def test_people_see_how_often_it_is_absent_and_why(posterior):
    console = Console(width=200, record=True)
    show_posterior(posterior, console)
    text = console.export_text()
    share = posterior.rows[0].predictions["A"].absent.value
    assert f"(absent) {share:.3f} ± " in text
    entropies = [line for line in text.splitlines() if line.startswith("entropy")]
    assert len(entropies) == 2
    assert all("is open" not in line for line in entropies)  # what is drawn settles it: no split
    missing = sum(draw.derived["A"] is None for draw in posterior.rows[0].draws)
    (warning,) = [line for line in posterior.rows[0].warnings if line.startswith("`A`")]
    assert warning.startswith(f"`A` (line 4) is absent in {missing} of 40 draws, such as Z = ")
    assert warning.endswith(": there is no ' b' in it")
    for page in (answer_html(posterior), notebook_html(posterior)):
        assert "(absent)" in page


def test_a_held_out_answer_is_a_label(program, posterior):
    likeliest, share = posterior.rows[0].predictions["N"].outcomes[0]
    names = names_of(program)
    assert names.derived == ["A", "N"]
    right = fit(posterior, [{"N": likeliest or ""}], names)
    assert right["one_draw"] == pytest.approx(share.value if likeliest else 0)
    wrong = fit(posterior, [{"A": "no such text"}], names)
    assert (wrong["accuracy"], wrong["one_draw"]) == (0, 0)
    assert wrong["brier"] == pytest.approx(
        1 + sum(share.value**2 for _, share in posterior.rows[0].predictions["A"].outcomes)
    )


def test_the_graph_shows_what_is_read_through_it(program):
    graph = graph_document(program)
    assert ["Z", "A"] in graph["edges"]
    assert ["A", "N"] in graph["edges"]
    assert ["A", 'observe " a"'] in graph["edges"]
    placed = {node.name: node for node in layout(graph).nodes}
    assert placed["Z"].y < placed["A"].y < placed["N"].y
    assert placed["A"].outline != placed["X"].outline
