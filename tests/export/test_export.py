"""Exported draws: read back with the tools that will read them, on hostile texts and on weighted draws."""

import csv
import io
import json
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import xarray
from test_cli import failure, here, lmppl, write  # noqa: F401  a fixture

from lmppl.diagnosis.draws import Draw
from lmppl.diagnosis.summary import effective_size
from lmppl.export.files import export as write_export
from lmppl.posterior import store as results
from lmppl.posterior.columns import Key, column_names
from lmppl.posterior.posterior import Posterior
from lmppl.posterior.result import RowPosterior

HOSTILE = ["=1+1", '"a",b;\n\r\nc', "\u2028 \x85 \x0c ü 🙂", "", "-inf", "{X}\\n'", "\ttab "]
MIXED = """given X
Y ~ LM(X) in [" a", " b"]
Z ~ LM("{X}{Y}") max 4 tokens
observe "b" ~ LM(" a{Z}")
constrain chars(Z) * 2 > 5
statistic n = chars(Z)
"""


def posterior(rows, text='lm LM = "m"\nZ ~ LM(" a")\n', engine="importance"):
    program = {"path": "p.lm", "text": text, "sha256": "0"}
    options = {"chains": 2, "num_samples": 2, "engine_reason": "asked for"}
    cost = {"tokens_decoded": 0, "tokens_scored": 0, "forward_passes": 0, "seconds": 0.0}
    return Posterior(program, engine, 3, {"LM": {"identifier": "m"}}, options, rows, cost)


def row(texts, log_weights=None, chains=1, **givens):
    """A row of draws of these texts; the length of a text is its log density, but for impossible ones."""
    log_weights = [0.0] * len(texts) if log_weights is None else log_weights
    per_chain = len(texts) // chains
    draws = []
    for i, (text, log_weight) in enumerate(zip(texts, log_weights, strict=True)):
        density = float(len(text)) if log_weight > -np.inf else -np.inf
        factors = {"Z": -1.0, 'constrain Z != "x"': density}
        place = (i // per_chain, i % per_chain)
        draws.append(Draw({"Z": text}, {"Z": [1] * len(text)}, density, factors, log_weight, None, *place, {"n": 1.0}))
    return RowPosterior(givens, draws, -1.5, 0.1)


def exported(folder, form, found):
    results.save(found, folder / "run")
    write_export(folder / "run", form)
    return folder / "run" / "export"


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def read_jsonl(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def read_netcdf(path):
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load()


# --- tables ---------------------------------------------------------------------------------------


def test_tables_of_hostile_texts(tmp_path):
    found = posterior([row(HOSTILE, X="=cmd", K=3.0)])
    lines = {
        "csv": read_csv(exported(tmp_path, "csv", found) / "run.csv"),
        "jsonl": read_jsonl(exported(tmp_path, "jsonl", found) / "run.jsonl"),
        "parquet": pyarrow.parquet.read_table(exported(tmp_path, "parquet", found) / "run.parquet").to_pylist(),
    }
    for form, table in lines.items():
        assert [line["Z"] for line in table] == HOSTILE, form
        assert {line["X"] for line in table} == {"=cmd"}
        assert [float(line["log_density"]) for line in table] == [len(text) for text in HOSTILE]
        assert list(table[0]) == [
            "row", "chain", "draw", "X", "K", "Z", "log_density", "factor_Z", "factor_constrain_Z_x", "log_weight",
            "weight", "log_proposal", "tokens_Z", "n",
        ]  # fmt: skip
    assert [lines[form][0]["log_proposal"] for form in lines] == ["", None, None]
    assert lines["parquet"][0]["K"] == 3.0


def test_impossible_draws_and_weights(tmp_path):
    weights = [0.0, -np.inf, float(np.log(3))]
    found = posterior([row(["a", "b", "c"], weights)])
    folder = exported(tmp_path, "csv", found)
    assert [line["log_density"] for line in read_csv(folder / "run.csv")] == ["1.0", "-inf", "1.0"]
    assert [float(line["weight"]) for line in read_csv(folder / "run.csv")] == pytest.approx([0.25, 0, 0.75])
    impossible = read_jsonl(exported(tmp_path, "jsonl", found) / "run.jsonl")[1]
    assert impossible["log_density"] is impossible["log_weight"] is impossible["factor_constrain_Z_x"] is None
    table = pyarrow.parquet.read_table(exported(tmp_path, "parquet", found) / "run.parquet")
    assert table["log_weight"].to_pylist() == weights
    assert table.schema.field("factor_constrain_Z_x").metadata[b"long_name"] == b'constrain Z != "x"'


def test_rows_that_differ_share_a_table(tmp_path):
    observed = RowPosterior({"X": 2.0, "Z": "b"}, [Draw({}, {}, -1.0, {"Z": -1.0}, 0.0, None, 0, 0)])
    found = posterior([row(["a", "b"], X="one"), observed])
    lines = pyarrow.parquet.read_table(exported(tmp_path, "parquet", found) / "run.parquet").to_pylist()
    assert [(line["row"], line["X"], line["Z"], line["tokens_Z"]) for line in lines] == [
        (0, "one", "a", 1), (0, "one", "b", 1), (1, "2", "b", None)
    ]  # fmt: skip
    assert [line["weight"] for line in lines] == [0.5, 0.5, 1]


def test_names_are_plain_and_never_clash():
    keys = [
        Key("own", "draw"),
        Key("value", "draw"),
        Key("factor", "constrain Z > 1"),
        Key("factor", "constrain Z < 1"),
    ]
    keys += [
        Key("factor", "factor 2 * n"),
        Key("statistic", "energy"),
        Key("tokens", "Z"),
        Key("statistic", "tokens_Z"),
        Key("statistic", "_"),
    ]
    assert list(column_names(keys).values()) == [
        "draw", "draw_", "factor_constrain_Z_1", "factor_constrain_Z_1_", "factor_2_n", "energy_", "tokens_Z",
        "tokens_Z_", "_",
    ]  # fmt: skip


# --- ArviZ's groups -------------------------------------------------------------------------------


def test_groups_of_a_run(here):  # noqa: F811
    write(here, MIXED)
    lmppl(here, "run", "p.lm", "--out", "run", "--set", "X= a", "--engine", "exact", "--num-samples", "30")
    assert lmppl(here, "export", "run", "--to", "arviz").stdout == "wrote run/export/run.nc\n"
    tree, found = read_netcdf(here / "run" / "export" / "run.nc"), results.read(here / "run")
    draws = found.rows[0].draws
    numbers = tree["posterior"].to_dataset()
    assert set(numbers) == {
        "log_density", "factor_Y", "factor_Z", "factor_observe_b", "factor_constrain_chars_Z_2_5", "tokens_Y",
        "tokens_Z", "n", "Y",
    }  # fmt: skip
    assert {variable.dtype.kind for variable in numbers.values()} == {"i", "f"}
    assert dict(numbers.sizes) == {"chain": 4, "draw": 30}
    assert numbers["log_density"].values.ravel() == pytest.approx([draw.log_density for draw in draws])
    assert numbers["factor_observe_b"].attrs["long_name"] == 'observe "b"'
    options = json.loads(numbers["Y"].attrs["options"])
    assert [options[code] for code in numbers["Y"].values.ravel()] == [draw.values["Y"] for draw in draws]
    assert tree["text"]["Z"].values.ravel().tolist() == [draw.values["Z"] for draw in draws]
    assert tree["constant_data"]["X"].item() == " a"
    assert set(tree["sample_stats"].data_vars) == {"lp", "log_weight", "source_chain", "source_draw"}
    assert tree.attrs["log_evidence"] == pytest.approx(found.rows[0].log_evidence)
    assert tree.attrs["program"] == found.program["text"]
    assert (tree.attrs["engine"], tree.attrs["verdict"]) == ("exact", found.verdict)
    assert "equal" in tree.attrs["weights"]


def test_texts_that_netcdf_can_hold(tmp_path):
    folder = exported(tmp_path, "arviz", posterior([row([*HOSTILE, "a\0b"], X="\0")]))
    tree = read_netcdf(folder / "run.nc")
    assert tree["text"]["Z"].values.ravel().tolist() == [*HOSTILE, "a␀b"]
    assert tree["constant_data"]["X"].item() == "␀"


def test_resampled_draws_have_the_masses_of_the_weights(here):  # noqa: F811
    write(here, MIXED)
    lmppl(here, "run", "p.lm", "--out", "run", "--set", "X= a", "--engine", "importance", "--num-samples", "150")
    assert "resampled by weight" in lmppl(here, "export", "run", "--to", "arviz").stdout
    first = (here / "run" / "export" / "run.nc").read_bytes()
    tree, found = read_netcdf(here / "run" / "export" / "run.nc"), results.read(here / "run").rows[0]
    assert any(draw.log_weight == -np.inf for draw in found.draws)
    assert np.isfinite(tree["sample_stats"]["lp"].values).all()
    counts = Counter(zip(*(tree["text"][name].values.ravel().tolist() for name in ("Y", "Z")), strict=True))
    for texts, mass in found.joint().items():
        assert counts[texts] / 600 == pytest.approx(mass, abs=0.01)
    stats = tree["sample_stats"]
    pairs = zip(stats["source_chain"].values.ravel(), stats["source_draw"].values.ravel(), strict=True)
    sources = [found.draws[chain * 150 + draw] for chain, draw in pairs]
    assert stats["log_weight"].values.ravel() == pytest.approx([draw.log_weight for draw in sources])
    copies = Counter((draw.chain, draw.draw) for draw in sources)
    for draw, weight in zip(found.draws, found.weights, strict=True):  # systematic: off by less than one
        assert abs(copies[draw.chain, draw.draw] - 600 * weight) < 1
    lmppl(here, "export", "run", "--to", "arviz")
    assert (here / "run" / "export" / "run.nc").read_bytes() == first


def test_replicates_are_pooled_by_their_evidence(tmp_path):
    rare, common = [0.0] * 50, [float(np.log(9))] * 50
    tree = read_netcdf(
        exported(tmp_path, "arviz", posterior([row(["a"] * 50 + ["bb"] * 50, rare + common, 2)])) / "run.nc"
    )
    assert tree["text"]["Z"].shape == (2, 50)
    assert (tree["text"]["Z"].values == "bb").sum() == 90


@pytest.mark.slow
def test_copies_cost_what_the_weights_cost(tmp_path):
    rng = np.random.default_rng(0)
    texts = ["x" * n for n in rng.integers(0, 1000, 2000)]
    log_weights = rng.normal(0, 1.2, 2000).tolist()
    found = posterior([row(texts, log_weights, 4)])
    values = read_netcdf(exported(tmp_path, "arviz", found) / "run.nc")["posterior"]["log_density"].values
    kish = 1 / float((found.rows[0].weights ** 2).sum())
    assert kish < 800
    assert effective_size(values) == pytest.approx(kish, rel=0.25)


def test_rows_of_a_shape_are_a_dimension_and_others_are_files(tmp_path):
    alike = posterior([row(["a", "b"], X="one"), row(["c", "d"], [0.0, -np.inf], X="three")])
    tree = read_netcdf(exported(tmp_path, "arviz", alike) / "run.nc")
    assert tree["posterior"]["log_density"].dims == ("chain", "draw", "row")
    assert tree["text"]["Z"].values.tolist() == [[["a", "c"], ["b", "c"]]]
    assert tree["constant_data"]["X"].values.tolist() == ["one", "three"]
    assert tree.attrs["log_evidence"].tolist() == [-1.5, -1.5]
    folder = exported(tmp_path, "arviz", posterior([*alike.rows, row(["e"])]))
    assert sorted(path.name for path in folder.iterdir()) == ["run-row0.nc", "run-row1.nc", "run-row2.nc"]
    assert read_netcdf(folder / "run-row2.nc")["text"]["Z"].values.tolist() == [["e"]]


# --- comparisons, and what goes wrong -------------------------------------------------------------


@pytest.fixture
def comparison(tmp_path):
    for name, engine in (("exact", "exact"), ("mcmc-2", "mcmc")):
        results.save(posterior([row(["a", "b"])], engine=engine), tmp_path / "both" / "runs" / name)
    ran = {"options": {}, "reason": None, "verdict": "pass", "findings": [], "measures": {}, "curve": []}
    ran["training"] = None
    entries = [
        {"label": "exact", "engine": "exact", **ran, "runs": ["runs/exact"]},
        {"label": "mcmc longer", "engine": "mcmc", **ran, "runs": ["runs/mcmc-2"]},
    ]
    about = {"format": 1, "complete": True, "made": "", "command": "", "versions": {}, "models": {}, "budget": None}
    program = {"path": "p.lm", "text": "", "sha256": ""}
    reference = {"kind": "none", "title": "", "note": ""}
    found = {"seeds": 1, "bounds": None, "quality": "log_evidence", "columns": [],
             "rows": [{"givens": {}, "log_evidence": None}]}  # fmt: skip
    advice = {"headline": "", "reasons": []}
    document = {**about, "program": program, "graph": {"nodes": [], "edges": []}, "reference": reference, **found,
                "entries": entries, "advice": advice}  # fmt: skip
    (tmp_path / "both" / "compare.json").write_text(json.dumps(document))
    return tmp_path


def test_comparison(comparison):
    assert lmppl(comparison, "export", "both", "--to", "csv", "--out", "t.csv").stdout == "wrote t.csv\n"
    lines = read_csv(comparison / "t.csv")
    assert [(line["label"], line["engine"], line["run"], line["Z"]) for line in lines] == [
        ("exact", "exact", "exact", "a"), ("exact", "exact", "exact", "b"),
        ("mcmc longer", "mcmc", "mcmc-2", "a"), ("mcmc longer", "mcmc", "mcmc-2", "b"),
    ]  # fmt: skip
    lmppl(comparison, "export", "both", "--to", "arviz")
    names = sorted(path.name for path in (comparison / "both" / "export").iterdir())
    assert names == ["both-exact.nc", "both-mcmc-2.nc"]
    (comparison / "both" / "compare.json").write_text('{"format": 2}')
    assert "newer-format" in failure(comparison, "export", "both", "--to", "csv")
    (comparison / "both" / "compare.json").write_text('{"format": 1}')
    assert "broken-comparison" in failure(comparison, "export", "both", "--to", "csv")


def test_what_goes_wrong_is_one_clear_error(tmp_path, monkeypatch):
    results.save(posterior([row(["a"])]), tmp_path / "run")
    (tmp_path / "file").write_text("")
    before = (tmp_path / "run" / "draws.jsonl").read_bytes()
    for out, code in (("run", "folder-in-use"), ("run/draws.jsonl", "file-in-use"), ("file/x.csv", "unwritable-file")):
        assert code in failure(tmp_path, "export", "run", "--to", "csv", "--out", out)
    assert (tmp_path / "run" / "draws.jsonl").read_bytes() == before
    assert "unwritable-file" in failure(tmp_path, "export", "run", "--to", "arviz", "--out", "file/x.nc")
    assert "no-run" in failure(tmp_path, "export", ".", "--to", "csv")
    for form, package in (("arviz", "h5netcdf"), ("parquet", "pyarrow")):
        monkeypatch.setitem(sys.modules, package, None)
        assert f"lmppl-lang[{form}]" in failure(tmp_path, "export", "run", "--to", form)


def test_nothing_is_left_where_writing_breaks_off(tmp_path, monkeypatch):
    results.save(posterior([row(["a"])]), tmp_path / "run")
    (tmp_path / "t.csv").write_text("earlier")
    monkeypatch.setattr("csv.writer", lambda file: file.write("half") and None)
    with pytest.raises(AttributeError):
        write_export(tmp_path / "run", "csv", tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "t.csv"]


def test_run_without_draws(tmp_path):
    results.save(posterior([replace(row(["a"]), draws=[])]), tmp_path / "run")
    assert "no-draws" in failure(tmp_path, "export", "run", "--to", "arviz")
