"""Every shipped program runs on the real model with its data, and on the tiny one against brute force elsewhere."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from rich.console import Console

import lmppl
from lmppl.expressions.calculator import calculate
from lmppl.report.run import show_posterior

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "programs").glob("*.lm"))


def data_of(path):
    return next((p for p in (path.with_suffix(".jsonl"), path.with_suffix(".csv")) if p.exists()), None)


def first_row(path, folder):
    """A file with the first row of a program's data; None where it needs none."""
    whole = data_of(path)
    if whole is None:
        return None
    lines = whole.read_text(encoding="utf-8").splitlines()[: 2 if whole.suffix == ".csv" else 1]
    (folder / whole.name).write_text("\n".join(lines), encoding="utf-8")
    return folder / whole.name


@pytest.mark.model
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_program_runs_on_the_default_model(path, smollm2, tmp_path):
    engine = (
        "exact" if path.stem in ("lost", "outliers") else "importance"
    )  # laws of other engines are tested elsewhere
    compiled = lmppl.compile(path)
    posterior = compiled.infer(
        engine,
        data=first_row(path, tmp_path),
        lms={"LM": "smollm2-135m"},  # in place of the capable model as well
        chains=2,
        num_samples=2 if path.stem == "word_problem" else 8,
        seed=1,
    )
    assert posterior.models["LM"]["identifier"] == "smollm2-135m"
    for row in posterior.rows:
        assert row.log_evidence is not None
        assert row.weights.sum() == pytest.approx(1)
        for draw, weight in zip(row.draws, row.weights, strict=True):
            if weight > 0:
                assert_as_written(path.stem, draw.values)
    console = Console(width=100, record=True)
    show_posterior(posterior, console)
    assert "log evidence" in console.export_text()


def assert_as_written(name, values):
    """What each program's `until` and constraints promise of every possible draw."""
    if name in ("tempered", "infill", "contrastive"):
        assert values["Z"].count(".") >= 1
        assert "." not in values["Z"].rstrip().rstrip(".\"')")[:-1] or values["Z"].index(".") > 0
    if name == "haiku":
        assert '"' in values["Z"]  # its last token may go on behind it
        assert "rain" not in values["Z"].lower()
    if name == "extract":
        assert set(json.loads(values["Z"])) == {"quantity", "city"}
    if name == "json":
        assert set(json.loads(values["Z"])) == {"name", "age"}
    if name == "arithmetic":
        assert re.fullmatch(r"[ 0-9+*/()-]+\.", values["Z"])
    if name == "sum":
        for end in re.finditer("=", values["Z"]):  # behind each, what the calculator writes, unless `max` cuts it
            written, found = calculate(values["Z"][: end.end()]), values["Z"][end.end() :]
            assert found.startswith(written) or written.startswith(found)
    if name == "lexical":
        assert "snow" in values["Z"].lower()
    if name == "reason" and "Y" in values:
        assert values["Y"] in (" objective", " subjective")


@pytest.mark.model
def test_reasoning_observes_one_row_and_predicts_the_other(smollm2):
    path = ROOT / "programs" / "reason.lm"
    first, second = lmppl.compile(path).infer("importance", data=data_of(path), chains=2, num_samples=8).rows
    assert first.predictions == {}
    assert first.givens["Y"] == " subjective"
    assert sum(second.predictions["Y"].values()) == pytest.approx(1)


@pytest.mark.model
def test_chains_particles_and_prompting_run_on_the_default_model(smollm2):
    path = ROOT / "programs" / "tempered.lm"
    compiled = lmppl.compile(path)
    given = {"X": "The weather in London today is", "chains": 2, "num_samples": 3}
    row = compiled.infer(engine="mcmc", num_warmup=2, **given).rows[0]
    assert len(row.draws) == 6
    assert row.log_evidence is None
    annealed = compiled.infer(engine="annealed", options={"particles": 4}, **given).rows[0]
    assert annealed.log_evidence is not None
    greedy = compiled.infer(engine="prompting", options={"method": "greedy"}, **given).rows[0]
    assert len(greedy.draws) == 1


@pytest.mark.model
def test_certified_search_on_the_default_model(smollm2):
    """At most 2 tokens of LM^4: the truth within 1 %, and importance agrees on the evidence."""
    text = 'lm LM = "smollm2-135m"\nZ ~ LM("The weather in London today is")^4 until "." max 2 tokens\n'
    compiled = lmppl.compile(text)
    exact = compiled.infer(engine="exact", chains=1, num_samples=10).rows[0]
    assert exact.diagnostics.total_variation_bound <= 0.01
    low, high = exact.diagnostics.log_evidence_interval
    drawn = compiled.infer(engine="importance", chains=4, num_samples=100, seed=2).rows[0]
    assert low - 5 * drawn.log_evidence_se < drawn.log_evidence < high + 5 * drawn.log_evidence_se


@pytest.mark.slow
def test_a_built_wheel_runs_away_from_the_checkout(tmp_path, tiny_folder):
    """The wheel, unpacked into a folder of its own, runs a program: the grammar is inside it."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True, timeout=120)
    site = next((environment / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # the libraries it needs come from this environment; lmppl itself, only from the wheel
    libraries = Path(pytest.__file__).parent.parent
    (site / "libraries.pth").write_text(f"{libraries}\n")
    (tmp_path / "p.lm").write_text(f'lm LM = "{tiny_folder}"\nZ ~ LM(" a") max 2 tokens\n')
    script = "import lmppl, sys; from lmppl.cli import main; print(lmppl.__file__, file=sys.stderr); main()"
    command = [str(environment / "bin" / "python"), "-I", "-c", script, "run", "p.lm", "--engine", "exact", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(environment) in done.stderr
    assert json.loads(done.stdout)["engine"] == "exact"


@pytest.mark.model
def test_smc_does_not_pass_on_a_constraint_that_is_all_but_impossible(smollm2):
    """Ten particles, a constraint of probability near e^-60: whatever they find, the verdict says not to believe it."""
    text = (
        'lm LM = "smollm2-135m"\nZ ~ LM("The capital of France is") max 16 tokens\n'
        "constrain matches(Z, / [A-Z][a-z]{3,9} (qx|vb)[0-9]{5}zz\\./)\n"
    )
    row = lmppl.compile(text).infer("smc", chains=2, num_samples=10, seed=0).rows[0]
    assert row.log_evidence is not None
    assert row.log_evidence < -30
    assert row.verdict == "fail"
    assert any(check.status == "fail" and check.message for check in row.checks)
