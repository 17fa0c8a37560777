"""From the items of a context to its parts: texts, names, and turns of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from lmppl import ir
from lmppl.language import ast
from lmppl.language.constants import NamedText, written_out
from lmppl.language.context_checks import is_chat, plain
from lmppl.language.texts import Placeholder, pieces_of
from lmppl.source import Span

Read = Callable[[str], ir.Part]  # what a name stands for
Constants = Mapping[str, NamedText]


def lowered_context(
    items: Sequence[ast.Shown], span: Span, read: Read, constants: Constants
) -> ir.Context:
    """A context. constants: texts that names in it stand for."""
    if not is_chat(items):
        return ir.Context(tuple(_joined(map(plain, items), read, constants)), span)
    return ir.Context(tuple(_turn(item, read, constants) for item in items), span)


def _turn(item: ast.Shown, read: Read, constants: Constants) -> ir.Turn | ir.WorkedRows:
    if isinstance(item, ast.Turn):
        parts = _joined([item.item], read, constants)
        return ir.Turn(item.role.text, tuple(parts), item.span)
    assert isinstance(item, ast.Name)
    return ir.WorkedRows(item.text)


def _joined(items: Iterable[ast.Item], read: Read, constants: Constants) -> Iterator[ir.Part]:
    """Parts of items, with what joins them."""
    for i, item in enumerate(items):
        if i:
            yield ir.Join()
        yield from _parts(written_out(pieces_of(item), constants), read)


def _parts(pieces: Sequence[str | Placeholder], read: Read) -> Iterator[ir.Part]:
    """Texts that stand next to each other are one: they are tokenised together."""
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        if texts:
            yield ir.Literal("".join(texts))
            texts = []
        yield read(piece.name)
    if texts:
        yield ir.Literal("".join(texts))
