"""The bytes of every token, for tokenizers whose texts are the tokens' bytes one after the other.

A tokenizer reads tokens in steps. Each is followed here for one token by itself; those that touch a
text's beginning or end only (a first space that is dropped) are left out, since a latent's text
stands behind its context. What is found so is held against the tokenizer's own reading; where they
part, or a step is unknown, nothing is told.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

from transformers import PreTrainedTokenizerFast

Piece = str | bytes  # a token on its way to its bytes
Read = Callable[[Piece], Piece]
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
CHECKS, LENGTH = 64, 24  # how many texts of how many tokens are read in both ways


def token_bytes(
    tokenizer: PreTrainedTokenizerFast, pipeline: Mapping[str, Any], size: int
) -> tuple[bytes, ...] | None:
    """Bytes of tokens 0 to size − 1, empty where there is no such token; None where they cannot be
    told.

    pipeline: the tokenizer, as its file has it.
    """
    steps = _steps(pipeline.get("decoder"))
    if steps is None:
        return None
    # written as bytes, read as names
    unread = pipeline["model"].get("byte_fallback") and _byte_fallback not in steps
    if unread:
        steps = [_byte_fallback, *steps]
    added = {number: str(token.content) for number, token in tokenizer.added_tokens_decoder.items()}
    pieces = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
    found = [_bytes(added.get(n, piece) or "", steps, n in added) for n, piece in enumerate(pieces)]
    found += [b""] * (size - len(found))
    own = {
        n
        for n, piece in enumerate(pieces)
        if n in added or (unread and BYTE_TOKEN.fullmatch(piece or ""))
    }
    return tuple(found) if _reads_alike(tokenizer, found, own) else None


def byte_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[int, int]:
    """Tokens that stand for one byte, where the vocabulary has some: <0x0A> and the like."""
    vocabulary = tokenizer.get_vocab()
    names = {byte: vocabulary.get(f"<0x{byte:02X}>") for byte in range(256)}
    return {byte: token for byte, token in names.items() if token is not None}


def space_symbol(decoder: Mapping[str, Any] | None) -> str | None:
    """What a vocabulary writes in place of a space, where it does so: the character ▁, mostly."""
    for step in _flat(decoder):
        if step["type"] == "Metaspace":
            return str(step["replacement"])
        if step["type"] == "Replace" and step["content"] == " ":
            return step["pattern"].get("String")
    return None


@functools.cache
def byte_table() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {symbol: byte for byte, symbol in bytes_to_unicode().items()}


# --- the steps of a decoder -----------------------------------------------------------------------


def _flat(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is not None and decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _flat(part)
    elif decoder is not None:
        yield decoder


def _steps(decoder: Mapping[str, Any] | None) -> list[Read] | None:
    """What a decoder does to one token; None where that depends on others. No decoder puts spaces
    in between.
    """
    steps: list[Read] = []
    fused = False  # whether the tokens are one text already
    for part in _flat(decoder):
        step = _step(part, fused)
        if step is None:
            return None
        steps.append(step)
        fused = fused or part["type"] == "Fuse"
    return steps or None


def _step(part: Mapping[str, Any], fused: bool) -> Read | None:
    kind = part["type"]
    if kind == "Fuse":
        return _same
    if kind == "ByteLevel":
        return _byte_level
    if kind == "ByteFallback":
        return None if fused else _byte_fallback
    if kind == "Metaspace":
        return functools.partial(_replace, part["replacement"], " ")
    if kind == "Strip":  # of a whole text: its beginning and end alone
        return (
            _same
            if fused
            else functools.partial(_strip, part["content"], part["start"], part["stop"])
        )
    pattern = part["pattern"].get("String") if kind == "Replace" else None
    if not pattern or (fused and len(pattern) > 1):  # could lie across tokens
        return None
    return functools.partial(_replace, pattern, part["content"])


def _same(piece: Piece) -> Piece:
    return piece


def _byte_level(piece: Piece) -> Piece:
    table = byte_table()
    if isinstance(piece, bytes) or not all(symbol in table for symbol in piece):
        return piece
    return bytes(table[symbol] for symbol in piece)


def _byte_fallback(piece: Piece) -> Piece:
    found = BYTE_TOKEN.fullmatch(piece) if isinstance(piece, str) else None
    return bytes([int(found[1], 16)]) if found else piece


def _replace(pattern: str, content: str, piece: Piece) -> Piece:
    return piece.replace(pattern, content) if isinstance(piece, str) else piece


def _strip(content: str, start: int, stop: int, piece: Piece) -> Piece:
    if isinstance(piece, bytes):
        return piece
    first = len(piece[:start]) - len(piece[:start].lstrip(content))
    last = len(piece[-stop:]) - len(piece[-stop:].rstrip(content)) if stop else 0
    return piece[first : len(piece) - last]


def _bytes(piece: str, steps: Sequence[Read], added: bool) -> bytes:
    """added: the token is no part of the byte-level vocabulary, and stands as it is."""
    found: Piece = piece
    for step in steps:
        found = found if added and step is _byte_level else step(found)
    return found.encode("utf-8", "replace") if isinstance(found, str) else found


# --- held against the tokenizer's own reading -----------------------------------------------------


def _reads_alike(tokenizer: PreTrainedTokenizerFast, found: Sequence[bytes], own: Set[int]) -> bool:
    """Whether the tokenizer reads texts of random tokens as these bytes one after the other.

    They stand between two tokens that no rule for beginnings and ends touches. own: tokens that are
    read by a rule of ours.
    """
    whole = [
        n for n, piece in enumerate(found) if piece and n not in own and _text(piece) is not None
    ]
    edge = next((n for n in whole if re.fullmatch(rb"[!-~]+", found[n])), None)
    edges = [] if edge is None else [edge]
    rng = random.Random(0)
    for _ in range(CHECKS if whole else 0):
        tokens = [*edges, *rng.choices(whole, k=LENGTH), *edges]
        read = tokenizer.decode(
            tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        if read != _text(b"".join(found[token] for token in tokens)):
            return False
    return True


def _text(piece: bytes) -> str | None:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return None
