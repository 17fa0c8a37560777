"""The bytes of every token, for tokenizers whose texts are the tokens' bytes one after the other."""

from __future__ import annotations

import json
from typing import Any

from transformers import PreTrainedTokenizerFast


def token_bytes(tokenizer: PreTrainedTokenizerFast, vocabulary_size: int) -> tuple[bytes, ...] | None:
    """Bytes of each of the V tokens, empty for padding; None where a token's text depends on its neighbours."""
    backend: Any = tokenizer.backend_tokenizer
    kind = (json.loads(backend.to_str()).get("decoder") or {}).get("type")
    if kind not in ("ByteLevel", "Fuse"):
        return None
    table = byte_table()
    added = {number: str(token.content).encode() for number, token in tokenizer.added_tokens_decoder.items()}
    pieces = []
    for number, piece in enumerate(tokenizer.convert_ids_to_tokens(list(range(min(vocabulary_size, len(tokenizer)))))):
        plain = piece or ""
        spelled = bytes(table.get(c, ord(c) & 0xFF) for c in plain) if kind == "ByteLevel" else plain.encode()
        pieces.append(added.get(number, spelled))
    return (*pieces, *[b""] * (vocabulary_size - len(pieces)))


def byte_table() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {symbol: byte for byte, symbol in bytes_to_unicode().items()}
