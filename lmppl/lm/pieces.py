"""Tokenizers of a list of pieces, whose texts are their bytes one after the other. Brings no torch.

A base for tokenizers of backends, and one that is whole: it takes the longest piece each time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from lmppl.errors import LmpplError
from lmppl.findings import models as findings
from lmppl.lm.protocol import Tokens
from lmppl.storage import of_value

# separates documents in the training of GPT-2, SmolLM2, Qwen and many others
DOCUMENT_START = "<|endoftext|>"


class PieceTokenizer(ABC):
    """A tokenizer whose token i is written token_bytes[i]. What is left to say is how a text is
    split.
    """

    def __init__(self, token_bytes: Sequence[bytes], end: int) -> None:
        """token_bytes: of each of the V tokens, the name of the end token among them. end: which of
        them ends a text.
        """
        self.token_bytes: tuple[bytes, ...] = tuple(token_bytes)
        self.end = end
        self.vocabulary_size = len(self.token_bytes)
        # of the tokens' bytes, and of the way in which texts are split by the class's name
        content = [type(self).__name__, [piece.hex() for piece in self.token_bytes], end]
        self.tokenizer_fingerprint = of_value(content)

    @abstractmethod
    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        """See Tokenizer."""

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.token_bytes[token] for token in tokens).decode("utf-8", "replace")

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """Text of every token by itself; bytes that are no whole character are written <0xE2>."""
        return [_shown(self.token_bytes[token]) for token in tokens]

    def begin(self, tokens: Tokens) -> Tokens:
        return tokens or (self.end,)


def _shown(piece: bytes) -> str:
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in piece)


class LongestPieces(PieceTokenizer):
    """Takes the longest piece that a text goes on with, again and again."""

    def __init__(self, pieces: Sequence[str], end: str = "<end>") -> None:
        """pieces: texts of tokens 0 to n − 1, none of them empty, no two alike, none the end's.
        end: how token n is shown, which ends a text.
        """
        super().__init__([piece.encode() for piece in (*pieces, end)], len(pieces))
        self._numbers = {piece: i for i, piece in enumerate(pieces)}
        self._end_name = end
        self._longest = max(map(len, (*pieces, end)))

    def encode(self, text: str, *, markers: bool, opening: bool = False) -> Tokens:
        """See Tokenizer. Raises LmpplError where no piece goes on."""
        numbers = {**self._numbers, self._end_name: self.end} if markers else self._numbers
        tokens: list[int] = []
        place = 0
        while place < len(text):
            longest = range(min(self._longest, len(text) - place), 0, -1)
            size = next((n for n in longest if text[place : place + n] in numbers), 0)
            if not size:
                raise LmpplError(findings.no_piece(text[place:]))
            tokens.append(numbers[text[place : place + size]])
            place += size
        return tuple(tokens)
