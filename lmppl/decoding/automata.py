"""Finite automata over bytes, for the terminals of constraints: what llguidance follows step by
step, as a table.

A table tells what a step cannot: how far a text is from its end. A terminal is read here once more,
by its structure alone: what one character is (a set, a class, an escape) is asked of llguidance, so
that there is one dialect. States are derivatives of the expression (Brzozowski 1964), one number
for each that was met. What is not read here (flags inside, anchors inside) and what has too many
states has no table, and is followed by llguidance alone.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmppl.expressions import HEADER, GrammarError, next_bytes

MOST_STEPS = 15_000  # states × kinds of bytes: some tenths of a second
MOST_NODES = 20_000  # expressions met on the way
MOST_CHARACTERS = 4_000  # of a terminal
MOST_COPIES = 400  # of a piece, by its repeat
ALL_BYTES = (1 << 256) - 1

_START = re.compile(r"start: T\nT: (?P<body>.*)\n\Z", re.DOTALL)
_TOKEN = re.compile(r'\s*(?P<token>ANY|SOME|"(?:\\.|[^"\\])*"|/(?:\\.|[^/\\])+/|[()&|~])')
_PIECE = re.compile(
    r"""
    (?P<open>\((?:\?:|\?P?<\w+>|(?!\?)))
  | (?P<close>\))
  | (?P<bar>\|)
  | (?P<repeat>[*+?]|\{\d+(?:,\d*)?\})\??
  | (?P<set>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])
  | (?P<escape>\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\[uU]\{[^}]*\}|\\x[0-9A-Fa-f]{2}|\\[^AbBzZ<>xuUpP\d])
  | (?P<other>[^\\()|*+?{}\[\]^$])
""",
    re.VERBOSE | re.DOTALL,
)
_FLAGS = re.compile(r"\(\?[is]+\)")


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton that begins in state 0."""

    after: NDArray[np.int32]  # (S, 256) the state after each byte
    accepting: NDArray[np.bool_]  # (S,)

    def accepts(self, text: bytes) -> bool:
        """Whether a whole text is in the language."""
        state = 0
        for byte in text:
            state = int(self.after[state, byte])
        return bool(self.accepting[state])


class _Unread(Exception):
    """No table can be made of this terminal."""


@functools.lru_cache(maxsize=64)
def automaton(grammar: str) -> Automaton | None:
    """The table of a grammar that is one terminal; None where it is no such, or where the table
    would be large.
    """
    found = _START.search(grammar)
    if found is None or len(grammar) > MOST_CHARACTERS:
        return None
    try:
        expressions = _Expressions()
        return _table(expressions, _Terminal(expressions, found["body"]).read())
    except (_Unread, GrammarError, RecursionError):
        return None


# --- expressions ----------------------------------------------------------------------------------

Node = tuple[str, tuple[int, ...]]


class _Expressions:
    """Regular expressions by number; those that are alike but for the order of their parts have one
    number.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self._sets: dict[int, int] = {}  # of an expression that is one byte, as 256 bits
        self._known: dict[tuple[int, int], int] = {}  # derivatives
        self.nothing = self._number("or", ())  # no text
        self.empty = self._number("then", ())  # the text without a byte
        self.all = self.negated(self.nothing)

    def _number(self, kind: str, parts: tuple[int, ...]) -> int:
        node = (kind, parts)
        if node not in self._numbers:
            if len(self._nodes) >= MOST_NODES:
                raise _Unread
            self._numbers[node] = len(self._nodes)
            self._nodes.append(node)
        return self._numbers[node]

    def byte(self, among: int) -> int:
        """One byte of a set of them."""
        number = self._number("byte", (among,))
        self._sets[number] = among
        return number

    def then(self, first: int, second: int) -> int:
        """One text behind another."""
        if self.nothing in (first, second):
            return self.nothing
        if self.empty in (first, second):
            return second if first == self.empty else first
        kind, parts = self._nodes[first]
        if kind == "then":  # to the right, so that what is alike looks alike
            return self.then(parts[0], self.then(parts[1], second))
        return self._number("then", (first, second))

    def chain(self, parts: Sequence[int]) -> int:
        """Texts one behind the other."""
        return functools.reduce(
            lambda rest, part: self.then(part, rest), reversed(parts), self.empty
        )

    def either(self, parts: Iterable[int]) -> int:
        """A text of any of these."""
        return self._set("or", parts, self.nothing, self.all)

    def both(self, parts: Iterable[int]) -> int:
        """A text of all of these."""
        return self._set("and", parts, self.all, self.nothing)

    def _set(self, kind: str, parts: Iterable[int], neutral: int, ruling: int) -> int:
        flat: set[int] = set()
        for part in parts:
            flat |= (
                set(self._nodes[part][1])
                if self._nodes[part][0] == kind and part != neutral
                else {part}
            )
        flat.discard(neutral)
        if ruling in flat:
            return ruling
        if not flat:
            return neutral
        return flat.pop() if len(flat) == 1 else self._number(kind, tuple(sorted(flat)))

    def negated(self, part: int) -> int:
        """Every text that is not in this."""
        kind, parts = self._nodes[part]
        return parts[0] if kind == "not" else self._number("not", (part,))

    def repeated(self, part: int) -> int:
        """Any number of these."""
        return part if self._nodes[part][0] == "many" else self._number("many", (part,))

    @functools.cached_property
    def representatives(self) -> tuple[list[int], NDArray[np.int64]]:
        """Bytes that stand for all, and which of them each byte is like: (R,) and (256,)."""
        membership = [self._membership(byte) for byte in range(256)]
        first = {member: byte for byte, member in reversed(list(enumerate(membership)))}
        found = sorted(first.values())
        return found, np.array(
            [found.index(first[member]) for member in membership], dtype=np.int64
        )

    def _membership(self, byte: int) -> tuple[int, ...]:
        """Which of the sets a byte is in, 0 or 1 each."""
        return tuple(among >> byte & 1 for among in self._sets.values())

    def has_empty(self, number: int) -> bool:
        """Whether the text without a byte is in it."""
        kind, parts = self._nodes[number]
        if kind in ("then", "and"):
            return all(map(self.has_empty, parts))
        if kind == "or":
            return any(map(self.has_empty, parts))
        return kind == "many" or (kind == "not" and not self.has_empty(parts[0]))

    def derivative(self, number: int, byte: int) -> int:
        """What may follow this byte."""
        if (number, byte) not in self._known:
            self._known[number, byte] = self._derivative(number, byte)
        return self._known[number, byte]

    def _derivative(self, number: int, byte: int) -> int:
        kind, parts = self._nodes[number]
        if kind == "byte":
            return self.empty if parts[0] >> byte & 1 else self.nothing
        if kind == "then":
            if not parts:
                return self.nothing
            first, rest = parts
            inside = self.then(self.derivative(first, byte), rest)
            return (
                self.either([inside, self.derivative(rest, byte)])
                if self.has_empty(first)
                else inside
            )
        if kind == "many":
            return self.then(self.derivative(parts[0], byte), number)
        if kind == "not":
            return self.negated(self.derivative(parts[0], byte))
        return (self.either if kind == "or" else self.both)(
            self.derivative(part, byte) for part in parts
        )


def _table(expressions: _Expressions, start: int) -> Automaton:
    bytes_, like = expressions.representatives
    states = {start: 0}
    rows: list[list[int]] = []
    for state in (order := [start]):
        if len(order) * len(bytes_) > MOST_STEPS:
            raise _Unread
        row = []
        for byte in bytes_:
            following = expressions.derivative(state, byte)
            if following not in states:
                states[following] = len(states)
                order.append(following)
            row.append(states[following])
        rows.append(row)
    accepting = np.array([expressions.has_empty(state) for state in order], dtype=bool)
    return Automaton(np.array(rows, dtype=np.int32)[:, like], accepting)


# --- reading a terminal ---------------------------------------------------------------------------


class _Terminal:
    """The language of terminals, as `necessary` writes it: texts, patterns, and sets of them."""

    def __init__(self, expressions: _Expressions, body: str) -> None:
        self._made = expressions
        self._tokens: list[str] = []
        at = 0
        while at < len(body.rstrip()):
            found = _TOKEN.match(body, at)
            if found is None:
                raise _Unread
            self._tokens.append(found["token"])
            at = found.end()
        self._at = 0

    def read(self) -> int:
        found = self._either()
        if self._next():
            raise _Unread
        return found

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._next()
        self._at += 1
        return token

    def _either(self) -> int:
        parts = [self._both()]
        while self._next() == "|":
            self._take()
            parts.append(self._both())
        return self._made.either(parts)

    def _both(self) -> int:
        parts = [self._chain()]
        while self._next() == "&":
            self._take()
            parts.append(self._chain())
        return self._made.both(parts)

    def _chain(self) -> int:
        parts = []
        while self._next() and self._next() not in ("|", "&", ")"):
            parts.append(self._one())
        if not parts:
            raise _Unread
        return self._made.chain(parts)

    def _one(self) -> int:
        token = self._take()
        if token == "~":
            return self._made.negated(self._one())
        if token == "(":
            inside = self._either()
            if self._take() != ")":
                raise _Unread
            return inside
        if token in ("ANY", "SOME"):
            return self._made.all if token == "ANY" else self._made.negated(self._made.empty)
        if token.startswith('"'):
            units = json.loads(token, strict=False).encode("utf-8", "surrogatepass")
            return self._made.chain([self._made.byte(1 << unit) for unit in units])
        if token.startswith("/"):
            return _Pattern(self._made, token[1:-1].replace("\\/", "/")).read()
        raise _Unread


class _Pattern:
    """A regular expression by its structure."""

    def __init__(self, expressions: _Expressions, pattern: str) -> None:
        self._made = expressions
        flags = _FLAGS.match(pattern)
        self._flags = flags[0] if flags else ""
        pattern = pattern[len(self._flags) :]
        if "|" not in pattern:  # an anchor stands for the whole
            pattern = re.sub(r"(?<!\\)\$\Z|\\z\Z", "", pattern.removeprefix("^"))
        self._pieces: list[re.Match[str]] = []
        at = 0
        while at < len(pattern):
            found = _PIECE.match(pattern, at)
            if found is None:
                raise _Unread
            self._pieces.append(found)
            at = found.end()
        self._at = 0

    def read(self) -> int:
        found = self._either()
        if self._at < len(self._pieces):
            raise _Unread
        return found

    def _next(self) -> str | None:
        return self._pieces[self._at].lastgroup if self._at < len(self._pieces) else None

    def _either(self) -> int:
        parts = [self._chain()]
        while self._next() == "bar":
            self._at += 1
            parts.append(self._chain())
        return self._made.either(parts)

    def _chain(self) -> int:
        parts = []
        while self._next() not in (None, "bar", "close"):
            one = self._one()
            while self._next() == "repeat":
                one = self._repeated(one, self._pieces[self._at]["repeat"])
                self._at += 1
            parts.append(one)
        return self._made.chain(parts)

    def _one(self) -> int:
        piece = self._pieces[self._at]
        self._at += 1
        if piece.lastgroup == "open":
            inside = self._either()
            if self._next() != "close":
                raise _Unread
            self._at += 1
            return inside
        if piece.lastgroup == "repeat":
            raise _Unread
        if piece.lastgroup == "other" and piece[0] != "." and not self._flags:
            return self._made.chain([self._made.byte(1 << unit) for unit in piece[0].encode()])
        without, tree = character(self._flags + piece[0])
        found = self._character(tree)
        return self._made.both([self._any(), self._made.negated(found)]) if without else found

    def _character(self, tree: Character) -> int:
        """Bytes that lead to one set of endings stand together."""
        made = self._made
        return made.either(
            made.then(made.byte(among), self._character(rest) if rest else made.empty)
            for among, rest in tree
        )

    def _any(self) -> int:
        made = self._made
        ways = []
        for row in WELL_FORMED:
            ways.append([made.byte(_span(low, high)) for low, high in row])
        return made.either(map(made.chain, ways))

    def _repeated(self, one: int, repeat: str) -> int:
        made = self._made
        if repeat in "*+?":
            return {
                "*": made.repeated(one),
                "+": made.then(one, made.repeated(one)),
                "?": made.either([one, made.empty]),
            }[repeat]
        least, comma, most = repeat[1:-1].partition(",")
        few, many = int(least), int(most or least)
        if max(few, many) > MOST_COPIES:
            raise _Unread
        rest = made.repeated(one) if comma and not most else made.empty
        for _ in range(many - few):
            rest = made.either([made.empty, made.then(one, rest)])
        for _ in range(few):
            rest = made.then(one, rest)
        return rest


# --- one character --------------------------------------------------------------------------------

Character = tuple[
    tuple[int, "Character"], ...
]  # sets of bytes, and what follows each; empty at the end


def _span(low: int, high: int) -> int:
    """A set of bytes, from one to another: a bit each."""
    return sum(1 << byte for byte in range(low, high + 1))


WELL_FORMED = (  # ranges of the bytes of a character in UTF-8 (Unicode, table 3-7)
    ((0x00, 0x7F),),
    ((0xC2, 0xDF), (0x80, 0xBF)),
    ((0xE0, 0xE0), (0xA0, 0xBF), (0x80, 0xBF)),
    ((0xE1, 0xEC), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xED, 0xED), (0x80, 0x9F), (0x80, 0xBF)),
    ((0xEE, 0xEF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF0, 0xF0), (0x90, 0xBF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF1, 0xF3), (0x80, 0xBF), (0x80, 0xBF), (0x80, 0xBF)),
    ((0xF4, 0xF4), (0x80, 0x8F), (0x80, 0xBF), (0x80, 0xBF)),
)
FAR = 0xF1  # begins characters that only a set by its exceptions has, in practice


@functools.lru_cache(maxsize=256)
def character(pattern: str) -> tuple[bool, Character]:
    """The spellings in bytes of a pattern that is one character, as llguidance has it; or (True,
    …), its exceptions.
    """
    body = f"/{pattern}/" if pattern.startswith("\\/") else "/" + pattern.replace("/", "\\/") + "/"
    if not next_bytes(_one_terminal(body), b"") >> FAR & 1:
        return False, _spellings(_one_terminal(body), b"")
    return True, _spellings(_one_terminal(f"/(?s:.)/ & ~{body}"), b"")


def _one_terminal(body: str) -> str:
    return f"{HEADER}start: T\nT: {body}\n"


def _spellings(grammar: str, before: bytes) -> Character:
    following = next_bytes(grammar, before)
    if before and len(before) + 1 == _length(before[0]):
        return ((following, ()),)
    groups: dict[Character, int] = {}
    for byte in range(256):
        if following >> byte & 1:
            rest = (
                _spellings(grammar, before + bytes([byte])) if _length(byte) > 1 or before else ()
            )
            groups[rest] = groups.get(rest, 0) | 1 << byte
    return tuple((among, rest) for rest, among in groups.items())


def _length(first: int) -> int:
    """Bytes of a character, by its first."""
    return next(len(ranges) for ranges in WELL_FORMED if first <= ranges[0][1])
