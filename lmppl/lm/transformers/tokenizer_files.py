"""The tokenizer of a model whose weights are elsewhere: its files alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from lmppl.errors import LmpplError, error, first_line
from lmppl.lm.protocol import Tokens
from lmppl.lm.transformers.limits import require_known, require_rows
from lmppl.lm.transformers.silence import quiet
from lmppl.lm.transformers.special_tokens import (
    beginning,
    document_start,
    end_tokens,
    template_of,
)
from lmppl.lm.transformers.spelling import Spelling


class FilesTokenizer:
    """Implements Tokenizer as a network with these files does."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, settings: Any, vocabulary_size: int, name: str
    ) -> None:
        """settings: that name end tokens; name: of the model, for findings. Raises LmpplError where
        no token ends a text.
        """
        self.name, self.vocabulary_size = name, vocabulary_size
        self.ends = end_tokens(settings, tokenizer)
        self.end = self.ends[0]
        self.chat = template_of(tokenizer)
        backend: Any = tokenizer.backend_tokenizer
        self.tokenizer_fingerprint = hashlib.sha256(backend.to_str().encode()).hexdigest()
        self._tokenizer = tokenizer
        self._spelling = Spelling(tokenizer, vocabulary_size)
        self._beginning = beginning(tokenizer)
        self._empty = document_start(tokenizer, self.end)
        require_rows(vocabulary_size, [*self.ends, self._beginning, self._empty], tokenizer)

    @property
    def token_bytes(self) -> Sequence[bytes] | None:
        found = self._spelling.token_bytes
        return None if found is None else found[: self.vocabulary_size]

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        write = self._spelling.encode_opening if opening else self._spelling.encode
        return self._known(write(text, markers=markers))

    def encode_template(self, text: str, *, opening: bool) -> Tokens:
        """See LanguageModel."""
        return self._known(self._spelling.encode_template(text, opening=opening))

    def encode_alone(self, text: str) -> Tokens:
        """Tokens of a whole text, as the tokenizer itself writes it, without a beginning."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _known(self, tokens: Tokens) -> Tokens:
        require_known(tokens, self.vocabulary_size, self.name, self._tokenizer)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        return self._spelling.decode(tokens)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        return [self._spelling.piece(token) for token in tokens]

    def begin(self, tokens: Tokens) -> Tokens:
        if self._beginning is not None and tokens[:1] != (self._beginning,):
            return (self._beginning, *tokens)
        return tokens or (self._empty,)


@dataclass(frozen=True)
class _Settings:
    """Where end tokens are named, as a network has it."""

    config: Any
    generation_config: Any


def read_tokenizer(place: str, name: str) -> FilesTokenizer:
    """The tokenizer of a folder, or of a hub id, of which no weights are read. name: of the model.

    Raises LmpplError.
    """
    local = Path(place).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1"
    own: dict[str, Any] = {"local_files_only": True} if local else {}
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False, **own)
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **own)
            settings = _Settings(config, _generation(place, own))
    except Exception as reason:  # of many kinds: see load.py
        message = f"the tokenizer of `{place:.100}` cannot be read"
        raise LmpplError(error("no-tokenizer", message, found=first_line(reason))) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        message = f"the tokenizer of `{place:.100}` has no fast form"
        expected = "a folder with a tokenizer.json"
        raise LmpplError(error("no-tokenizer", message, expected=expected))
    size = int(config.get_text_config().vocab_size)
    return FilesTokenizer(tokenizer, settings, size, name)


def _generation(place: str, own: dict[str, Any]) -> GenerationConfig | None:
    """What a model's files say of how it is drawn from; None where they say nothing."""
    try:
        return GenerationConfig.from_pretrained(place, **own)
    except OSError:
        return None
