"""The page that compares engines: what a model wrote stays text, and a browser shows all of it without a network."""

import json
import re

import page_document
import pytest

from lmppl.report.page import render
from lmppl.report.page.charts import charts
from lmppl.report.page.graph import layout
from lmppl.report.page.table import best, number, table

MOST_BYTES = 10_000_000
CONTROLS = ("#theme", ".row-picker", "#search", "#help", "#detail", "input[name=unit]")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return written(page_document.small(), tmp_path_factory)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return written(page_document.large(), tmp_path_factory)


def written(document, folders):
    path = folders.mktemp("page") / "index.html"
    path.write_text(render(document), encoding="utf-8")
    return path


# Without a browser


def test_texts_cannot_end_the_script_that_holds_them():
    html = render(page_document.small())
    data = re.search(r'<script type="application/json" id="document">(.*?)</script>', html, re.S).group(1)
    assert not set("<>&\u2028\u2029") & set(data)
    held = json.loads(data)
    wanted = page_document.small()["rows"][0]["texts"]
    assert [text["values"] for text in held["rows"][0]["texts"]] == [text["values"] for text in wanted]
    assert html.count("<script") == html.count("</script") == 3
    assert "<img" not in without_scripts(html)


def test_a_page_can_be_written_and_names_no_place_to_fetch_from():
    html = render(page_document.small())
    assert html.encode("utf-8").decode("utf-8") == html
    assert "default-src &#39;none&#39;" in html
    assert not re.search(r"(https?:)?//[a-z]", without_scripts(html))


def without_scripts(html):
    return re.sub(r"<script>.*?</script>", "", html, flags=re.S)


def test_numbers_that_are_not_finite_are_left_out():
    document = page_document.small()
    document["rows"][0]["log_evidence"] = float("-inf")
    assert '"log_evidence":null' in render(document)


def test_numbers_are_set_as_they_are_read():
    assert [number(None), number(1234567.8)] == ["–", "1,234,568"]
    assert [number(-0.0004, 3), number(-1.25, 1)] == ["0.000", "−1.2"]


@pytest.mark.parametrize(
    ("better", "ends", "winner"),
    [
        ("low", [(0.1, 0.2), (0.3, 0.4)], "0"),
        ("high", [(0.1, 0.2), (0.3, 0.4)], "1"),
        ("low", [(0.1, 0.3), (0.2, 0.4)], None),  # not clear of the other
        ("low", [(0.0, 0.5), (0.2, 0.3)], None),
        (None, [(0.1, 0.2), (0.3, 0.4)], None),
        ("low", [(0.1, 0.2)], None),  # best of itself
        ("low", [(None, None), (0.3, 0.4)], None),  # no interval, no claim
    ],
)
def test_best_is_who_is_clear_of_all_others(better, ends, winner):
    engines = [
        {"label": str(index), "measures": {"m": {"mean": 0.1, "low": low, "high": high}}}
        for index, (low, high) in enumerate(ends)
    ]
    assert best(engines, {"key": "m", "better": better}) == winner


def test_the_table_puts_groups_together():
    document = page_document.small()
    document["columns"].reverse()
    groups = [column.group for column in table(document).columns]
    assert groups == sorted(groups, key=["right", "text", "price"].index)
    assert sum(width for _, width in table(document).groups) == len(groups)


def test_what_a_node_reads_is_above_it_and_no_nodes_overlap():
    names = "ABCDEF"
    graph = layout(
        {
            "nodes": [{"name": name, "kind": "text"} for name in names],
            "edges": [["A", "B"], ["B", "C"], ["A", "C"], ["D", "C"], ["C", "E"], ["A", "F"], ["nobody", "A"]],
        }
    )
    place = {node.name: node for node in graph.nodes}
    assert all(place[one].y < place[other].y for one, other in ("AB", "BC", "AC", "DC", "CE", "AF"))
    assert len({(round(node.x), round(node.y)) for node in graph.nodes}) == len(names)
    assert len(graph.edges) == 6


def test_a_graph_that_goes_in_a_circle_or_is_empty_is_laid_out():
    nodes = [{"name": "A", "kind": "given"}, {"name": "B", "kind": "text"}]
    assert len(layout({"nodes": nodes, "edges": [["A", "B"], ["B", "A"]]}).nodes) == 2
    assert layout({"nodes": [], "edges": []}).nodes == ()


def test_plots_hold_no_data_and_name_no_place():
    for spec in charts(page_document.small()).values():
        assert "http" not in json.dumps(spec)
        assert "values" not in json.dumps(spec)


# In a browser


@pytest.mark.browser
def test_hostile_texts_stay_texts_and_are_searched_and_a_failure_has_its_reason(small, visit):
    page = visit(small)
    assert "gave no result: too many values <script>" in page.locator("tbody tr").last.inner_text()
    shown = "\n".join(page.locator(".draw .text").all_inner_texts())
    for text in page_document.HOSTILE[:4]:
        assert text in shown
    assert r"\u202e" in shown
    page.locator(".draw", has_text="<script>").first.focus()
    assert page_document.HOSTILE[0] in page.locator("#detail .factors").inner_text()
    assert page_document.HOSTILE[2] in page.locator("#detail .tokens").inner_text().replace("·", " ")
    assert page_document.HOSTILE[1] in page.locator("#advice").inner_text()
    assert page.locator("script").count() == 3
    assert page.locator("img").count() == 0
    assert page.evaluate("window.hacked") is None
    page.locator("#search").fill("ONERROR")
    assert page.locator("#found").inner_text() == "1 of 12 texts"
    assert page.locator(".draw:visible").count() == 2
    assert "these have mass 0.010" in page.locator(".column", has_text="annealed").first.inner_text()
    page.locator("#search").fill("")
    assert page.locator(".draw:visible").count() > 10


@pytest.mark.slow
@pytest.mark.browser
def test_picking_a_row_changes_texts_and_plots(small, visit):
    page = visit(small)
    outline = page.locator("#plot-densities svg").first.inner_html()
    assert page.locator("#plot-traces").is_visible()
    page.locator(".row-picker").last.select_option("1")
    assert page.locator(".row-picker").first.input_value() == "1"
    page.wait_for_selector("#plot-lineages svg")
    assert page.locator("#plot-traces").is_hidden()  # this row has none
    assert page.locator("#plot-densities svg").first.inner_html() != outline
    assert page.locator(".draw", has_text="row 2").count() > 0
    assert page.locator(".draw", has_text="row 1").count() == 0
    assert page_document.HOSTILE[1] in page.locator(".givens").first.inner_text()


@pytest.mark.slow
@pytest.mark.browser
def test_the_unit_of_cost_can_be_chosen(small, visit):
    page = visit(small)
    assert "tokens decoded" in page.locator("#plot-quality svg").text_content()
    page.locator("input[value=seconds]").check()
    page.wait_for_selector("#plot-quality svg:has-text('seconds')")


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_changes_page_and_plots(small, visit, scheme):
    page = visit(small, color_scheme=scheme)
    before = colours(page)
    page.locator("#theme").click()
    assert all(old != new for old, new in zip(before, colours(page), strict=True))
    page.locator("#theme").click()
    assert colours(page) == before


def colours(page):
    """Of the paper and of an engine's line."""
    line = page.locator("#plot-quality .mark-line path").first
    return [
        page.locator("body").evaluate("place => getComputedStyle(place).backgroundColor"),
        line.evaluate("place => getComputedStyle(place).stroke"),
    ]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("gesture", ["hover", "focus", "tap"])
def test_a_text_and_a_column_explain_themselves(small, visit, gesture):
    page = visit(small, has_touch=gesture == "tap")
    getattr(page.locator(".draw").first, gesture)()
    assert "log density" in page.locator("#detail").inner_text()
    assert "observe Y" in page.locator("#detail").inner_text()
    assert page.locator("#detail .token").count() > 0
    assert page.locator(".draw.looked-at").count() > 1  # the same text in every column
    getattr(page.locator(".explained").first, gesture)()
    assert page.locator("#help").inner_text().startswith("TV: Total variation")


@pytest.mark.slow
@pytest.mark.browser
def test_paper_is_light_and_has_no_controls(small, visit):
    page = visit(small, color_scheme="dark")
    page.locator("#theme").click()
    page.locator("#theme").click()
    page.emulate_media(media="print")
    for control in CONTROLS:
        assert page.locator(control).first.is_hidden(), control
    assert page.locator(".draw:visible").count() == page.locator(".draw").count()
    assert int(re.findall(r"\d+", colours(page)[0])[0]) > 200  # red, of 255


@pytest.mark.browser
@pytest.mark.parametrize("which", ["small", pytest.param("large", marks=pytest.mark.slow)])
def test_a_phone_scrolls_one_way(which, visit, request):
    page = visit(request.getfixturevalue(which), width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.slow
@pytest.mark.browser
def test_what_has_no_data_is_left_out(visit, tmp_path_factory):
    document = page_document.small() | {"rows": [], "bounds": None, "budget": None, "engines": []}
    page = visit(written(document, tmp_path_factory))
    assert page.locator("figure:visible").count() == 1  # the graph
    assert page.locator("#draws").is_hidden()


@pytest.mark.slow
@pytest.mark.browser
def test_a_large_page_is_small_enough_and_soon_usable(large, visit, capsys):
    size, page = large.stat().st_size, visit(large, wait=False)
    page.wait_for_selector("#plot-evidence svg")
    drawn = seconds_open(page)
    page.locator("#search").fill("rain")
    page.wait_for_selector("#found:has-text(' of 30 texts')")
    usable = seconds_open(page)
    with capsys.disabled():
        print(f"\npage {size / 1e6:.1f} MB, first plots after {drawn:.2f} s, search after {usable:.2f} s")
    assert size <= MOST_BYTES


def seconds_open(page):
    return page.evaluate("performance.now()") / 1000
