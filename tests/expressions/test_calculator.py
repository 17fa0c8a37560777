"""The calculator: exact values of what a text ends in, nothing for anything else, and never slow."""

import random
import time
from fractions import Fraction

import pytest

from lmppl.expressions.calculator import MOST_CHARACTERS, MOST_DIGITS, calculate

VALUES = {
    "3 + 4 =": " 7",  # as it is spaced, so is the value
    "3+4=": "7",
    "so 12*3=": "36",
    "So, 3 +4  =": " 7",
    "7-12=": "-5",
    "(-3)*4=": "-12",
    "-3 - -4 =": " 1",
    "84/7=": "12",
    "-7/7=": "-1",
    "1+2=3+4=": "7",  # only what is behind the last relation
    "007+1=": "8",
    "a line\n3+4=": "7",
}
NOTHING = [
    "", "=", "5=", "-5=", "()=", "3+=", "+3+4=", "3 4+5=", "2 (3)=", "(3+4=", "3+4)=", "3 + - 4=", "3---4=", "3**4=",
    "3//4=",
    "7/2=", "1/0=", "0/0=", "x3+4=", "1.5+2=", "1,000+5=", "x - 3+4=",
    "2 × 3 + 4=", "2 x 3 + 4=", "2x 3+4=", "2^3+4=", "3\n+4=", "√4+5=", "1e3+4=",
    "٣+٤=", "٣4+5=", "３+４=", "3²+4=", "__import__('os')+1=", "3+4==", "3+\x004=", "1+2+3=",
]  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_values(text):
    assert calculate(text) == VALUES[text]


@pytest.mark.parametrize("text", NOTHING)
def test_what_has_no_value(text):
    assert calculate(text) == ""


def test_operands_are_counted():
    assert calculate("1+2+3=", operands=3) == calculate("1+2+3=", operands=0) == "6"
    assert calculate("(1+2)*3=", operands=0) == "9"
    assert calculate("1+2*3-8/4=", operands=0) == "5"
    assert calculate("1+2+3=", operands=2) == ""


def test_any_trigger():
    assert calculate("3 + 4 is", "is") == " 7"
    assert calculate("3 + 4 =", " =") == " 7"
    assert calculate("3 + 4 = ", "= ") == "7"
    assert calculate("3+4 →", " →") == " 7"


def test_values_are_those_of_exact_fractions():
    """Random expressions against fractions, the order of operations being given by the tree they are written from."""
    for seed in range(200):
        one_calculation(random.Random(seed))


def one_calculation(rng):
    def grow(depth):
        """Text, value (None where it is no integer on the way), and binding: 1 a sum, 2 a product, 3 an atom."""
        if depth == 0:
            number = rng.randrange(40)
            return str(number), Fraction(number), 3
        (left, a, bound), (right, b, binds) = grow(depth - 1), grow(rng.randrange(depth))
        operator = rng.choice("+-*/")
        own = 1 if operator in "+-" else 2
        left, right = left if bound >= own else f"({left})", right if binds > own else f"({right})"
        space = rng.choice(["", " "])
        if a is None or b is None or (operator == "/" and (b == 0 or (a / b).denominator != 1)):
            value = None
        else:
            value = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[operator]
        return f"{left}{space}{operator}{space}{right}", value, own

    text, value, _ = grow(rng.randrange(1, 4))
    assert calculate(f"{text}=", operands=0) == ("" if value is None else str(value))


HOSTILE = [
    "(" * 10**6 + "1+1" + ")" * 10**6 + "=",
    "1+" * 500_000 + "1=",
    "9*" * 90 + "9=",
    "9" * 10**6 + "*2=",
    "-" * 10**6 + "1+1=",
    "(" * 90 + "1+1" + ")" * 90 + "=",
    " " * 10**6 + "1+1=",
    "1" + " " * 10**6 + "+1=",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_hostile_texts_take_no_time_and_have_no_value(text):
    started = time.perf_counter()
    assert calculate(text, operands=0) == ""
    assert time.perf_counter() - started < 0.2


def test_a_million_characters_before_change_nothing():
    assert calculate("a" * 10**6 + " 3 + 4 =") == " 7"


def test_bounds_are_kept_to_the_digit():
    assert calculate("9" * MOST_DIGITS + "-1=") == str(10**MOST_DIGITS - 2)
    assert calculate("9" * MOST_DIGITS + "+1=") == ""
    assert calculate("0" * (MOST_DIGITS + 1) + "+1=") == ""
    padded = " " * (MOST_CHARACTERS - 3)
    assert calculate(f"a{padded}1+1=") == "2"
    assert calculate(f"a {padded}1+1=") == ""
