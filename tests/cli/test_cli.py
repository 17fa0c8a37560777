"""The command as users run it: its output and exit codes, on the tiny model."""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch

from lmppl.cli import main
from lmppl.cli.house import option_words
from lmppl.engines.table import ENGINE_NAMES, engine
from lmppl.lm.transformers.huggingface import HuggingFaceModel

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def here(tmp_path, tiny_folder):
    """A folder with a program on the tiny model."""
    (tmp_path / "model").symlink_to(tiny_folder)
    write(tmp_path, 'given X\nZ ~ LM(X) max 3 tokens\nobserve "b" ~ LM(" a{Z}")\n')
    return tmp_path


def write(folder, body, name="p.lm", lm="./model"):
    (folder / name).write_text(f'lm LM = "{lm}"\n{body}', encoding="utf-8")


def lmppl(folder, *arguments, code=0, env=None):
    """The command in this process: its output, errors and exit code."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {**os.environ, "COLUMNS": "100", **(env or {})}),
        mock.patch.object(sys, "argv", ["lmppl", *arguments]),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        found = exit_code()
    assert found == code, out.getvalue() + err.getvalue()
    assert "Traceback" not in out.getvalue() + err.getvalue()
    assert "internal" not in err.getvalue()
    return SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())


def exit_code():
    try:
        main()
    except SystemExit as stopped:
        return stopped.code or 0
    return 0


def failure(folder, *arguments, code=2):
    done = lmppl(folder, *arguments, code=code)
    assert done.stdout == ""
    return done.stderr


OUT_OF_MEMORY = {
    "a GPU's": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has"),
    "a processor's": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    "Python's": MemoryError(),
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_memory_that_runs_out_is_no_bug(here, monkeypatch, kind):
    def stream(*_):
        raise OUT_OF_MEMORY[kind]

    monkeypatch.setattr(HuggingFaceModel, "stream", stream)
    message = failure(here, "run", "p.lm", "--set", "X= a", "--engine", "importance")
    assert "error[out-of-memory]: memory ran out" in message
    assert "--batch-size" in message
    assert "GPU 0 has" not in message


def test_run_prints_what_it_found(here):
    out = lmppl(here, "run", "p.lm", "--set", "X= a b", "--num-samples", "5", "-o", "particles=16").stdout
    for part in ("engine", "annealed", "mass", "log evidence", "verdict"):
        assert part in out


def test_json_is_one_document(here):
    asked = ("run", "p.lm", "--set", "X= a b", "--engine", "exact", "--num-samples", "5", "--json")
    document = json.loads(lmppl(here, *asked, "--draws").stdout, parse_constant=pytest.fail)
    short = json.loads(lmppl(here, *asked).stdout, parse_constant=pytest.fail)
    assert set(document["rows"][0]) - set(short["rows"][0]) == {"draws"}
    assert set(document) == {"program", "engine", "seed", "models", "options", "verdict", "rows", "cost", "made_from"}
    assert set(document["cost"]) == {"tokens_decoded", "tokens_scored", "forward_passes", "seconds"}
    row = document["rows"][0]
    expected = {
        "givens",
        "log_evidence",
        "log_evidence_se",
        "draws",
        "support",
        "predictions",
        "diagnostics",
        "verdict",
        "warnings",
    }
    assert expected <= set(row)
    assert len(row["draws"]) == 20
    assert {"values", "tokens", "log_density", "log_weight", "chain", "draw"} <= set(row["draws"][0])
    assert abs(sum(state["probability"] for state in row["support"]) - 1) < 1e-9


def test_impossible_draws_are_null_not_nan(here):
    write(here, 'Z ~ LM(" a") max 3 tokens\nconstrain chars(Z) * 2 > 5\n')  # no mask tells
    document = json.loads(
        lmppl(here, "run", "p.lm", "--engine", "importance", "--json", "--draws").stdout, parse_constant=pytest.fail
    )
    weights = [draw["log_weight"] for draw in document["rows"][0]["draws"]]
    assert None in weights
    assert any(weight is not None for weight in weights)


def test_run_folder_is_read_back(here):
    drawn = ["--set", "X= a b", "--engine", "importance", "--num-samples", "10"]
    arguments = ["run", "p.lm", *drawn, "--out", "run", "--json"]
    first = json.loads(lmppl(here, *arguments).stdout)
    assert sorted(path.name for path in (here / "run").iterdir()) == ["draws.jsonl", "run.json"]
    assert json.loads(lmppl(here, "summary", "run", "--json").stdout)["rows"] == first["rows"]
    assert "log evidence" in lmppl(here, "summary", "run", env={"LMPPL_CACHE": "/nowhere"}).stdout
    lmppl(here, *arguments, "--seed", "2", "--force")  # an earlier run is replaced
    assert json.loads((here / "run" / "run.json").read_text())["seed"] == 2
    assert "log evidence" in lmppl(here / "run", "summary", ".").stdout
    lmppl(here / "run", "run", "../p.lm", *drawn, "--out", ".", "--force")
    assert json.loads((here / "run" / "run.json").read_text())["seed"] == 0


def test_run_folders_that_cannot_be_read(here):
    lmppl(here, "run", "p.lm", "--set", "X= a b", "--engine", "exact", "--out", "run")
    document = json.loads((here / "run" / "run.json").read_text())
    (here / "run" / "run.json").write_text(json.dumps({**document, "format": 2}))
    assert "written by a newer lmppl (format 2" in failure(here, "summary", "run")
    for broken in ("[]", "{}", "{", '{"format": "one"}'):
        (here / "run" / "run.json").write_text(broken)
        assert "broken-run" in failure(here, "summary", "run")


def test_failed_run_leaves_no_folder(here):
    write(here, 'Z ~ LM(" a") max 3 tokens\nconstrain contains(Z, "zebra")\n')
    failure(here, "run", "p.lm", "--out", "run")
    assert not [path for path in here.iterdir() if path.name.startswith("run")]


def test_out_does_not_overwrite_other_things(here):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("years of work")
    assert "folder-in-use" in failure(here, "run", "p.lm", "--set", "X= a", "--out", "mine")


def test_rows_of_data(here):
    (here / "d.jsonl").write_text('{"X": " a", "extra": 1}\n\n{"X": " b{Z}"}\n')
    arguments = ["--engine", "importance", "--num-samples", "5", "--json"]
    done = lmppl(here, "run", "p.lm", "--data", "d.jsonl", *arguments)
    assert "unused-column" in done.stderr
    assert [row["givens"]["X"] for row in json.loads(done.stdout)["rows"]] == [" a", " b{Z}"]
    (here / "d.csv").write_text('X,Z\n" a, "," b"\n" b",\n')
    rows = json.loads(lmppl(here, "run", "p.lm", "--data", "d.csv", *arguments).stdout)["rows"]
    assert rows[0]["givens"] == {"X": " a, ", "Z": " b"}
    assert rows[0]["log_evidence_se"] == 0  # everything is observed
    assert "Z" not in rows[1]["givens"]


BAD = {
    "missing given": ({}, ["run", "p.lm"], 2, ["missing-given", "--set X=VALUE"]),
    "missing column": ({"d.jsonl": '{"Y": "a"}\n'}, ["run", "p.lm", "--data", "d.jsonl"], 2, ["missing-given", "d.jsonl:1"]),
    "empty data": ({"d.jsonl": "\n"}, ["run", "p.lm", "--data", "d.jsonl"], 2, ["no rows"]),
    "broken data": ({"d.jsonl": '{"X": "a"}\n{oops\n'}, ["run", "p.lm", "--data", "d.jsonl"], 2, ["d.jsonl:2", "no JSON"]),
    "nested data": ({"d.jsonl": '{"X": [1]}\n'}, ["run", "p.lm", "--data", "d.jsonl"], 2, ["neither a text nor a number"]),
    "ragged csv": ({"d.csv": "X\na,b\n"}, ["run", "p.lm", "--data", "d.csv"], 2, ["d.csv:2", "2 cells"]),
    "odd suffix": ({"d.xls": "X"}, ["run", "p.lm", "--data", "d.xls"], 2, ["neither .jsonl nor .csv"]),
    "missing data file": ({}, ["run", "p.lm", "--data", "none.jsonl"], 2, ["unreadable-file"]),
    "data not utf-8": ({"d.jsonl": b'{"X": "\xff"}'}, ["run", "p.lm", "--data", "d.jsonl"], 2, ["not UTF-8", "0xFF"]),
    "missing program": ({}, ["run", "q.lm"], 2, ["unreadable-file", "did you mean `p.lm`"]),
    "program is a folder": ({}, ["check", "."], 2, ["unreadable-file"]),
    "program not utf-8": ({"u.lm": b"# \xfe\n"}, ["check", "u.lm"], 2, ["not UTF-8"]),
    "program with errors": ({"e.lm": 'lm LM = "./model"\nZ ~ LM(X)\n'}, ["run", "e.lm"], 1, ["unknown-name", "e.lm:2:8"]),
    "unknown engine": ({}, ["run", "p.lm", "--set", "X=a", "--engine", "mcm"], 2, ["did you mean `mcmc`"]),
    "unknown option": ({}, ["run", "p.lm", "--set", "X= a", "-o", "temp=1"], 2, ["unknown-option", "temperatures"]),
    "bad option": ({}, ["run", "p.lm", "--set", "X= a", "--engine", "exact", "-o", "tolerance=x"], 2, ["bad-option"]),
    "unknown setting": ({}, ["run", "p.lm", "--set", "Q=1"], 2, ["unknown-setting"]),
    "too many draws": ({}, ["run", "p.lm", "--set", "X=a", "--num-samples", "1000000000"], 2, ["too-many-draws", "8,000 GB", "--num-samples"]),
    "too many particles": ({}, ["run", "p.lm", "--set", "X=a", "--engine", "smc", "-o", "particles=1000000000"], 2, ["too-many-draws"]),
    "setting without a value": ({}, ["run", "p.lm", "--set", "X"], 2, ["NAME=VALUE"]),
    "unknown lm": ({}, ["run", "p.lm", "--set", "X= a", "--lm", "ML=x"], 2, ["no `lm ML`"]),
    "no such folder": ({}, ["run", "p.lm", "--set", "X= a", "--lm", "LM=./nope"], 2, ["model-folder-missing", "p.lm:1:1"]),
    "no such alias": ({}, ["run", "p.lm", "--set", "X= a", "--lm", "LM=smollm"], 2, ["unknown-model", "smollm2-135m"]),
    "no network": ({}, ["run", "p.lm", "--set", "X= a", "--lm", "LM=some/model"], 2, ["no-network"]),
    "not a model": ({"m/config.json": "{}"}, ["run", "p.lm", "--set", "X= a", "--lm", "LM=./m"], 2, ["model-unusable"]),
    "no such device": ({}, ["run", "p.lm", "--set", "X= a", "--device", "gpu"], 2, ["unknown-device"]),
    "zero samples": ({}, ["run", "p.lm", "--set", "X= a", "--num-samples", "0"], 2, ["bad-option", "`num_samples`", "from 1 to"]),
    "summary of nothing": ({}, ["summary", "none"], 2, ["no-run"]),
    "T is 0": ({"t.lm": 'lm LM = "./model"\nparam T = 1\nZ ~ LM(" a")^(1/T)\n'}, ["run", "t.lm", "--set", "T=0"], 2, ["no-value", "t.lm:3"]),
    "negative power": ({"t.lm": 'lm LM = "./model"\nparam T = 1\nZ ~ LM(" a")^T\n'}, ["run", "t.lm", "--set", "T=-2"], 2, ["flat-prior", "t.lm:3"]),
    "until not to be written": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") until "!"\n'}, ["run", "t.lm"], 2, ["until-unreachable", "t.lm:2"]),
    "impossible constraint": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") max 2\nconstrain contains(Z, "zebra")\n'}, ["run", "t.lm"], 2, ["unsatisfiable-constraint", "zebra", "t.lm:3"]),
    "no draw is possible": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") max 2\nconstrain chars(Z) * 2 == 1\n'}, ["run", "t.lm", "--engine", "importance"], 2, ["no-support", "t.lm:3"]),
    "no chain can start": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") max 2\nconstrain chars(Z) * 2 == 1\n'}, ["run", "t.lm", "--engine", "mcmc"], 2, ["no-support", "t.lm:3"]),
    "exact finds nothing": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") max 2\nconstrain chars(Z) * 2 == 1\n'}, ["run", "t.lm", "--engine", "exact"], 2, ["no-support", "t.lm:3"]),
    "context too long": ({"t.lm": 'lm LM = "./model"\ngiven X\nZ ~ LM(X) max 100\n'}, ["run", "t.lm", "--set", "X=" + " a" * 60], 2, ["context-too-long", "128", "t.lm:3"]),
    "option prefix": ({"t.lm": 'lm LM = "./model"\nY ~ LM(" a") in [" a", " a b"]\n'}, ["run", "t.lm"], 2, ["option-prefix"]),
    "observed no option": ({"t.lm": 'lm LM = "./model"\nY ~ LM(" a") in [" a", " b"]\n'}, ["run", "t.lm", "--set", "Y= c"], 2, ["observed-not-an-option", "' a', ' b'"]),
    "observed too long": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") max 2\n'}, ["run", "t.lm", "--set", "Z= a a a"], 2, ["observed-impossible", "3 tokens"]),
    "helper raises": ({"h.py": "def f(t):\n    raise KeyError(t)\n", "t.lm": 'lm LM = "./model"\nuse f from "h.py"\nZ ~ LM(" a") max 2\nfactor f(Z)\n'}, ["run", "t.lm"], 2, ["evaluation-failed", "KeyError", "t.lm:4"]),
    "helper returns text": ({"h.py": "def f(t):\n    return t\n", "t.lm": 'lm LM = "./model"\nuse f from "h.py"\nZ ~ LM(" a") max 2\nfactor f(Z)\n'}, ["run", "t.lm"], 2, ["needs a number", "t.lm:4"]),
    "helper breaks on import": ({"h.py": "def f(t):\n    return 1\n1/0\n", "t.lm": 'lm LM = "./model"\nuse f from "h.py"\nZ ~ LM(" a") max 2\nfactor f(Z)\n'}, ["run", "t.lm"], 2, ["helper-failed", "ZeroDivisionError"]),
    "factor is NaN": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") max 2\nfactor number(Z)\n'}, ["run", "t.lm"], 2, ["evaluation-failed", "nan", "t.lm:3"]),
    "rejection without a bound": ({"t.lm": 'lm LM = "./model"\nZ ~ LM(" a") max 2\nfactor words(Z)\n'}, ["run", "t.lm", "--engine", "rejection"], 2, ["no upper bound", "bound=", "t.lm:3"]),
}  # fmt: skip


LENGTHY = {"no chain can start"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LENGTHY else ()) for n in BAD])
def test_bad_input_is_one_clear_error(here, name):
    files, arguments, code, expected = BAD[name]
    for path, content in files.items():
        place = here / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = failure(here, *arguments, code=code)
    usage = name == "setting without a value"  # the command line's own style
    assert usage or message.count("error[") == 1
    for part in expected:
        assert part in message, message


def test_different_tokenizers_are_refused(here, tmp_path_factory):
    import tiny

    other = tiny.save(tmp_path_factory.mktemp("other"), words=(" a", " c", "."))
    (here / "other").symlink_to(other)
    write(here, 'lm B = "./other"\nZ ~ LM(" a") * B(" a") max 2\n')
    assert "different-tokenizers" in failure(here, "run", "p.lm")


def test_no_model_in_an_empty_cache_without_network(here):
    """Nothing to fetch from: one error, and no folder that looks like a model."""
    environment = {"LMPPL_CACHE": str(here / "cache"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(here / "none")}
    done = lmppl(here, "models", "--fetch", "smollm2-135m", code=2, env=environment)
    assert "no-network" in done.stderr
    assert not (here / "cache" / "models" / "smollm2-135m").exists()
    listed = lmppl(here, "models", "--json", env=environment).stdout
    assert json.loads(listed)[0]["state"] == "absent"


def test_check_formats_and_codes(here):
    assert "nothing found" in lmppl(here, "check", "p.lm").stdout
    write(here, 'Z ~ LM("x ") max 3\n', "w.lm")
    full = lmppl(here, "check", "w.lm", code=1).stdout
    assert "warning[trailing-space]" in full
    assert "^^^^" in full
    assert lmppl(here, "check", "w.lm", "--output-format", "concise", code=1).stdout.startswith("w.lm:2:8: warning")
    found = json.loads(lmppl(here, "check", "w.lm", "--output-format", "json", code=1).stdout)
    assert (found[0]["code"], found[0]["line"], found[0]["column"]) == ("trailing-space", 2, 8)


def test_format_writes_back(here):
    write(here, 'Z~LM( "x" )max 3 # c\n', "w.lm")
    lmppl(here, "format", "--check", "w.lm", code=1)
    lmppl(here, "format", "w.lm")
    assert (here / "w.lm").read_text() == 'lm LM = "./model"\nZ ~ LM("x") max 3 tokens  # c\n'
    lmppl(here, "format", "--check", "w.lm")


def test_explain_and_graph(here):
    assert "log p_LM(Z | X)" in lmppl(here, "explain", "p.lm").stdout
    assert "Sample" in lmppl(here, "explain", "p.lm", "--stage", "ast").stdout
    out = lmppl(here, "explain", "p.lm", "--set", "X= a b", "--value", "Z= b").stdout
    assert " a| b" in out
    assert "<end>" in out
    assert "log density" in out
    assert "missing-value" in failure(here, "explain", "p.lm", "--set", "X= a", "--stage", "density")
    assert "<- X" in lmppl(here, "graph", "p.lm").stdout
    assert "flowchart" in lmppl(here, "graph", "p.lm", "--format", "mermaid").stdout


def test_help_and_engines(here):
    assert "run" in lmppl(here, "--help").stdout
    listed = lmppl(here, "engines").stdout
    for name in ("annealed", "exact", "importance", "mcmc", "prompting", "rejection", "smc"):
        assert name in listed


@pytest.mark.parametrize("name", ENGINE_NAMES)
def test_every_option_of_an_engine_is_said_in_words(name):
    options = engine(name).options
    assert all(option_words(options)[field.name] for field in fields(options))


LONG = "a" * 5000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "p.lm", "--set", "X=a", "--lm", f"LM={LONG}"), 2, "unknown-model"),
        (("run", "p.lm", "--set", "X=a", "--lm", f"LM=./{LONG}"), 2, "model-folder-missing"),
        (("run", "p.lm", "--set", "X=a", "--lm", "LM=~nobody-of-that-name/x"), 2, "model-folder-missing"),
        (("run", "p.lm", "--set", "X=a", "--lm", "LM="), 2, "unknown-model"),
        (("run", "p.lm", "--set", "X=a", "--lm", "LM=\udcff"), 2, "not UTF-8"),
        (("run", "p.lm", "--set", "X=a", "-o", "particles=\udcff"), 2, "not UTF-8"),
        (("explain", "p.lm", "--set", "X=a", "--value", "Z=\udcff"), 2, "not UTF-8"),
        (("run", "p.lm", "--set", "X=a", "--num-samples", "9" * 400), 2, "bad-option"),
        (("run", "p.lm", "--set", "X=a", "--adapter", LONG), 2, "File name too long"),
        (("check", "\udcff.lm"), 2, "unreadable-file"),
        (("check", f"{LONG}.lm"), 2, "unreadable-file"),
        (("engines", "\udcff"), 2, "unknown-engine"),
    ],
)
def test_flags_that_nothing_can_be_done_with(here, arguments, code, said):
    assert said in lmppl(here, *arguments, code=code).stderr


def test_a_model_that_no_folder_can_hold_is_located(here):
    write(here, 'Z ~ LM(" a") max 2 tokens\n', lm=LONG)
    assert "p.lm:1:1" in lmppl(here, "run", "p.lm", code=2).stderr


def test_one_engine_is_described(here):
    assert "resampled below this share" in lmppl(here, "engines", "smc").stdout
    assert "did you mean `smc`?" in lmppl(here, "engines", "smcc", code=2).stderr


@pytest.mark.parametrize("method", ["sample", "greedy", "beam", "diverse_beam", "nucleus"])
def test_prompting_methods(here, method):
    arguments = [
        "run",
        "p.lm",
        "--set",
        "X= a b",
        "--engine",
        "prompting",
        "-o",
        f"method={method}",
        "--num-samples",
        "5",
    ]
    row = json.loads(lmppl(here, *arguments, "--json", "--draws").stdout)["rows"][0]
    count = {"greedy": 1, "beam": 8, "diverse_beam": 8}.get(method, 20)
    assert 0 < len(row["draws"]) <= count
    assert (row["log_evidence"] is not None) == (method == "sample")


def own_process():
    return [sys.executable, "-m", "lmppl", "run", "p.lm", "--set", "X= a b", "--engine", "exact"]


@pytest.mark.slow
def test_a_process_of_its_own(here):
    """Standard output holds the document alone."""
    command = [*own_process(), "--json"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout)["engine"] == "exact"


@pytest.mark.slow
def test_a_pipe_that_closes_early_is_no_crash(here):
    piped = f"{shlex.join(own_process())} | head -1"
    shell = subprocess.run(piped, shell=True, cwd=here, capture_output=True, text=True, timeout=120, check=True)
    assert "Traceback" not in shell.stderr
