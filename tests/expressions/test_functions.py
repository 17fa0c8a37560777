"""Expression functions: values, ranges and failures."""

import itertools
import math
import random

import pytest

import lmppl
from lmppl.expressions.functions import ANYTHING, FUNCTIONS, Environment, EvaluationError, evaluate, interval

HEAD = 'lm LM = "m"\ngiven X\nZ ~ LM("a") max 9\n'


def expression(text, kind="factor"):
    return lmppl.compile(f"{HEAD}{kind} {text}\nobserve X | Z\n").program.factors[0].expression


def value(text, kind="factor", z="one two", x="3", **options):
    return evaluate(expression(text, kind), Environment({"Z": z, "X": x}, {"Z": 2}, **options))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("words(Z) + 2 * 3 - 4 / 2", 6),
        ("-2 ^ 2 + words(Z) * 0", -4),
        ("2 ^ 3 ^ 0 + words(Z)", 4),
        ("chars(Z) + tokens(Z) + lines(Z)", 10),
        ("count(lower(Z), \"o\")", 2),
        ("abs(-3) + min(1, 2) + max(1, 2) + sqrt(4) + words(Z) * 0", 8),
        ("exp(log(5)) + 0 * words(Z)", 5),
        ("number(X) + X + 0 * words(Z)", 6),
        ('2 * contains(Z, "two") - (words(Z) > 5) / 2', 2),
        ('contains(Z, "one") + contains(Z, "two") + contains(Z, "six")', 2),
        ('-(words(Z) == 2) + max(contains(Z, "six"), not contains(Z, "six")) ^ 2 * 3', 2),
        ('exp(contains(Z, "six"))', 1),
    ],
)  # fmt: skip
def test_numbers(text, expected):
    assert value(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('contains(Z, "two") and not starts_with(Z, "two")', True),
        ('ends_with(Z, "two") or 1 > words(Z)', True),
        ("matches(Z, /one/)", False),  # anchored at both ends
        ("matches(Z, /one .*/)", True),
        ("number(Z) > 0 or number(Z) <= 0", False),  # NaN compares as false
        ('Z == "one two"', True),
        ("words(Z) != 2", False),
    ],
)
def test_truths(text, expected):
    assert value(text, "constrain") is expected


def test_files(tmp_path):
    (tmp_path / "g.lark").write_text('start: "one" " " "two"')
    (tmp_path / "s.json").write_text('{"type": "array", "maxItems": 2}')
    (tmp_path / "p.lm").write_text(HEAD + 'constrain in_grammar(Z, "g.lark") or is_json(Z, "s.json")\nobserve X | Z\n')
    program = lmppl.compile(tmp_path / "p.lm").program

    def holds(text):
        return evaluate(program.factors[0].expression, Environment({"Z": text}, folder=program.folder))

    assert [holds(text) for text in ("one two", "one", "[1]", "[1, 2, 3]", "{", "[" * 5000)] == [
        True, False, True, False, False, False,
    ]  # fmt: skip


def test_failures_name_the_place_and_the_value():
    for text, part in [
        ("1 / (words(Z) - 2)", "division"),
        ("log(words(Z) - 2)", "log"),
        ("X * words(Z)", "needs a number"),
    ]:
        with pytest.raises(EvaluationError, match=part):
            value(text, x="three")


def test_a_pattern_without_lookaround_takes_linear_time():
    assert value("matches(Z, /(a|a|aa)+b/)", "constrain", z="a" * 5000 + "c") in (False, -math.inf)


def test_a_catastrophic_pattern_ends(monkeypatch):
    monkeypatch.setattr("lmppl.expressions.patterns.SECONDS_PER_MATCH", 0.2)
    with pytest.raises(EvaluationError, match="took more than"):
        value("matches(Z, /(?=a)(a|a|aa)+b/)", "constrain", z="a" * 60 + "c")  # looks ahead: no automaton


@pytest.mark.parametrize("name", ["<", "<=", ">", ">=", "==", "!=", "and", "or", "min", "max", "+", "-", "*"])
def test_ranges_of_two_ranges_hold_every_value(name):
    """Of whole numbers and truths, for all ranges; a comparison is certain where it is for all of them."""
    function = FUNCTIONS[name]
    most = 1 if name in ("and", "or") else 3
    ranges = [(low, high) for low in range(most + 1) for high in range(low, most + 1)]
    for left, right in itertools.product(ranges, repeat=2):
        pairs = itertools.product(range(left[0], left[1] + 1), range(right[0], right[1] + 1))
        values = [float(function.compute(a, b)) for a, b in pairs]
        assert function.interval(left, right) == (min(values), max(values)), (left, right)


def test_ranges_hold_every_value():
    """A random expression's value lies in its range, for every number of tokens that the latent can have."""
    for seed in range(200):
        one_expression(random.Random(seed))


def one_expression(rng):
    def build(depth):
        if depth == 0:
            return rng.choice(["tokens(Z)", f"{rng.uniform(-3, 3):.2f}".replace("-", "0 - "), "2"])
        left, right = f"({build(depth - 1)})", f"({build(depth - 1)})"
        operator = rng.choice("+-*/")
        return rng.choice(
            [
                f"{left} {operator} {right}",
                f"-{left}",
                f"abs{left}",
                f"min({left}, {right})",
                f"{left} ^ 2",
                f"exp(0 - abs{left})",
            ]
        )

    tree = expression(f"{build(3)} + 0 * tokens(Z)")
    low, high = interval(tree, {"Z": 9})
    for count in range(10):
        try:
            found = evaluate(tree, Environment({"Z": ""}, {"Z": count}))
        except EvaluationError:
            continue
        assert low - 1e-9 <= found <= high + 1e-9
    assert interval(expression("number(X) + words(Z)"), {"Z": 9}) == ANYTHING
    assert math.isinf(interval(expression("words(Z)"), {"Z": 9})[1])
