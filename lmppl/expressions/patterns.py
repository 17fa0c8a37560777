"""Regular expressions of `matches`: one dialect, read in one place by check, by the density and by
the masks.

The dialect is that of Rust's `regex` crate, and llguidance's automaton decides. What no automaton
follows (a backreference, a look-around, a word border) is read as well: such a pattern is searched
for by Python's `regex`, and the rest of it must be in the dialect and mean the same there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lmppl.expressions.grammars import HEADER, accepts, grammar_problem

SECONDS_PER_MATCH = 5.0  # a search that takes longer is an error, not a hang
MOST_DEPTH = 100  # groups within groups, where there is no automaton
MOST_COPIES = 20_000  # of one character, by repeats within repeats, where there is no automaton

_TOKEN = re.compile(
    r"""
    (?P<backreference>\\[1-9]|\\[gk]<\w+>|\(\?P=\w+\))
  | (?P<border>\\[bB<>])
  | (?P<end>\\[zZ])
  | (?P<escape>\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\[uU]\{[^}]*\}|\\.)
  | (?P<set>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])
  | (?P<comment>\(\?\#[^)]*\))
  | (?P<around>\(\?<?[=!])
  | (?P<atomic>\(\?>)
  | (?P<open>\()
  | (?P<close>\))
  | (?P<repeat>(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d+)\})(?P<mode>[+?]?))
  | (?P<brace>\{)
  | (?P<anchor>\^|\$)
  | (?P<other>.)
""",
    re.VERBOSE | re.DOTALL,
)
_FEATURES = {
    "backreference": "a backreference",
    "border": "a word border",
    "around": "a look-around",
    "atomic": "an atomic group",
}
# what Python's `regex` reads as something else: sets within sets, and some flags
_SET_OPERATION = re.compile(r"(?<!\\)\[|&&|--|~~|\|\|")
_OTHER_FLAGS = re.compile(r"\(\?[a-zA-Z-]*[xRuU][a-zA-Z-]*[:)]")
_LINES = re.compile(r"\(\?[a-zA-Z]*m")
_OCTAL = r"escapes with octal digits are not read: write \x and two hexadecimal ones"
_COMPLAINT = re.compile(
    r"regex parse error:\n    (?P<shown>.*)\n    (?P<caret> *)\^.*\nerror: (?P<message>.*)"
)


class PatternError(ValueError):
    """What is wrong with a pattern, and at which character."""

    def __init__(self, message: str, place: int = 0) -> None:
        super().__init__(message)
        self.message, self.place = message, place


@dataclass(frozen=True)
class ReadPattern:
    """How a pattern is decided: by an automaton, or else, for a reason, by a search."""

    terminal: str | None  # of llguidance
    search: str = ""  # for Python's `regex`, where there is no automaton
    why: str = ""  # there is none, in words
    place: int = 0  # in the pattern, of what has none

    def matches(self, text: str) -> bool:
        """Whether the pattern matches a whole text. Raises TimeoutError, GrammarError."""
        if self.terminal is not None:
            return accepts(_grammar(self.terminal), text)
        import regex

        return regex.fullmatch(self.search, text, regex.V0, timeout=SECONDS_PER_MATCH) is not None


Token = re.Match[str]


@functools.lru_cache(maxsize=256)
def read_pattern(pattern: str) -> ReadPattern:
    """A pattern as it is decided. Raises PatternError where it is none."""
    tokens = tokens_of(pattern)
    if tokens and tokens[-1][0] == "\\":
        raise PatternError("nothing stands behind this backslash", len(pattern) - 1)
    if (half := pattern.find("\\b{")) >= 0:
        raise PatternError("write \\< and \\> for the beginning and the end of a word", half)
    terminal = _terminal("".join(map(_for_automaton, tokens)))
    problem = grammar_problem(_grammar(terminal))
    feature = next((token for token in tokens if _feature(token)), None)
    if problem is None and feature is None:
        return ReadPattern(terminal)
    if complaint := _COMPLAINT.search(problem or ""):
        message = (
            _OCTAL if complaint["message"].startswith("backreferences") else complaint["message"]
        )
        raise PatternError(message, _origin(complaint, tokens))
    _require_searchable(tokens, pattern)
    if feature is not None:
        what, place = _feature(feature), feature.start()
    else:
        anchor = next((token for token in tokens[1:] if token["anchor"] or token["end"]), None)
        what, place = ("an anchor inside", anchor.start()) if anchor else ("so large a pattern", 0)
    return ReadPattern(None, searched(tokens), f"{what} has no automaton", place)


@functools.lru_cache(maxsize=256)
def searched_for(pattern: str) -> Any:
    """A pattern that is searched for within texts, for what its groups hold: compiled by Python's
    `regex`. Raises PatternError where it is none, or has no group.
    """
    import regex

    read_pattern(pattern)
    tokens = tokens_of(pattern)
    _require_searchable(tokens, pattern)
    compiled = regex.compile(searched(tokens), regex.V0)
    if not compiled.groups:
        raise PatternError("it has no group")
    return compiled


def tokens_of(pattern: str) -> list[Token]:
    """The pieces of a pattern that are read alike, or differently, by those who decide it."""
    return list(_TOKEN.finditer(pattern))


def _grammar(terminal: str) -> str:
    return f"{HEADER}start: {terminal}\n"


def _terminal(pattern: str) -> str:
    from llguidance import regex_to_lark

    try:
        return f"/{regex_to_lark(pattern, '')}/" if pattern else '""'
    except UnicodeEncodeError:
        raise PatternError("half of a surrogate pair is no character") from None


def _feature(token: Token) -> str | None:
    """What no automaton follows, in words."""
    if token["repeat"] and token["mode"] == "+":
        return "a possessive repeat"
    return _FEATURES.get(token.lastgroup or "")


# --- writing a pattern for each -------------------------------------------------------------------


def _for_automaton(token: Token) -> str:
    """A token as Rust writes it; what has no automaton as something that stands where it may
    stand.
    """
    if token["backreference"] or token["border"]:
        return "(?:)"
    if token["around"] or token["atomic"]:
        return "(?:"
    if token["repeat"]:
        return _repeat(token)[: -1 if token["mode"] == "+" else None]
    return r"\z" if token["end"] else _shared(token)


def _for_search(token: Token, lines: bool) -> str:
    """A token as Python's `regex` writes it. lines: whether anchors stand at line breaks, too."""
    if token["border"]:
        return {r"\<": r"\m", r"\>": r"\M"}.get(token[0], token[0])
    if token["repeat"]:
        return _repeat(token)
    if token["end"] or (token[0] == "$" and not lines):
        return r"\Z"
    return _shared(token)


def _shared(token: Token) -> str:
    return "" if token["comment"] else r"\{" if token["brace"] else token[0]


def _repeat(token: Token) -> str:
    return token[0].replace("{,", "{0,")


def searched(tokens: Sequence[Token]) -> str:
    """A pattern for Python's `regex`."""
    lines = any(token["open"] and _LINES.match(token.string, token.start()) for token in tokens)
    return "".join(_for_search(token, lines) for token in tokens)


def _origin(complaint: re.Match[str], tokens: Iterable[Token]) -> int:
    """The character of the pattern that a complaint about the automaton's form points at."""
    left = len(complaint["shown"][: len(complaint["caret"])].replace("\\/", "/"))
    place = 0
    for token in tokens:
        written = len(_for_automaton(token).replace("\\/", "/"))
        if left < written:
            return token.start() + min(left, len(token[0]) - 1)
        left, place = left - written, token.end()
    return place


# --- what can be searched for ---------------------------------------------------------------------


def _require_searchable(tokens: Sequence[Token], pattern: str) -> None:
    """Raises PatternError where Python's `regex` cannot read the pattern, or would read another
    one.
    """
    import regex
    from regex._regex_core import error as RegexError

    if _depth(tokens) > MOST_DEPTH:
        raise PatternError(
            f"it is nested too deeply: at most {MOST_DEPTH} groups, where no automaton decides"
        )
    if _copies(tokens) > MOST_COPIES:
        raise PatternError(
            f"it repeats too often: at most {MOST_COPIES} times, where no automaton decides"
        )
    for token in tokens:
        operation = (
            _SET_OPERATION.search(token[0], 1)
            if token["set"]
            else _OTHER_FLAGS.match(pattern, token.start())
        )
        if operation:
            what = "a set within a set" if token["set"] else "this flag"
            raise PatternError(f"{what} cannot stand beside what has no automaton", token.start())
    try:
        regex.compile(searched(tokens), regex.V0)
    except RegexError as reason:
        raise PatternError(str(reason.msg), min(reason.pos or 0, len(pattern) - 1)) from None  # type: ignore[attr-defined]


def _depth(tokens: Iterable[Token]) -> int:
    depth = most = 0
    for token in tokens:
        depth += bool(token["open"] or token["around"] or token["atomic"]) - bool(token["close"])
        most = max(most, depth)
    return most


def _copies(tokens: Iterable[Token]) -> float:
    """How often repeats within repeats copy the piece that they copy most."""
    sizes: list[float] = [1.0]  # of the groups that are open
    last = 1.0  # of the piece that a repeat would repeat
    for token in tokens:
        if token["open"] or token["around"] or token["atomic"]:
            sizes.append(1.0)
        elif token["close"] and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] = max(sizes[-1], last)
        elif token["repeat"]:
            last *= max([1.0, *map(float, re.findall(r"\d+", token[0]))])
            sizes[-1] = max(sizes[-1], last)
        else:
            last = 1.0
    return max(sizes)
