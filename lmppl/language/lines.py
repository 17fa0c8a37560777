"""Cutting a program into statements and comments, before any of them is parsed.

Knows texts, patterns, comments, brackets and line breaks, and nothing else of the language. Linear
in the length of the program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lmppl.errors import Diagnostic
from lmppl.findings import program as findings
from lmppl.source import Source, Span

_TOKEN = re.compile(
    r"""
    (?P<long>"{3}(?:[^"\\]|(?s:\\.)|"(?!""))*+(?P<end>"{3})?)
  | (?P<text>"(?:\\.|[^"\\\n])*(?P<quote>")?)
  | (?P<comment>\#[^\n]*)
  | (?P<pattern>(?<=[(,])[ \t\r\n]*/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n\[])+/)
  | (?P<open>[(\[])
  | (?P<close>[)\]])
  | (?P<break>\n)
""",
    re.VERBOSE,
)
_CLOSING = {"(": ")", "[": "]"}


@dataclass(frozen=True)
class Comment:
    """From `#` to the end of its line."""

    text: str
    span: Span


@dataclass(frozen=True)
class Line:
    """One statement's text, line breaks within brackets included. Its comments lie within its
    span.
    """

    span: Span


@dataclass(frozen=True)
class Layout:
    """A program cut up."""

    lines: tuple[Line, ...]
    comments: tuple[Comment, ...]


def cut(source: Source) -> tuple[Layout, tuple[Diagnostic, ...]]:
    """Statements and comments of a program, and what is wrong with its texts and brackets."""
    return _Cutter(source).run()


class _Cutter:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.lines: list[Line] = []
        self.comments: list[Comment] = []
        self.found: list[Diagnostic] = []
        self.open: list[tuple[str, Span]] = []
        self.start = 0
        self.suspect: int | None = None  # where a text over lines holds what looks like a statement

    def run(self) -> tuple[Layout, tuple[Diagnostic, ...]]:
        text = self.source.text
        for match in _TOKEN.finditer(text):
            span = Span(*match.span())
            if match["long"]:
                self._long(span, finished=bool(match["end"]))
            elif match["text"] and not match["quote"]:
                self.found.append(findings.unterminated_text(self.source, span))
            elif match["comment"]:
                self.comments.append(Comment(match[0].rstrip(), span))
            elif match["open"]:
                self.open.append((match[0], span))
            elif match["close"]:
                self._close(match[0], span)
            elif match["break"] and (not self.open or _STATEMENT.match(text, match.end())):
                self._end(match.start())
        self._end(len(text))
        return Layout(tuple(self.lines), tuple(self.comments)), tuple(self.found)

    def _long(self, span: Span, finished: bool) -> None:
        """A text over several lines. One that is not finished is all that is left."""
        text = self.source.text
        if finished:
            inside = _STATEMENT_WITHIN.search(text, span.start, span.end)
            if self.suspect is None and inside:
                self.suspect = inside.start(1)
            return
        first = Span(span.start, span.start + len(text[span.start :].split("\n", 1)[0]))
        line = self.source.position(self.suspect)[0] if self.suspect is not None else None
        self.found.append(findings.unterminated_long_text(self.source, first, line))

    def _end(self, offset: int) -> None:
        """End a statement here, if there is one."""
        if self.open:
            bracket, span = self.open[0]
            self.found.append(findings.unclosed_bracket(self.source, span, bracket))
            self.open = []
        text = self.source.text
        start, end = self.start, offset
        self.start = offset
        if (
            self.comments and self.comments[-1].span.start >= start
        ):  # a comment at the end is no part of it
            last = self.comments[-1].span
            end = last.start if not text[last.end : end].strip() else end
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if start < end:
            self.lines.append(Line(Span(start, end)))

    def _close(self, bracket: str, span: Span) -> None:
        if self.open and _CLOSING[self.open[-1][0]] == bracket:
            self.open.pop()
        else:
            self.found.append(findings.unopened_bracket(self.source, span, bracket))
            self.open = []


# What surely begins a statement, so that a bracket left open ends with the line before it.
_STATEMENT = re.compile(
    r"(?:lm|param|examples|statistic|text)[ \t]+\w+[ \t]*="
    r"|(?:given|use|predict|infer|constrain|factor|observe|guide|learn)[ \t]+[^\W\d]"
    r"|\w+[ \t]*~"
)

# What hardly begins a line of a text: a statement that defines something, or draws.
_STATEMENT_WITHIN = re.compile(
    r"^((?:lm|param|examples|statistic|text)[ \t]+\w+[ \t]*=|\w+[ \t]*~[ \t]*\w+\()", re.M
)
