"""Findings about language models: what backends can do, and what table files hold. One constructor
each.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmppl.errors import Diagnostic, error
from lmppl.source import Source, Span


def beyond_window(name: str, length: int, window: int) -> Diagnostic:
    """A model was given more tokens than its window holds. length, window: tokens."""
    message = f"`{name}` was given {length} tokens"
    return error("context-too-long", message, expected=f"at most {window} tokens")


def no_piece(text: str) -> Diagnostic:
    """No piece of a vocabulary goes on with a text, so that it cannot be encoded."""
    message = "the model's vocabulary cannot write a text"
    help = "add a piece to the vocabulary; where no law names it, its probability is 0"
    return error("no-piece", message, found=f"no piece goes on with {text[:40]!r}", help=help)


def bad_table(file: str, problem: str) -> Diagnostic:
    """A file is no table of a language model. problem: what is wrong in it."""
    message = f"`{file}` is no table of a language model"
    help = "docs/models.md shows what a table holds"
    return error("bad-table", message, found=f"{problem:.200}", help=help)


def cannot_adapt(
    identifier: str, source: Source | None = None, span: Span | None = None
) -> Diagnostic:
    """A model is to be trained, and takes no adapter."""
    message = f"`{identifier}` takes no adapter"
    expected = "an alias, a folder or a hub id, which transformers runs"
    return error("cannot-adapt", message, source, span, expected=expected)


def option_of_a_table(source: Source, span: Span, option: str) -> Diagnostic:
    """A model that is a table is declared with an option of networks."""
    message = f"`{option}` has no meaning for a table"
    return error("option-of-a-table", message, source, span, help=f"leave `{option}` out")


def infer_cannot(
    model: str, engine: str, lacking: str, others: Sequence[str], source: Source, span: Span
) -> Diagnostic:
    """A program's `infer` names an engine that its own model cannot serve. others: engines that it
    can; span: of the statement.
    """
    message = f"`{engine}` cannot use the model `{model}`: it has no {lacking}"
    engines = f"`infer {others[0]}`, or " if others else ""
    help = f"write {engines}another model: what transformers runs has all that engines need"
    return error("model-cannot", message, source, span, help=help)


def cannot_do(
    model: str, engine: str, lacking: str, others: Sequence[str], source: Source, span: Span
) -> Diagnostic:
    """A model lacks what an engine needs. others: engines that would do."""
    message = f"`{engine}` cannot use the model `{model}`: it has no {lacking}"
    help = f"use --engine {others[0]}" if others else "take a model that transformers runs"
    expected = f"one of the engines {', '.join(others)}" if others else None
    return error("model-cannot", message, source, span, expected=expected, help=help)
