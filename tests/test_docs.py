"""The documentation is run: its programs check, its commands and options exist, its Python compiles."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

import lmppl
from lmppl.cli import app
from lmppl.compile import analyse
from lmppl.engines.table import ENGINE_NAMES, engine
from lmppl.expressions.functions import FUNCTIONS, PARTIAL
from lmppl.posterior.posterior import load
from lmppl.source import Source

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OF_SERVERS = {  # flags that pages name, of vLLM
    "model", "served-model-name", "no-enable-chunked-prefill", "max-num-batched-tokens", "enable-lora",
    "lora-target-modules", "dtype",
}  # fmt: skip


def blocks(page, language):
    """What is fenced, in the order of the page: a fence that ends one block does not begin another."""
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for other, text in found if other == language]


def test_the_first_program_is_clean_and_is_the_shipped_one():
    shown = next(block for block in blocks(ROOT / "README.md", "") if "lm LM" in block)
    assert analyse(Source("README", shown), ROOT).findings == ()
    assert shown == (ROOT / "programs" / "lost.lm").read_text(encoding="utf-8")


@pytest.mark.model
def test_the_first_screen_is_what_the_first_program_prints(capfd, monkeypatch, smollm2):
    """Word by word, and number by number within what rounding allows; but for the time."""
    block = next(block for block in blocks(ROOT / "README.md", "") if block.startswith("$ lmppl run"))
    command, _, screen = block.partition("\n")
    assert f"lmppl {' '.join(command.split()[2:])}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "80")
    app(command.split()[2:], standalone_mode=False)
    shown, printed = (pieces(text) for text in (screen, capfd.readouterr().out))
    assert [word for word in shown if not is_number(word)] == [word for word in printed if not is_number(word)]
    numbers = [[float(word) for word in words if is_number(word)] for words in (shown, printed)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.02)


def test_the_prediction_of_the_page_is_what_its_program_prints(tmp_path, capfd, monkeypatch):
    """And its numbers are those that are worked out by hand, within three standard errors."""
    page = ROOT / "docs" / "diagnosis.md"
    (tmp_path / "sky.json").write_text(blocks(page, "json")[0], encoding="utf-8")
    program, run = (next(block for block in blocks(page, "") if block.startswith(start)) for start in ("lm ", "$ "))
    (tmp_path / "sky.lm").write_text(program, encoding="utf-8")
    command, _, screen = run.partition("\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    app([*command.split()[2:], "--out", "run"], standalone_mode=False)
    printed = capfd.readouterr().out.partition("\nstatistics and diagnostics")[0]
    assert pieces(screen) == pieces(printed)
    found = load(tmp_path / "run").rows[0].predictions["RAIN"]
    for estimate, truth in (
        ((found[" yes"], found.errors[" yes"]), 0.5),
        (found.entropy, 0.693),
        (found.conditional_entropy, 0.380),
        (found.mutual_information, 0.313),
    ):
        assert abs(estimate[0] - truth) < 3 * estimate[1] + 0.001


def pieces(text):
    return re.sub(r"[\d.]+ s,", "", text).split()


def is_number(word):
    return re.fullmatch(r"-?\d+\.\d+", word) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_links_exist(page):
    text = page.read_text(encoding="utf-8")
    for verb in re.findall(r"lmppl ([a-z]+)\b(?= PROG| DIR|`)", text):
        assert verb in app.commands, verb
    for flag in re.findall(r"(?<![\w|-])--([a-z][a-z-]+)", text):
        known = {
            option.lstrip("-")
            for command in app.commands.values()
            for p in command.params
            for option in (*p.opts, *p.secondary_opts)
        }
        assert flag in known | OF_SERVERS, flag
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_every_engine_and_function_is_documented():
    engines = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    for name in ENGINE_NAMES:
        assert f"| `{name}` |" in engines
        assert engine(name).name == name
        assert all(field.default is not None for field in fields(engine(name).options))
    language = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    for name in FUNCTIONS:
        if name.isidentifier() and name != "negate":
            assert name in language, name


def test_options_of_learning_engines_are_documented():
    page = (ROOT / "docs" / "amortisation.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+)`", page))
    for name in ("gflownet", "ppo", "sft"):
        assert {field.name for field in fields(engine(name).options)} <= named, name


def test_the_table_of_the_page_is_what_its_program_says(tmp_path):
    """Six texts within two tokens: the page's numbers, worked out by hand."""
    page = ROOT / "docs" / "models.md"
    (tmp_path / "weather.json").write_text(blocks(page, "json")[0], encoding="utf-8")
    program = re.search(r"^```\n(lm LM.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)[1]
    (tmp_path / "p.lm").write_text(program, encoding="utf-8")
    row = lmppl.compile(tmp_path / "p.lm").infer("exact").rows[0]
    sun, rain = 0.25, 0.5  # p(" rain" | …) behind a text that ends with neither, and with rain
    joint = {
        "": 0.25 * sun, " sun": 0.5 * 0.25 * sun, " rain": 0.25 * 0.5 * rain, " sun sun": 0.5 * 0.5 * sun,
        " sun rain": 0.5 * 0.25 * rain, " rain rain": 0.25 * 0.5 * rain,
    }  # fmt: skip
    assert {state.values["Z"]: state.probability for state in row.support} == pytest.approx(
        {text: value / sum(joint.values()) for text, value in joint.items()}
    )


def test_the_model_of_the_page_runs_and_passes_the_laws_that_the_page_names():
    names: dict = {}
    for code in blocks(ROOT / "docs" / "extending.md", "python"):
        exec(compile(code, "extending.md", "exec"), names)
    posterior = names["posterior"]
    assert sum(posterior["Z"].values()) == pytest.approx(1)
    assert all("n" in text for text in posterior["Z"])
    assert posterior.models["LM"]["identifier"] == "pairs"
    for law in names["language_model_laws"]:
        names["test_my_model"](law)
    for law in names["factor_laws"]:
        names["test_my_factor"](law)


def test_the_parts_of_the_page_are_derived():
    """The program of the page is clean, and names each function that takes a part once at least."""
    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8").partition("## Parts of texts")[2]
    (program,) = re.findall(r"^```\n(lm .*?)^```$", page, re.M | re.S)
    assert analyse(Source("language.md", program), ROOT).findings == ()
    for name in PARTIAL:
        assert f"`{name}(" in page
