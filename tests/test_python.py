"""The library as people use it from Python: short names of things, tables, and errors that speak of arguments."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

import lmppl
from lmppl.compile import CompiledProgram
from lmppl.errors import LmpplError, error
from lmppl.posterior.posterior import Posterior, load
from lmppl.screen.wording import ARGUMENTS, in_python

ROOT = Path(__file__).parent.parent


@pytest.fixture
def program(tmp_path, tiny_folder):
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "p.lm").write_text(
        'lm LM = "./model"\ngiven X\nZ ~ LM(X) max 3 tokens\nY ~ LM("{Z}") in [" a", " b"]\n'
    )
    return lmppl.compile(tmp_path / "p.lm")


@pytest.fixture
def posterior(program):
    return program.infer("importance", X=" a", num_samples=25)


# --- what a posterior is like ---------------------------------------------------------------------


def test_a_posterior_is_a_line_in_a_shell(posterior):
    assert re.fullmatch(r"<Posterior of p\.lm: 1 row, 100 draws by importance, verdict \w+>", repr(posterior))
    assert len(repr(posterior.rows[0])) < 160
    assert "likeliest" in repr(posterior.rows[0])


def test_probabilities_are_keyed_by_text_where_there_is_one_latent(program, posterior):
    row = posterior.rows[0]
    assert all(isinstance(key, tuple) and len(key) == 2 for key in row.probabilities())
    expected = {}
    for draw, weight in zip(row.draws, row.weights, strict=True):
        expected[draw.values["Z"]] = expected.get(draw.values["Z"], 0.0) + weight
    assert row.probabilities("Z") == pytest.approx(expected)
    assert posterior["Z"] == row["Z"] == row.probabilities("Z")
    assert list(posterior["Z"].values()) == sorted(posterior["Z"].values(), reverse=True)
    assert set(row.probabilities("Y", "Z")) == {(y, z) for z, y in row.probabilities("Z", "Y")}
    alone = program.infer("importance", X=" a", Y=" b", num_samples=5).rows[0]
    assert alone.probabilities() == alone.probabilities("Z")
    with pytest.raises(KeyError, match="there is Z, Y"):
        posterior["W"]


def test_several_rows_give_a_list_and_a_row_that_observes_has_all_its_mass_there(program):
    posterior = program.infer("importance", data=[{"X": " a"}, {"X": " b", "Y": " a"}], num_samples=5)
    first, second = posterior["Y"]
    assert set(first) <= {" a", " b"}
    assert second == {" a": 1.0}


def test_html_holds_the_answer_and_no_text_is_markup(tmp_path, tiny_folder):
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "p.lm").write_text('lm LM = "./model"\ngiven X\nY ~ LM(X) in ["<b> a", "&amp; b"]\n')
    chosen = lmppl.compile(tmp_path / "p.lm")
    one = chosen.infer("exact", X="<script>alert(1)</script>")
    for posterior in (one, chosen.infer("exact", data=[{"X": "<i> a"}, {"X": " b"}])):
        html = posterior._repr_html_()
        assert "<script" not in html
        assert "<i>" not in html
        assert "&lt;b&gt; a" in html
        assert "&amp;amp; b" in html
    for option, share in one["Y"].items():
        assert f"{share:.3f}" in one._repr_html_(), option


def test_tables_and_trees_have_every_draw(program, posterior):
    frame = posterior.to_pandas()
    assert len(frame) == 100
    assert frame["weight"].sum() == pytest.approx(1)
    assert list(frame["Z"]) == [draw.values["Z"] for draw in posterior.rows[0].draws]
    tree = posterior.to_arviz()
    assert tree["posterior"].sizes == {"chain": 4, "draw": 25}
    two = program.infer("importance", data=[{"X": " a"}, {"X": " b", "Y": " a"}], num_samples=5)
    with pytest.raises(LmpplError, match=r"to_arviz\(row=0\)"):
        two.to_arviz()
    texts = two.to_arviz(row=1)["text"]["Z"].to_numpy()
    assert set(texts.ravel()) <= {draw.values["Z"] for draw in two.rows[1].draws}
    assert np.shape(texts) == (4, 5)


def test_packages_that_are_not_there_are_named(posterior, monkeypatch):
    monkeypatch.setattr("lmppl.posterior.posterior.find_spec", lambda name: None)
    with pytest.raises(LmpplError, match="pip install pandas"):
        posterior.to_pandas()
    with pytest.raises(LmpplError, match="xarray"):
        posterior.to_arviz()


def test_a_posterior_is_saved_once(posterior, tmp_path):
    posterior.save(tmp_path / "run")
    assert load(tmp_path / "run")["Z"] == pytest.approx(posterior["Z"])
    with pytest.raises(LmpplError, match=r"force=True puts"):
        posterior.save(tmp_path / "run")
    posterior.save(tmp_path / "run", force=True)


def test_givens_that_are_named_like_arguments(tmp_path, tiny_folder):
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "p.lm").write_text('lm LM = "./model"\ngiven seed, data\nZ ~ LM("{seed}{data}") max 2 tokens\n')
    named = lmppl.compile(tmp_path / "p.lm")
    found = named.infer("importance", givens={"seed": " a", "data": " b"}, seed=5, num_samples=3)
    assert found.seed == 5
    assert found.rows[0].givens == {"seed": " a", "data": " b"}
    with pytest.raises(LmpplError, match="given-twice"):
        lmppl.compile('lm LM = "./model"\ngiven X\nZ ~ LM(X) max 2 tokens\n').infer(givens={"X": " a"}, X=" b")


# --- errors in the words of Python ----------------------------------------------------------------


def test_arguments_are_those_of_infer():
    names = [
        name for name, one in inspect.signature(CompiledProgram.infer).parameters.items() if one.kind != one.VAR_KEYWORD
    ]
    assert set(ARGUMENTS) == {*names} - {"self"}


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("pass --data FILE with a column `X`, or --set X=VALUE", "pass data=FILE with a column `X`, or X=VALUE"),
        ("--set seed=VALUE", 'givens={"seed": VALUE}'),
        ("--set Q: the program has no param", "Q: the program has no param"),
        ("use --engine importance or mcmc", 'use engine="importance" or mcmc'),
        ("try another --engine.", "try another `engine`."),
        ("Take --num-samples 500 or more", "Take num_samples=500 or more"),
        ("allow more with -o max_proposals=N", 'allow more with options={"max_proposals": N}'),
        ("flatten the proposal with -o temperatures=.", 'flatten the proposal with options={"temperatures": …}.'),
        ("take `-o proposal=FOLDER`", 'take `options={"proposal": FOLDER}`'),
        ("give a model folder: --lm NAME=PATH", 'give a model folder: lms={"NAME": PATH}'),
        ("use --device cpu, or auto", 'use device="cpu", or auto'),
        ("with --batch-size 1", "with batch_size=1"),
        ("name another folder with --out", "name another folder with `folder`"),
        ("`--out` names no folder", "`folder` names no folder"),
        ("go on with --resume fit/", "go on with resume=True fit/"),
        ("use --resume DIR", "use folder=DIR, resume=True"),
        ("--adapter and --resume exclude each other", "`adapter` and resume=True exclude each other"),
        ("the text \"--data X\" and '--seed 1' are yours", "the text \"--data X\" and '--seed 1' are yours"),
        ("python -m venv FOLDER; pip install -c x", "python -m venv FOLDER; pip install -c x"),
        ("--json and --held-out FILE", "--json and --held-out FILE"),
        ("that `lmppl compare --out` has written", "that `lmppl compare --out` has written"),
        ("give `--out`, as `lmppl em --out DIR` does", "give `folder`, as `lmppl em --out DIR` does"),
    ],
)
def test_flags_become_arguments(flags, arguments):
    assert in_python(flags) == arguments


@pytest.mark.parametrize("budget", ["soon", "", "-5s", "0", "1e999", "20 parsecs", -1])
def test_a_budget_that_is_none_is_a_finding(program, budget):
    with pytest.raises(LmpplError) as caught:
        program.infer(X="a", budget=budget)
    assert [finding.code for finding in caught.value.diagnostics] == ["bad-budget"]
    assert "`budget` cannot be" in str(caught.value)
    assert "--budget" not in str(caught.value)


def test_no_finding_of_a_run_speaks_of_flags():
    """Every literal of the library beside the command and what only it shows, whole functions' helps among them.
    A service and a doctor are commands alone; what a server is to be started with is its own flag."""
    elsewhere = {"json", "held-out", "against", "hold-out", "engines", "value", "fit", "output-format", "to",
                 "progress-bar", "no-deps", "no-cache-dir", "disable-pip-version-check", "simulations", "strict",
                 "train", "seeds", "report", "rounds", "head", "address"}  # fmt: skip
    found = []
    for path in sorted((ROOT / "lmppl").rglob("*.py")):
        shown = {"cli", "compare", "em", "page", "doctor", "serve"} & set(path.relative_to(ROOT).parts)
        if shown or path.name in ("wording.py", "serving.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "var(--" not in node.value:
                said = re.sub("`lmppl [^`]*`", "", in_python(node.value))
                left = set(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", said)) - elsewhere
                found += [(path.name, node.lineno, name) for name in left]
    assert not found


def test_an_error_is_the_whole_finding(program):
    with pytest.raises(LmpplError) as caught:
        program.infer()
    assert str(caught.value).splitlines()[0] == "error[missing-given]: `given X` has no value in what was given"
    assert "= help: pass data=FILE with a column `X`, or X=VALUE" in str(caught.value)
    with pytest.raises(LmpplError) as caught:
        lmppl.compile('lm LM = "./model"\nZ ~ LM(" a") max 3 tokens\nconstrain contains(W, "a")\n')
    assert '3 | constrain contains(W, "a")' in str(caught.value)
    assert "^" in str(caught.value)
    assert "`W` is not defined" in caught.value.message
    found = LmpplError(error("x", "bad", found="'--data'", help="--seed 3"))
    assert "found: '--data'" in str(found)
    assert "help: seed=3" in str(found)


# --- the page of the documentation ----------------------------------------------------------------


def test_the_page_about_python_runs(tmp_path, tiny_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) > 7
    names: dict = {}
    for block in blocks:
        exec(compile(block.replace("smollm2-135m", str(tiny_folder)), "docs/python.md", "exec"), names)
    assert "error[missing-given]" in capsys.readouterr().out
    for name in [name for name in vars(Posterior) if not name.startswith("_")]:
        assert f"posterior.{name}" in text, name
