"""Texts as tokens and tokens as texts, for one tokenizer: the one place that knows how.

Tokenizers of the SentencePiece kind put a space in front of every text that they are given, and
drop the first one of every text that they read. Pieces of a longer text have neither: here tokens
are read as their bytes, one after the other, and texts are written without anything in front, but
for the beginning of a prompt.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lmppl.lm.protocol import Tokens
from lmppl.lm.transformers.vocabulary import byte_tokens, space_symbol, token_bytes

# characters of a text whose tokens are remembered, and how many are: rows are read twice
SHORT, REMEMBERED = 200, 2**15
PROBES = ("a", " a", "a a", " a b", "  a", "\na ")


class Spelling:
    """How one tokenizer writes and reads. Nothing of it is changed."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, vocabulary_size: int) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[str, bool], Tokens] = {}
        self._size = max(vocabulary_size, len(tokenizer))

    # --- reading ---------------------------------------------------------------------------------

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...] | None:
        """Bytes of each token, empty for padding; None where a token's text depends on its
        neighbours.
        """
        return token_bytes(self._tokenizer, self._pipeline, self._size)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens as it stands behind others; bytes that are no character become U+FFFD."""
        if self.token_bytes is not None:
            known = [self.token_bytes[token] for token in tokens if token < self._size]
            return b"".join(known).decode("utf-8", "replace")
        known = [
            token for token in tokens if token < len(self._tokenizer)
        ]  # padded vocabularies have no text there
        return str(
            self._tokenizer.decode(
                known, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def piece(self, token: int) -> str:
        """Text of a token by itself; bytes that are no whole character are written <0xE2>."""
        text = self.decode([token])
        if "\ufffd" not in text or self.token_bytes is None:
            return text
        return "".join(f"<0x{byte:02X}>" for byte in self.token_bytes[token])

    # --- writing ---------------------------------------------------------------------------------

    def encode(self, text: str, *, markers: bool) -> Tokens:
        """Tokens of a piece of a longer text. markers: whether special tokens' names in it become
        those.
        """
        if len(text) > SHORT:
            return self._encode(text, markers)
        key = text, markers
        if key not in self._known:  # pieces of a program are asked for with every row
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = self._encode(text, markers)
        return self._known[key]

    def _encode(self, text: str, markers: bool) -> Tokens:
        tokens = self._encode_inside(text, markers)
        symbol = self._symbol
        if symbol is None or symbol not in text or self.decode(tokens) == text:
            return tokens
        parts = [self._encode_inside(part, markers) for part in text.split(symbol)]
        spelled = [
            self._byte_tokens[byte] for byte in symbol.encode()
        ]  # the symbol itself would be read as a space
        exact = tuple(parts[0]) + tuple(token for part in parts[1:] for token in (*spelled, *part))
        return exact if self.decode(exact) == text else tokens

    def encode_opening(self, text: str, *, markers: bool) -> Tokens:
        """Tokens of a text that a prompt begins with: with a space in front where the tokenizer
        puts one there.
        """
        if self._inside is None or not text:
            return self.encode(text, markers=markers)
        whole = self._encode_alone(text, markers)
        beginning = str(self._tokenizer.bos_token or "")
        spaced = [" " + text]
        if beginning and markers and text.startswith(beginning):
            spaced.append(f"{beginning} {text.removeprefix(beginning)}")
        ways = [self.encode(way, markers=markers) for way in (text, *spaced)]
        return max(ways, key=lambda way: _alike(way, whole))

    def encode_template(self, text: str, *, opening: bool) -> Tokens:
        """Tokens of what a chat template writes, as the tokenizer itself writes them: behind a
        marker it may put a space, or take one away.
        """
        first = 0 if opening else self._first_marker(text)
        before = self.encode(text[:first], markers=False) if first else ()
        return before + self._encode_alone(text[first:], True)

    def _first_marker(self, text: str) -> int:
        """Where the first marker of a text begins; its end where it has none."""
        found = (text.find(name) for name in self._markers)
        return min((place for place in found if place >= 0), default=len(text))

    @functools.cached_property
    def _markers(self) -> list[str]:
        """Names of the tokens that are found in a text before it is split."""
        return [token.content for token in self._tokenizer.added_tokens_decoder.values()]

    def _encode_inside(self, text: str, markers: bool) -> Tokens:
        if self._inside is None:
            return self._encode_alone(text, markers)
        self._inside.encode_special_tokens = not markers
        return tuple(self._inside.encode(text, add_special_tokens=False).ids)

    def _encode_alone(self, text: str, markers: bool) -> Tokens:
        """As the tokenizer itself writes a text."""
        return tuple(
            self._tokenizer(text, add_special_tokens=False, split_special_tokens=not markers)[
                "input_ids"
            ]
        )

    @functools.cached_property
    def _inside(self) -> Tokenizer | None:
        """The tokenizer without what it does at a text's beginning and end; None where it does
        nothing there.
        """
        bare = _bare(self._pipeline)
        if self.token_bytes is None or bare == self._pipeline:
            return None
        inside = Tokenizer.from_str(json.dumps({**bare, "truncation": None, "padding": None}))
        kept = sum(
            self.decode(inside.encode(text, add_special_tokens=False).ids) == text
            for text in PROBES
        )
        usual = sum(self.decode(self._encode_alone(text, True)) == text for text in PROBES)
        return (
            inside if kept >= usual else None
        )  # some drop all white space and mark words by what is put in front

    @functools.cached_property
    def _pipeline(self) -> dict[str, Any]:
        backend: Any = self._tokenizer.backend_tokenizer
        return json.loads(backend.to_str())

    @functools.cached_property
    def _symbol(self) -> str | None:
        """What stands for a space in the vocabulary, where the symbol itself can be written by its
        bytes.
        """
        symbol = None if self.token_bytes is None else space_symbol(self._pipeline.get("decoder"))
        return (
            symbol
            if symbol and all(byte in self._byte_tokens for byte in symbol.encode())
            else None
        )

    @functools.cached_property
    def _byte_tokens(self) -> dict[int, int]:
        return byte_tokens(self._tokenizer)


def _alike(left: Tokens, right: Tokens) -> int:
    """How many tokens two texts begin with in common."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(left), len(right)))


def _bare(pipeline: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer's file without steps that add or take something at a text's beginning and end."""
    return {
        **pipeline,
        "normalizer": _bare_step(pipeline.get("normalizer")),
        "pre_tokenizer": _bare_step(pipeline.get("pre_tokenizer")),
        "added_tokens": [
            token
            if token["special"]
            else {**token, "lstrip": False, "rstrip": False}  # plain text keeps its spaces
            for token in pipeline.get("added_tokens", ())
        ],
    }


def _bare_step(step: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """One step of normalising or splitting; None where nothing of it is left."""
    if step is None or step["type"] in ("Prepend", "Strip"):
        return None
    if step["type"] == "Sequence":
        key = "normalizers" if "normalizers" in step else "pretokenizers"
        parts = [bare for part in step[key] if (bare := _bare_step(part)) is not None]
        return {**step, key: parts}
    if step["type"] == "Metaspace":
        return {**step, "prepend_scheme": "never"}
    return {**step, "add_prefix_space": False} if step["type"] == "ByteLevel" else dict(step)
