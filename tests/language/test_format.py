"""Formatting: idempotent, keeps comments, keeps the meaning."""

import random
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

import pytest

from lmppl.compile import analyse
from lmppl.language import ast
from lmppl.language.checks import CHECKS
from lmppl.language.formatting import WRITERS, format_program
from lmppl.source import Source

ROOT = Path(__file__).parent.parent.parent
FILES = [*sorted((ROOT / "programs").glob("*.lm")), *sorted((ROOT / "tests/golden/check").glob("*.lm"))]
READABLE = [path for path in FILES if not format_program(Source("p", path.read_text(encoding="utf-8")))[1]]

MESSY = """# first


lm   LM="smollm2-135m"(dtype="float32")   # the model
given  X,Y
param T=(0.8)
   # before Z
Z~LM(X ,   "so")^( 1 / T )*LM("")^ -0.5 until"." max 12
W ~ LM("{Z}",   # inside
  Z) in [ "a" ,
  "b",]
observe Y|X,Z
constrain (not (contains(Z,"x"))) and ((words(Z)+1)*2>3 or matches( Z , /a\\/b#/ ))
factor -(2.0)*-abs(words(Z)-(3-1))^2
statistic  n=(words(Z))
predict W
# last"""

TIDY = """# first

lm LM = "smollm2-135m" (dtype = "float32")  # the model
given X, Y
param T = 0.8
# before Z
Z ~ LM(X, "so")^(1/T) * LM("")^-0.5 until "." max 12 tokens
# inside
W ~ LM("{Z}", Z) in ["a", "b"]
observe Y | X, Z
constrain not contains(Z, "x") and ((words(Z) + 1) * 2 > 3 or matches(Z, /a\\/b#/))
factor -2.0 * -abs(words(Z) - (3 - 1)) ^ 2
statistic n = words(Z)
predict W
# last
"""


def without_spans(value):
    """An IR value with places left out, to compare meanings; factor names hold source text, so they go too."""
    if is_dataclass(value):
        kept = [f.name for f in fields(value) if f.name not in ("span", "source")]
        drop_name = {"Constraint", "Score", "Observation"}
        return type(value).__name__, [
            without_spans(getattr(value, n)) for n in kept if not (n == "name" and type(value).__name__ in drop_name)
        ]
    if isinstance(value, tuple):
        return [without_spans(entry) for entry in value]
    return value


def meaning(text):
    analysis = analyse(Source("p", text), ROOT / "programs")
    assert analysis.program is not None, analysis.findings
    return without_spans(analysis.program)


def test_canonical_form():
    assert format_program(Source("messy", MESSY)) == (TIDY, ())


def test_canonical_form_of_tools():
    messy = (
        'Z~LM("a")^2 max 9 with  calculator( operands=0 ,trigger="=" ),look (trigger="[",) until"."\n'
        'W~LM("{Z}")with calculator()'
    )
    tidy = (
        'Z ~ LM("a")^2 with calculator(operands = 0, trigger = "="), look(trigger = "[") until "." max 9 tokens\n'
        'W ~ LM("{Z}") with calculator\n'
    )
    assert format_program(Source("messy", messy)) == (tidy, ())
    assert format_program(Source("tidy", tidy)) == (tidy, ())


def test_meaning_of_the_messy_program_is_kept():
    assert meaning(MESSY) == meaning(TIDY)


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
def test_idempotent_and_keeps_comments(path):
    text = path.read_text(encoding="utf-8")
    once, _ = format_program(Source("p", text))
    assert format_program(Source("p", once)) == (once, ())
    assert sorted(re.findall(r"#[^\n\"]*$", text, re.M)) == sorted(re.findall(r"#[^\n\"]*$", once, re.M))


@pytest.mark.parametrize("path", sorted((ROOT / "programs").glob("*.lm")), ids=lambda path: path.stem)
def test_shipped_programs_are_in_canonical_form(path):
    text = path.read_text(encoding="utf-8")
    assert format_program(Source("p", text))[0] == text


def expression(rng, kind, depth):
    """A random expression of a kind, as text with more parentheses than needed."""
    if depth == 0:
        return (
            rng.choice(["1", "2.5", "words(Z)"])
            if kind == "number"
            else rng.choice(['contains(Z, "a")', "words(Z) > 1"])
        )
    if kind == "number":
        operator = rng.choice(["+", "-", "*", "/", "^", "negate", "abs"])
        left, right = expression(rng, "number", depth - 1), expression(rng, "number", depth - 1)
        return {"negate": f"(-({left}))", "abs": f"abs({left})"}.get(operator, f"(({left}) {operator} ({right}))")
    operator = rng.choice(["and", "or", "not", "<"])
    if operator == "<":
        return f"(({expression(rng, 'number', depth - 1)}) < ({expression(rng, 'number', depth - 1)}))"
    left, right = expression(rng, "boolean", depth - 1), expression(rng, "boolean", depth - 1)
    return f"(not ({left}))" if operator == "not" else f"(({left}) {operator} ({right}))"


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(n, marks=pytest.mark.slow) for n in range(8, 60))])
def test_random_expressions_keep_their_meaning(seed):
    rng = random.Random(seed)
    body = "".join(
        f"constrain {expression(rng, 'boolean', 4)}\nfactor {expression(rng, 'number', 4)}\n" for _ in range(3)
    )
    text = 'lm LM = "m"\nZ ~ LM("a") max 5 tokens\n' + body
    once, findings = format_program(Source("p", text))
    assert findings == ()
    first, second = analyse(Source("p", text), "."), analyse(Source("p", once), ".")
    shapes = [without_spans(a.program.factors) if a.program else [f.code for f in a.findings] for a in (first, second)]
    assert shapes[0] == shapes[1]
    assert format_program(Source("p", once))[0] == once


def test_every_kind_of_statement_is_written_and_checked():
    assert {*WRITERS} == {*get_args(ast.Statement)}
    assert {*WRITERS} - {*CHECKS} == {ast.Given, ast.TextConstant, ast.Use, ast.Infer}  # declared; all together
