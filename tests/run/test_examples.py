"""`examples`: worked rows drawn into contexts, by a seed, without the data row itself."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tiny

from lmppl.compile import CompiledProgram, analyse
from lmppl.data.records import Record
from lmppl.data.rows import make_rows
from lmppl.density.binding import bind
from lmppl.errors import LmpplError, raise_errors
from lmppl.language.graph import graph_text
from lmppl.report.explain import explain_ir
from lmppl.run import Request, run
from lmppl.source import Source

POOL = [{"X": f" {x}", "Z": f" {z}"} for x in "ab" for z in "ab."] + [{"X": " b b"}]
BODY = """given X
param k = 2
param s = 0
examples E = k from "pool.jsonl" as "{X}{Z}." seed s
Z ~ LM("{E}{X}") max 2
guide Z | X
"""


@pytest.fixture
def folder(tmp_path):
    lines = "\n".join(map(json.dumps, POOL))
    (tmp_path / "pool.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return tiny.model(seed=3)


def compiled(folder, body=BODY):
    analysis = analyse(Source("p.lm", f'lm LM = "tiny"\n{body}'), folder)
    raise_errors(analysis.findings)
    return CompiledProgram(analysis)


def rows_of(folder, *given, body=BODY, **settings):
    records = [Record({"X": text}) for text in given]
    return compiled(folder, body).configure({name: str(value) for name, value in settings.items()}, records)[:2]


def prompt(folder, model, text, **settings):
    program, rows = rows_of(folder, text, **settings)
    return model.decode(bind(program, {"LM": model}, rows[0])[0].text_latent("Z").terms[0].context.prompt)


def test_the_density_is_that_of_the_text_written_out(folder, model):
    program, rows = rows_of(folder, " b b", k=3)
    shown = "".join(f"{row['X']}{row['Z']}." for row in rows[0].worked["E"])
    written = compiled(folder, f'given X\nZ ~ LM("{shown}{{X}}") max 2').program
    states = [{"Z": z} for z in [(), (0,), (1, 2), (2, 2)]]
    densities = [
        bind(p, {"LM": model}, replace(rows[0], worked=worked))[0].log_density(states).total
        for p, worked in ((program, rows[0].worked), (written, {}))
    ]
    np.testing.assert_allclose(*densities, atol=1e-6)
    assert model.decode(bind(program, {"LM": model}, rows[0])[0].guide("Z").context.prompt) == " b b"  # sees none


def test_a_row_never_sees_itself_or_rows_that_lack_a_column(folder):
    for text in (" a", " b"):
        _, rows = rows_of(folder, text, k=3)
        assert {row["X"] for row in rows[0].worked["E"]} == {" a", " b"} - {text}
    _, rows = rows_of(folder, ".", k=6)
    assert len(rows[0].worked["E"]) == 6  # the seventh has no Z
    with pytest.raises(LmpplError, match="asks for 4 worked rows, and there are 3"):
        rows_of(folder, " a", k=4)


def test_a_row_is_itself_where_all_givens_agree(folder):
    pool = [{"X": x, "Y": y} for x in "ab" for y in "ab"]
    (folder / "pool.jsonl").write_text("\n".join(map(json.dumps, pool)), encoding="utf-8")
    body = 'given X\ngiven Y\nexamples E = 3 from "pool.jsonl" as "{X}{Y}"\nZ ~ LM("{E}{X}{Y}") max 2\n'
    rows = compiled(folder, body).configure({}, [Record({"X": "a", "Y": "b"})])[1]
    assert sorted(row["X"] + row["Y"] for row in rows[0].worked["E"]) == ["aa", "ba", "bb"]


def test_the_seed_chooses_and_more_of_them_begin_alike(folder, model):
    first = [prompt(folder, model, ".", k=k) for k in range(7)]
    assert first[0] == "."
    assert all(more.startswith(less[:-1]) for less, more in pairwise(first))
    assert prompt(folder, model, ".", k=2) == first[2]
    assert len({prompt(folder, model, ".", k=2, s=seed) for seed in range(8)}) > 2


def test_values_are_plain_text_and_the_template_may_hold_markers(folder, model):
    (folder / "pool.jsonl").write_text('{"X": "<end>", "Z": " {b}"}\n', encoding="utf-8")
    wide = tiny.model(words=(" a", " b", ".", "<", "e", "n", "d", ">", " ", "{", "b", "}"))
    body = 'given X\nexamples E = 1 from "pool.jsonl" as "{X}<end>{Z}"\nZ ~ LM("{E}{X}") max 2\n'
    program, rows = rows_of(folder, " a", body=body)
    tokens = bind(program, {"LM": wide}, rows[0])[0].text_latent("Z").terms[0].context.prompt
    assert tokens.count(wide.end) == 1
    assert tokens[: tokens.index(wide.end)] == wide.encode("<end>", markers=False)


def test_what_is_shown_is_part_of_what_a_run_stands_for(folder, model, tmp_path):
    program, rows = rows_of(folder, " a", k=1)
    others = rows_of(folder, " a", k=1, s=5)[1]
    assert rows[0].content() != others[0].content()
    found = [
        run(program, r, {"LM": model}, Request("exact", {"num_samples": 4})).rows[0].log_evidence
        for r in (rows, others)
    ]
    assert all(np.isfinite(value) for value in found)


def test_explain_and_graph_name_them(folder):
    program = compiled(folder).program
    assert "E = 2 worked rows of pool.jsonl, seed 0" in explain_ir(program)
    assert "'{E}{X}'" not in explain_ir(program)
    assert "log p_LM(Z | E X)" in explain_ir(program)
    assert "<- E, X" in graph_text(program)


def test_rows_are_read_only_where_they_are_shown(folder):
    program = compiled(folder).program
    (folder / "pool.jsonl").unlink()
    none = replace(program, examples=(replace(program.examples[0], count=0),))
    assert make_rows(none, [Record({"X": " a"})], {})[0][0].worked == {"E": ()}
    with pytest.raises(LmpplError, match="cannot be read"):
        make_rows(program, [Record({"X": " a"})], {})
