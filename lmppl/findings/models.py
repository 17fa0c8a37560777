"""Findings about language models: what backends can do, and what table files hold. One constructor
each.
"""

from __future__ import annotations

from lmppl.errors import Diagnostic, error


def beyond_window(name: str, length: int, window: int) -> Diagnostic:
    message = f"`{name}` was given {length} tokens"
    return error("context-too-long", message, expected=f"at most {window} tokens")


def no_piece(text: str) -> Diagnostic:
    message = "the model's vocabulary cannot write a text"
    help = "add a piece to the vocabulary; where no law names it, its probability is 0"
    return error("no-piece", message, found=f"no piece goes on with {text[:40]!r}", help=help)
