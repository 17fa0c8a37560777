"""Formal languages of constraints: one automaton says what is in and what may come next.

Grammars are those of llguidance (derivatives of regular expressions, Earley for the rest): linear
time, no backtracking. This module knows bytes and files; which tokens may come next is in masks.py.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

SHIPPED = "grammars"  # folder of the grammars that come with lmppl
# by default llguidance leaves only the usual tokenisation of bytes that are certain; every one has
# its probability
HEADER = '%llguidance {"no_forcing": true}\n'
# a Lark file's ignored texts may stand at the beginning as well
LARK_HEADER = '%llguidance {"no_forcing": true, "allow_initial_skip": true}\n'
# what stands around a JSON value, as JSON has it: written here because llguidance allows white
# space inside only
AROUND_JSON = "start: BLANK? value BLANK?\nBLANK: /[ \\t\\n\\r]+/\n"
# `json.dumps` writes é as \u00e9 unless it is told otherwise
JSON_OPTIONS = {"json_allow_general_unicode_escapes": True}
FEW_UNITS = 10  # bytes that are read at once where reading all of them has overflowed
MOST_RULES = 1000  # a chain of some 2000 rules overflows the stack of llguidance
# in a JSON schema; a chain of some 2000 overflows that stack, and ends the process
MANY_REFERENCES = 300
BROKEN = "�"  # what bytes that are no character decode to: a text that holds it is in no language


class GrammarError(ValueError):
    """A pattern, grammar or schema that no automaton can be built from."""


def file_grammar(kind: str, path: str) -> str:
    """Grammar of a Lark file (kind "in_grammar") or of a JSON schema ("is_json"). Raises
    GrammarError, OSError.
    """
    name = Path(path).name
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise GrammarError(f"{name} is not UTF-8: {reason}") from None
    grammar = _lark_grammar(name, text) if kind == "in_grammar" else _schema_grammar(name, text)
    if text.count('"$ref"') > MANY_REFERENCES and not _survived(grammar):
        raise GrammarError(f"{name} has definitions that lead to one another too many times")
    return grammar


def _lark_grammar(name: str, text: str) -> str:
    if len(re.findall(r"^\s*[?!]?[\w-]+.*?:", text, re.MULTILINE)) > MOST_RULES:
        raise GrammarError(f"{name} has more than {MOST_RULES} rules")
    return LARK_HEADER + text


def _schema_grammar(name: str, text: str) -> str:
    try:
        schema = _enforceable(json.loads(text))
    except RecursionError:
        raise GrammarError(f"{name} is nested too deeply") from None
    except ValueError as reason:
        raise GrammarError(f"{name} is no JSON: {reason}") from None
    if schema is True:  # the schema of any value
        schema = {}
    if isinstance(schema, dict):
        options = schema.get("x-guidance", {})
        schema["x-guidance"] = {**JSON_OPTIONS, **options} if isinstance(options, dict) else options
    return f"{HEADER}{AROUND_JSON}value: %json {json.dumps(schema)}\n"


def _enforceable(schema: Any) -> Any:
    """A schema without the formats that no automaton knows: JSON Schema has `format` as an
    annotation.
    """
    if isinstance(schema, list):
        return [_enforceable(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: part if key in ("const", "enum", "default", "examples") else _enforceable(part)
        for key, part in schema.items()
        if not (key == "format" and isinstance(part, str) and not _is_format(part))
    }


@functools.lru_cache(maxsize=256)
def _is_format(name: str) -> bool:
    """Whether llguidance knows a JSON Schema format."""
    return (
        grammar_problem(f"start: %json {json.dumps({'type': 'string', 'format': name})}\n") is None
    )


_VALIDATE = """\
import sys, threading
from llguidance import LLMatcher, LLTokenizer
grammar = sys.stdin.buffer.read().decode("utf-8")
threading.stack_size(2**22)  # half of what there is: to read it may need a little more elsewhere
threading.Thread(target=lambda: LLMatcher.validate_grammar(grammar, LLTokenizer("byte"))).start()
"""


@functools.lru_cache(maxsize=64)
def _survived(grammar: str) -> bool:
    """Whether a process of its own outlives reading a grammar."""
    done = subprocess.run(
        [sys.executable, "-c", _VALIDATE], input=grammar.encode(), stderr=subprocess.DEVNULL
    )
    return done.returncode >= 0


def find_file(name: str, folder: str) -> Path:
    """A file that a program names: beside it, or else among the shipped grammars. It may not
    exist.
    """
    beside = Path(folder) / name
    shipped = shipped_grammars() / name
    return (
        shipped
        if not os.path.exists(beside) and Path(name).name == name and os.path.exists(shipped)
        else beside
    )


def shipped_grammars() -> Path:
    """The folder of the shipped grammars: inside an installed package, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / SHIPPED
    return inside if inside.is_dir() else package.parent / SHIPPED


@functools.lru_cache(maxsize=256)
def grammar_problem(grammar: str) -> str | None:
    """What is wrong with a grammar; None where it is one."""
    from llguidance import LLMatcher

    message = LLMatcher.validate_grammar(grammar, _byte_tokenizer())
    return message.strip() or None


def accepts(grammar: str, text: str) -> bool:
    """Whether a whole text is in a grammar's language. Raises GrammarError, as where its automaton
    grows too large.
    """
    if BROKEN in text:
        return False
    units = list(text.encode("utf-8", "surrogatepass"))  # half a surrogate pair is in no language
    try:
        return _consumed(grammar, units, len(units))
    except GrammarError:
        # copies share what has overflowed, and would accept nothing from now on
        _matcher.cache_clear()
    try:
        return _consumed(grammar, units, FEW_UNITS)
    except GrammarError:
        _matcher.cache_clear()
        raise


def _consumed(grammar: str, units: list[int], at_once: int) -> bool:
    """Whether the automaton accepts these bytes, read so many at once: a step may add so much to it
    and no more.
    """
    matcher = _matcher(grammar).deep_copy()
    for start in range(0, len(units), max(at_once, 1)):
        if start:
            matcher.compute_bitmask()  # begins a step
        some = units[start : start + at_once]
        taken = matcher.try_consume_tokens(some)
        if reason := overflow(matcher):
            raise GrammarError(reason)
        if taken < len(some):
            return False
    return matcher.is_accepting()


def overflow(matcher: Any) -> str | None:
    """Why a matcher of llguidance has given up; None where it goes on, or where no text whatever
    could follow.
    """
    if not matcher.is_error() or (reason := matcher.get_error()).startswith("NoExtension"):
        return None
    return " ".join(reason.split("\n")[0].split())[:200]


def is_empty(grammar: str) -> bool:
    """Whether a grammar's language is certain to have no text at all. Raises GrammarError."""
    matcher = _matcher(grammar)
    return matcher.is_stopped() and not matcher.is_accepting()


@functools.cache
def _byte_tokenizer() -> Any:
    from llguidance import LLTokenizer

    return LLTokenizer("byte")


@functools.lru_cache(maxsize=64)
def _matcher(grammar: str) -> Any:
    from llguidance import LLMatcher

    matcher = LLMatcher(_byte_tokenizer(), grammar, log_level=0)
    if matcher.is_error():
        raise GrammarError(matcher.get_error())
    matcher.compute_bitmask()  # an empty language is seen when the first mask is asked for
    return matcher


def next_bytes(grammar: str, before: bytes) -> int:
    """Bytes that may follow these in a text of a grammar, as 256 bits. Raises GrammarError."""
    matcher = _matcher(grammar).deep_copy()
    if matcher.try_consume_tokens(list(before)) < len(before):
        return 0
    bits = int.from_bytes(matcher.compute_bitmask(), "little") & (1 << 256) - 1
    if reason := overflow(matcher):
        raise GrammarError(reason)
    return bits
