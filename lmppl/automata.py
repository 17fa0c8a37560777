"""Formal languages of `matches`, `in_grammar` and `is_json`: one automaton says what is in and what may come next.

Grammars are those of llguidance (derivatives of regular expressions, Earley for the rest): linear time, no
backtracking. This module knows bytes and files; which tokens may come next is in masks.py.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

SHIPPED = "grammars"  # folder of the grammars that come with lmppl
# by default llguidance leaves only the usual tokenisation of bytes that are certain; every one has its probability
HEADER = '%llguidance {"no_forcing": true}\n'
BROKEN = "�"  # what bytes that are no character decode to: a text that holds it is in no language


class GrammarError(ValueError):
    """A pattern, grammar or schema that no automaton can be built from."""


def regex_grammar(pattern: str) -> str:
    """Grammar of the texts that a regular expression matches as a whole."""
    from llguidance import regex_to_lark

    return f"{HEADER}start: /{regex_to_lark(pattern, '')}/\n"


def file_grammar(kind: str, path: str) -> str:
    """Grammar of a Lark file (kind "in_grammar") or of a JSON schema ("is_json"). Raises GrammarError, OSError."""
    text = Path(path).read_text(encoding="utf-8")
    if kind == "in_grammar":
        return HEADER + text
    try:
        schema = json.dumps(json.loads(text))
    except ValueError as reason:
        raise GrammarError(f"{Path(path).name} is no JSON: {reason}") from None
    return f"{HEADER}start: %json {schema}\n"


def find_file(name: str, folder: str) -> Path:
    """A file that a program names: beside it, or else among the shipped grammars. It may not exist."""
    beside = Path(folder) / name
    shipped = shipped_grammars() / name
    return shipped if not beside.exists() and Path(name).name == name and shipped.exists() else beside


def shipped_grammars() -> Path:
    """The folder of the shipped grammars: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / SHIPPED
    return inside if inside.is_dir() else package.parent / SHIPPED


@functools.lru_cache(maxsize=256)
def grammar_problem(grammar: str) -> str | None:
    """What is wrong with a grammar; None where it is one."""
    from llguidance import LLMatcher

    message = LLMatcher.validate_grammar(grammar, _byte_tokenizer())
    return message.strip() or None


def accepts(grammar: str, text: str) -> bool:
    """Whether a whole text is in a grammar's language. Raises GrammarError."""
    if BROKEN in text:
        return False
    matcher = _matcher(grammar).deep_copy()
    units = list(text.encode("utf-8"))
    return matcher.try_consume_tokens(units) == len(units) and matcher.is_accepting()


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
