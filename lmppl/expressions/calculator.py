"""The calculator: the value of the arithmetic that a text ends in, exact or nothing.

What it reads is written by a language model, hence anything at all: its length, its depth and its
numbers are bounded, and whatever is no arithmetic as a whole, or no integer, has no value. It knows
no tokens and no programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

TRIGGER = "="  # what it waits for, unless the program says otherwise
OPERANDS = 2  # most numbers in an expression, unless the program says otherwise
MOST_CHARACTERS = 200  # of an expression
MOST_DEPTH = 20  # levels of parentheses
MOST_DIGITS = 40  # of a number, written or computed

_LAST = re.compile(r"[-+*/() 0-9]*\Z")
_PIECE = re.compile(r"[0-9]+|[-+*/() ]")
# what an expression cannot follow: what would belong to its first number, or an operation that is
# not known here
_GLUED, _UNKNOWN = re.compile(r"[\w.,]\Z"), re.compile(r"[×÷·∙√^%±−]\Z|[0-9)] *[xX]\Z")


class _Nonsense(ValueError):
    """What is written has no value here."""


def calculate(text: str, trigger: str = TRIGGER, operands: int = OPERANDS) -> str:
    """What follows a text that ends with its trigger: the value of the expression before that, or
    nothing.

    Where a space stands before the trigger, one stands before the value. operands: most numbers in
    the expression; 0: any number.
    """
    before = text.removesuffix(trigger)[-MOST_CHARACTERS - 1 :]
    found = _LAST.search(before)
    assert found is not None  # at worst it is empty
    ahead, expression = before[: found.start()], found[0]
    glued = _GLUED.search(ahead) and not expression.startswith(" ")
    if len(expression) > MOST_CHARACTERS or glued or _UNKNOWN.search(ahead):
        return ""
    try:
        value = _Reader(_PIECE.findall(expression), operands).value()
    except _Nonsense:
        return ""
    spaced = (before.endswith(" ") or trigger.startswith(" ")) and not trigger.endswith(" ")
    return f" {value}" if spaced else str(value)


class _Reader:
    """One expression, by recursive descent. A minus that is no subtraction touches what it
    negates.
    """

    def __init__(self, pieces: list[str], operands: int) -> None:
        self._pieces, self._operands = pieces, operands
        self._at, self._depth, self._num_operands = 0, 0, 0

    def value(self) -> int:
        """The value of the whole. Raises _Nonsense."""
        result = self._sum()
        if self._next() is not None or self._num_operands < 2:  # a number alone asks for nothing
            raise _Nonsense
        return result

    def _next(self) -> str | None:
        """The piece that comes next, spaces skipped."""
        while self._at < len(self._pieces) and self._pieces[self._at] == " ":
            self._at += 1
        return self._pieces[self._at] if self._at < len(self._pieces) else None

    def _operators(self, known: str) -> Iterator[str]:
        while (piece := self._next()) is not None and piece in known:
            self._at += 1
            yield piece

    def _sum(self) -> int:
        result = self._product()
        for operator in self._operators("+-"):
            result = _bounded(
                result + self._product() if operator == "+" else result - self._product()
            )
        return result

    def _product(self) -> int:
        result = self._signed()
        for operator in self._operators("*/"):
            right = self._signed()
            if operator == "/" and (right == 0 or result % right):
                raise _Nonsense
            result = _bounded(result * right if operator == "*" else result // right)
        return result

    def _signed(self) -> int:
        if self._next() != "-":
            return self._atom()
        self._at += 1
        if self._pieces[self._at : self._at + 1] in ([], [" "], ["-"]):
            raise _Nonsense
        return -self._atom()

    def _atom(self) -> int:
        piece = self._next()
        self._at += 1
        if piece == "(":
            return self._parenthesis()
        if piece is None or not piece.isdigit():
            raise _Nonsense
        self._num_operands += 1
        if len(piece) > MOST_DIGITS or 0 < self._operands < self._num_operands:
            raise _Nonsense
        return int(piece)

    def _parenthesis(self) -> int:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _Nonsense
        result = self._sum()
        if self._next() != ")":
            raise _Nonsense
        self._at += 1
        self._depth -= 1
        return result


def _bounded(value: int) -> int:
    if abs(value) >= 10**MOST_DIGITS:
        raise _Nonsense
    return value
