"""Conversations as contexts: a model's own template writes the turns around what is shown in them.

The template is rendered once, with a word of its own in place of every value, and what it writes is
cut at these words: so no value is read as part of a template, and a latent keeps its tokens. A
template that changes what a turn says is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, pairwise
from typing import NamedTuple

from lmppl import ir
from lmppl.errors import Diagnostic, LmpplError
from lmppl.findings import chat as findings
from lmppl.lm import DATE, ChatTemplate, LanguageModel, TemplateProblem, turn_end

ASSISTANT = "assistant"
PAD = "\t"  # white space that is put around values, to see whether it stays


class Rendered(NamedTuple):
    """A context as a template writes it, with warnings. trimmed: of each value in it, whether the
    template would take away white space at its beginning, and at its end.
    """

    context: ir.Context
    warnings: Sequence[Diagnostic] = ()
    trimmed: Sequence[tuple[bool, bool]] = ()


def rendered_context(
    context: ir.Context, model: LanguageModel, examples: Mapping[str, ir.Examples]
) -> Rendered:
    """A context with what the model's template writes in its parts, and what is shown in between;
    and warnings.

    examples: worked rows, by name. A space that the template puts before a given is a part of that
    given's text; before a latent that an assistant says it is left out, since the latent's own
    first token has it.
    Raises LmpplError where the model has no template, or one that does not keep what it is given.
    """
    if not context.turns:
        return Rendered(context)
    if model.chat is None:
        raise LmpplError(findings.no_template(model.name))
    turns = list(_turns(context.turns, examples))
    mark = _mark(turns)
    contents = _contents(turns, mark)
    padded = [re.sub(mark + r"\d{5}", PAD + r"\g<0>" + PAD, content) for content in contents]
    rendered, around = (
        _rendered(model.chat, model.name, turns, said, mark) for said in (contents, padded)
    )
    warnings = [*_of_model(model, model.chat), *_kept(model.name, turns, contents, rendered)]
    cut = re.split(mark + r"(\d{5})", rendered)
    _require_once(model.name, turns, cut[1::2])
    parts = tuple(_parts(turns, cut))
    trimmed = _trimmed(re.split(mark + r"\d{5}", around))
    return Rendered(ir.Context(parts, context.span, templated=True), warnings, trimmed)


def _trimmed(around: Sequence[str]) -> Sequence[tuple[bool, bool]]:
    """Of each value, whether white space in front of it is gone, and behind it. around: what is
    written around values.
    """
    return [
        (not before.endswith(PAD), not after.startswith(PAD)) for before, after in pairwise(around)
    ]


def _of_model(model: LanguageModel, template: ChatTemplate) -> Iterator[Diagnostic]:
    if template.dated:
        yield findings.dated(model.name, DATE if DATE in template.reads else None)
    if turn_end(model) is None:
        yield findings.no_turn_end(model.name)


def _turns(
    turns: Sequence[ir.Turn | ir.WorkedRows], examples: Mapping[str, ir.Examples]
) -> Iterator[ir.Turn]:
    """Turns, with those of worked rows in their places."""
    for turn in turns:
        if isinstance(turn, ir.Turn):
            yield turn
            continue
        worked = examples[turn.name]
        for row in range(worked.count):
            for one in worked.turns:
                parts = tuple(_of_row(worked.name, row, part) for part in one.parts)
                yield ir.Turn(one.role, parts, one.span)


def _of_row(examples: str, row: int, part: ir.Part) -> ir.Part:
    return ir.WorkedValue(examples, row, part.name) if isinstance(part, ir.Given) else part


def _mark(turns: Sequence[ir.Turn]) -> str:
    """What the words that stand for values begin with: letters that no literal has."""
    parts = (part for turn in turns for part in turn.parts)
    said = "".join(part.text for part in parts if isinstance(part, ir.Literal))
    marks = (f"Value{n}of" for n in count())
    return next(mark for mark in marks if mark not in said)


def _contents(turns: Sequence[ir.Turn], mark: str) -> list[str]:
    """What each turn says, with a word in place of every value: the mark, and its number."""
    numbers = count()

    def word(part: ir.Part) -> str:
        return part.text if isinstance(part, ir.Literal) else f"{mark}{next(numbers):05}"

    return ["".join(map(word, turn.parts)) for turn in turns]


def _rendered(
    template: ChatTemplate, name: str, turns: Sequence[ir.Turn], contents: Sequence[str], mark: str
) -> str:
    """What the template writes, up to where the model goes on: its own turn is begun, or its last
    one is not ended.
    """
    opened = turns[-1].role != ASSISTANT
    end = "" if opened else f"{mark}End"
    said = [*contents[:-1], contents[-1] + end]
    messages = [(turn.role, content) for turn, content in zip(turns, said, strict=True)]
    try:
        rendered = template.render(messages, opened=opened)
    except TemplateProblem as problem:
        refused = findings.template_refuses(name, problem.problem, problem.line, template.file)
        raise LmpplError(refused) from None
    return rendered if opened else rendered.rpartition(end)[0]


def _kept(
    name: str, turns: Sequence[ir.Turn], contents: Sequence[str], rendered: str
) -> Iterator[Diagnostic]:
    """Warnings of turns that lose white space at their ends. Raises LmpplError where a turn is not
    written as it is.
    """
    place = 0
    for turn, content in zip(turns, contents, strict=True):
        found = rendered.find(content, place)
        if found < 0 and (found := rendered.find(content.strip(), place)) >= 0:
            yield findings.template_trims(name, turn.role, _said(turn))
            content = content.strip()
        if found < 0:
            raise LmpplError(findings.template_alters(name, turn.role, _said(turn)))
        place = found + len(content)


def _require_once(name: str, turns: Sequence[ir.Turn], written: Sequence[str]) -> None:
    """Raise LmpplError where a value is written more than once. written: numbers of values."""
    following = count()
    for turn in turns:
        values = [part for part in turn.parts if not isinstance(part, ir.Literal)]
        numbers = [f"{next(following):05}" for _ in values]
        if any(written.count(number) != 1 for number in numbers):
            raise LmpplError(findings.template_alters(name, turn.role, _said(turn)))


def _said(turn: ir.Turn) -> str:
    """What a turn says, as a program has it."""
    return "".join(map(_written, turn.parts))


def _written(part: ir.Part) -> str:
    if isinstance(part, ir.Named | ir.WorkedValue):
        return f"{{{part.name}}}"
    return part.text if isinstance(part, ir.Literal) else ""


def _parts(turns: Sequence[ir.Turn], cut: Sequence[str]) -> Iterator[ir.Part]:
    """Literals and values in turn. cut: the literal before each value, the value's number, and so
    on; a literal is last.
    """
    parts = [(part, turn) for turn in turns for part in turn.parts]
    values = [(part, turn) for part, turn in parts if not isinstance(part, ir.Literal)]
    for literal, number in zip(cut[:-1:2], cut[1::2], strict=True):
        part, turn = values[int(number)]
        spaced = part is turn.parts[0] and literal.endswith(" ")
        if spaced and isinstance(part, ir.Given | ir.WorkedValue):
            yield from _literal(literal[:-1])
            yield ir.Spaced(part)
        else:
            dropped = spaced and turn.role == ASSISTANT and isinstance(part, ir.LatentText)
            yield from _literal(literal[:-1] if dropped else literal)
            yield part
    yield from _literal(cut[-1])


def _literal(text: str) -> Iterator[ir.Literal]:
    if text:
        yield ir.Literal(text, template=True)
