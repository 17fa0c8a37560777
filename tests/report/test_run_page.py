"""The page of one run: its answer first, whatever a text holds; what only some runs have; a phone, and the dark."""

import dataclasses
import html
import re

import page_document
import pytest

import lmppl
from lmppl.diagnosis.prediction import Prediction
from lmppl.posterior.answer import matrix
from lmppl.posterior.posterior import load
from lmppl.posterior.store import save
from lmppl.report.page import render_run
from lmppl.report.page.answer import answer_html
from lmppl.report.page.environment import figure, mass, seen
from lmppl.report.page.run import run_document
from lmppl.report.page.table import number

ROWS = [{"X": " a", "Y": " a ."}, {"X": " b b", "Y": " b"}]
CHOICE = 'given X, Y\nZ ~ LM(X) in [" a.", " b", " a b"]\nobserve Y ~ LM("{X}{Z}")\n'
TEXTS = "given X, Y\nA ~ LM(X) max 3 tokens\nZ ~ LM(X, A) max 3 tokens\nobserve Y ~ LM(X, Z)\nstatistic n = words(Z)\n"


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_folder):
    """Runs of a choice and of texts; and one whose texts are hostile."""
    root = tmp_path_factory.mktemp("runs")
    for name, body, engine in (("choice", CHOICE, "exact"), ("chains", TEXTS, "mcmc"), ("smc", TEXTS, "smc")):
        posterior = lmppl.compile(f'lm LM = "{tiny_folder}"\n{body}').infer(
            engine, data=ROWS, chains=2, num_samples=12, num_warmup=4
        )
        save(posterior, root / name)
    save(hostile(load(root / "smc")), root / "hostile")
    return root


def hostile(posterior):
    rows = []
    for row in posterior.rows:
        texts = [text.replace("\ud800", "") for text in page_document.HOSTILE]  # no file holds half a pair
        draws = [
            dataclasses.replace(draw, values={"A": texts[n % 4], "Z": texts[n % 5]}) for n, draw in enumerate(row.draws)
        ]
        predicted = {texts[0]: Prediction({texts[1]: 1.0}, {texts[1]: 0.1})}
        rows.append(
            dataclasses.replace(
                row, draws=draws, givens={texts[1]: texts[0], "X": texts[4]}, warnings=[texts[2]], predictions=predicted
            )
        )
    return dataclasses.replace(posterior, rows=rows)


@pytest.fixture(scope="module")
def pages(folders):
    for folder in folders.iterdir():
        (folder / "report.html").write_text(render_run(run_document(folder)), encoding="utf-8")
    return folders


def body_of(folder):
    """The page without its scripts."""
    return re.sub(
        r"<script.*?</script>|<style>.*?</style>", "", (folder / "report.html").read_text("utf-8"), flags=re.S
    )


def test_the_page_goes_from_program_to_answer_to_how_it_was_run(pages):
    page = body_of(pages / "chains")
    parts = ['id="program"', "<svg", 'id="answer"', "Verdict:", 'id="draws"', 'id="statistics"', 'id="plot-traces"',
             "--engine mcmc", "torch 2"]  # fmt: skip
    assert sorted(parts, key=page.index) == parts
    posterior = load(pages / "chains")
    failed = [check for row in posterior.rows for check in row.checks if check.status != "pass"]
    assert failed
    for check in failed:
        assert check.name in page
    assert "side by side" not in page  # it is no comparison


def test_masses_of_the_page_are_those_of_the_run(pages):
    found = matrix(load(pages / "choice"))
    page = body_of(pages / "choice")
    for line in found.lines:
        for option in found.options:
            before, after = (html.escape(mass(law[option])) for law in (line.prior, line.posterior))
            assert f">{after}<small>prior {before}</small>" in page
    assert 'id="statistics"' not in page  # of an exact law
    (texts, share), *_ = load(pages / "chains").rows[0].joint().items()
    assert f"{mass(share)}</td>" in body_of(pages / "chains")
    assert str(seen(texts[1])) in body_of(pages / "chains")


def test_what_texts_hold_stays_text(pages):
    text = (pages / "hostile" / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script") == 3
    for part in (body_of(pages / "hostile"), answer_html(load(pages / "hostile"))):
        assert "<img" not in part
        assert "&lt;script&gt;window.hacked=1" in part
        assert not set("\u2028\u202e") & set(part)
        assert "{{ 7 * 7 }}" in part


def test_a_fragment_is_whole_by_itself(folders):
    fragment = answer_html(load(folders / "choice"))
    assert fragment.count("<div") == fragment.count("</div>")
    assert "<style>" in fragment
    assert "<script" not in fragment
    assert "<style>" not in answer_html(load(folders / "choice"), style=False)


def test_infinity_is_no_dash_and_small_is_not_nothing():
    assert [number(value) for value in (float("-inf"), float("inf"), float("nan"), None)] == ["−∞", "∞", "–", "–"]
    assert [mass(value) for value in (0.0, 1e-9, 0.25)] == ["0", "<0.001", "0.250"]
    assert figure({"a": [1.5, None, float("-inf")]}) == "a 1.5, –, −∞"
    assert str(seen(" a\n\x1b<")) == (
        '<span class="unseen">·</span>a<span class="unseen">↵</span>\n<span class="unseen">\\u001b</span>&lt;'
    )


@pytest.mark.browser
def test_a_browser_shows_hostile_texts_as_texts_searches_them_and_picks_rows(pages, visit):
    page = visit(pages / "hostile" / "report.html")
    assert page_document.HOSTILE[0] in page.locator("#answer").inner_text()
    assert page_document.HOSTILE[0] in page.locator("#columns").inner_text()
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None
    everything = page.locator(".draw:visible").count()
    page.locator("#search").fill("onerror")
    assert 0 < page.locator(".draw:visible").count() < everything
    page.locator(".row-picker").first.select_option("1")
    assert page.locator(".givens").first.inner_text()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(("run", "there"), [("chains", ["traces", "ranks"]), ("smc", ["lineages"]), ("choice", [])])
def test_plots_are_those_that_the_engine_has(pages, visit, run, there):
    page = visit(pages / run / "report.html")
    shown = [name for name in ("traces", "ranks", "lineages") if page.locator(f"#plot-{name}").is_visible()]
    assert shown == there
    assert page.locator("#draws").is_visible() == (run != "choice")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_and_wide_tables_say_so(pages, visit, scheme):
    for run in ("chains", "choice", "hostile"):
        page = visit(pages / run / "report.html", width=390, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.locator("#answer .hint").count() > 0
        for place in page.locator(".scroll:visible").all():
            wide, said = place.evaluate("p => [p.scrollWidth > p.clientWidth + 1, !p.previousElementSibling.hidden]")
            assert wide == said
