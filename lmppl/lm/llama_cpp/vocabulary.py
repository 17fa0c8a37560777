"""The tokenizer of a GGUF file, as llama.cpp reads it."""

from __future__ import annotations

import ctypes

from lmppl.errors import LmpplError
from lmppl.findings import models as findings
from lmppl.lm.chat import ChatTemplate
from lmppl.lm.llama_cpp.library import PREFIX, Weights
from lmppl.lm.pieces import DOCUMENT_START, PieceTokenizer
from lmppl.lm.protocol import Tokens

SENTENCEPIECE = 1  # LLAMA_VOCAB_TYPE_SPM: spaces are written as SPACE, and one is put in front
SPACE = "▁"
UTF8 = {*range(0xC0), *range(0xC2, 0xF5)}  # bytes that texts can have
LONGEST = 512  # bytes of a token, mostly far fewer


class GgufTokenizer(PieceTokenizer):
    """Splits texts as the file says; its tokens are those of the network's rows."""

    def __init__(self, weights: Weights) -> None:
        """Raises LmpplError where no token ends a text, or a byte that texts have cannot be
        written.
        """
        self._c, self._weights = weights.c, weights
        size = self._c.llama_vocab_n_tokens(weights.vocabulary)
        self.ends = self._find_ends(size)
        super().__init__([self._bytes(token) for token in range(size)], self.ends[0])
        spaced = self._c.llama_vocab_type(weights.vocabulary) == SENTENCEPIECE
        self._byte_tokens = self._find_byte_tokens(size) if spaced else {}
        self._opens_with_space = spaced and weights.said(PREFIX) != "false"
        self._symbol = [self._byte_tokens[byte] for byte in SPACE.encode()] if spaced else None
        beginning = self._c.llama_vocab_bos(weights.vocabulary)
        begins = self._c.llama_vocab_get_add_bos(weights.vocabulary) and beginning >= 0
        self._beginning = beginning if begins else None
        start = self.encode(DOCUMENT_START, markers=True)
        self._empty = start[0] if len(start) == 1 else beginning if beginning >= 0 else self.end

    @property
    def chat(self) -> ChatTemplate | None:
        """The template that the file has for conversations."""
        text = self._c.llama_model_chat_template(self._weights.model, None)
        if text is None:
            return None
        vocabulary = self._weights.vocabulary
        tokens = {
            "bos_token": self._c.llama_vocab_bos(vocabulary),
            "eos_token": self._c.llama_vocab_eos(vocabulary),
        }
        named = {name: self._name(token) for name, token in tokens.items() if token >= 0}
        return ChatTemplate(text.decode("utf-8", "replace"), named)

    def _name(self, token: int) -> str:
        name = self._c.llama_vocab_get_text(self._weights.vocabulary, token)
        return name.decode("utf-8", "replace")

    def _find_ends(self, size: int) -> Tokens:
        """Tokens that end a text, the file's own first. llama.cpp counts those of infilling among
        them, and they are not.
        """
        c, vocabulary = self._c, self._weights.vocabulary
        own = (c.llama_vocab_eos(vocabulary), c.llama_vocab_eot(vocabulary))
        infilling = {
            find(vocabulary)
            for find in (c.llama_vocab_fim_pad, c.llama_vocab_fim_rep, c.llama_vocab_fim_sep)
        }
        counted = [token for token in range(size) if c.llama_vocab_is_eog(vocabulary, token)]
        named = [token for token in counted if token not in infilling]
        ends = tuple(dict.fromkeys(token for token in (*own, *named) if token >= 0))
        if not ends:
            raise LmpplError(findings.no_end_token())
        return ends

    def _find_byte_tokens(self, size: int) -> dict[int, int]:
        """Tokens of single bytes, which write characters that no other does. Raises LmpplError
        where one is missing: llama.cpp would end the process there.
        """
        ask = self._c.llama_vocab_get_text
        numbers = {ask(self._weights.vocabulary, token): token for token in range(size)}
        names = {byte: f"<0x{byte:02X}>".encode() for byte in UTF8}
        if missing := [byte for byte, name in names.items() if name not in numbers]:
            raise LmpplError(findings.no_token_of_a_byte(min(missing)))
        return {byte: numbers[name] for byte, name in names.items()}

    def _bytes(self, token: int) -> bytes:
        """Empty where the file has no text for it."""
        buffer = ctypes.create_string_buffer(LONGEST)
        ask = self._c.llama_token_to_piece
        size = ask(self._weights.vocabulary, token, buffer, LONGEST, 0, True)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = ask(self._weights.vocabulary, token, buffer, -size, 0, True)
        return buffer.raw[:size]

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        """See Tokenizer."""
        if opening and text and self._opens_with_space:
            text = " " + text
        if self._symbol is None:
            return tuple(self._tokens(text, markers))
        first, *others = text.split(SPACE)  # the character itself would be read as a space
        tokens = self._tokens(first, markers)
        for part in others:
            tokens += [*self._symbol, *self._tokens(part, markers)]
        return tuple(tokens)

    def _tokens(self, text: str, markers: bool) -> list[int]:
        content = text.encode()
        room = len(content) + 1
        tokens = (self._c.llama_token * room)()
        arguments = self._weights.vocabulary, content, len(content), tokens, room, False, markers
        count = self._c.llama_tokenize(*arguments)
        assert 0 <= count <= room, "no token is written for less than a byte"
        found = tokens[:count]
        if not markers and b"".join(self.token_bytes[token] for token in found) != content:
            raise LmpplError(findings.no_piece(text))  # llama.cpp leaves out what none writes
        return found

    def begin(self, tokens: Tokens) -> Tokens:
        """See Tokenizer."""
        if self._beginning is not None and tokens[:1] != (self._beginning,):
            return (self._beginning, *tokens)
        return tokens or (self._empty,)
