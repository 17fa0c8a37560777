"""Every finding, as people see it. Regenerate with LMPPL_UPDATE_GOLDEN=1, then read what changed."""

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lmppl.compile import analyse
from lmppl.errors.rendering import render_full
from lmppl.source import Source

GOLDEN = Path(__file__).parent.parent / "golden"
PROGRAMS = sorted((GOLDEN / "check").glob("*.lm"))
ROOT = Path(__file__).parent.parent.parent


def findings_of(path):
    return analyse(Source(path.name, path.read_text(encoding="utf-8")), path.parent).findings


def compare(path, text):
    if os.environ.get("LMPPL_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_findings_read_as_written_down(path):
    text = "\n\n".join(render_full(finding) for finding in findings_of(path))
    compare(path.with_suffix(".txt"), text + "\n" if text else "nothing found\n")


def test_every_constructor_has_a_golden_program():
    module = ast.parse((ROOT / "lmppl" / "findings" / "program.py").read_text(encoding="utf-8"))
    codes = {
        node.args[0].value
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("error", "warning")
        and isinstance(node.args[0], ast.Constant)
    }  # fmt: skip
    seen = {finding.code for path in PROGRAMS for finding in findings_of(path)}
    assert codes - seen == set()


def test_clean_program_has_no_findings():
    assert findings_of(GOLDEN / "check" / "clean.lm") == ()


@pytest.mark.parametrize("path", sorted((ROOT / "programs").glob("*.lm")), ids=lambda path: path.stem)
def test_shipped_programs_are_clean(path):
    assert findings_of(path) == ()


def test_checking_brings_nothing_heavy():
    code = (
        "import sys, lmppl.cli; from lmppl.cli.app import read_program; read_program('programs/haiku.lm');"
        "print([m for m in ('torch', 'numpy', 'transformers', 'rich.console', 'pyro') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_checking_takes_time_in_proportion():
    """Four times the statements take about four times as long: not sixteen."""
    head = 'lm LM = "smollm2-135m"\nZ ~ LM("a") max 5\n'

    def seconds(count):
        start = time.process_time()
        analyse(Source("long", head + 'constrain not contains(Z, "x") # why\n' * count), ".")
        return time.process_time() - start

    seconds(10)
    assert seconds(4000) < 9 * max(seconds(1000), 0.05)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "#",
        "~",
        '"',
        "(",
        "lm",
        "\x00",
        "Z ~",
        "é ~ LM(",
        "/" * 50,
        "{}",
        "\r\n\r\n",
        "given \u2028",
        "1e999999",
    ],
)
def test_any_text_gives_findings_not_exceptions(text):
    assert analyse(Source("any", text), ".").findings
