"""Long programs and long texts: what is done about them grows as they do, and no faster."""

import sys
import time

import pytest

from lmppl.compile import analyse
from lmppl.source import Source

LM = 'lm LM = "smollm2-135m"\n'
LATENTS = {"a text": 'Z{i} ~ LM("a{{X}}") max 3 tokens\n', "a choice": 'Z{i} ~ LM("a{{X}}") in [" a", " b"]\n'}


def found(text):
    return analyse(Source("p.lm", LM + text), ".").findings


def calls(text):
    """Calls of functions, Python's and C's, that it takes to analyse a program."""
    count = 0

    def counted(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        found(text)
    finally:
        sys.setprofile(None)
    return count


def statements(kind, other, count):
    """Latents, and as many statements about them."""
    return "given X\n" + "".join(one.format(i=i) for one in (LATENTS[kind], other) for i in range(count))


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("a text", 'constrain contains(Z{i}, "b")\n'),
        pytest.param("a choice", 'constrain Z{i} == " b"\n', marks=pytest.mark.slow),
        ("a text", 'observe "b" | Z{i}\n'),
        ("a text", 'Y{i} ~ LM("{{W{i}}}") max 3 tokens\n'),
        pytest.param("a text", "statistic n{i} = words(Z{i})\n", marks=pytest.mark.slow),
    ],
)
def test_twice_the_statements_are_twice_the_work(kind, other):
    found(statements(kind, other, 1))  # what is read once is read now
    some = 250 if kind == "a choice" else 60
    once, twice = (calls(statements(kind, other, count)) for count in (some, 2 * some))
    assert twice < 2.1 * once


def test_what_is_near_an_unknown_name_is_looked_for_as_often_as_it_is_shown():
    unknown = found(statements("a text", "constrain contain{i}s(Z{i})\n", 30))
    help = [finding.help for finding in unknown if finding.code == "unknown-function"]
    assert help == ["did you mean `contains`?"] * 10 + [None] * 20


LITERALS = {
    "plain": "a", "braces": "{{", "closing braces": "}}", "escapes": "\\n", "quotes": '\\"', "characters": "\\u00e9",
    "braces as escapes": "\\u007b\\u007b", "more than a plane": "\\ud83d\\ude00",
}  # fmt: skip


@pytest.mark.parametrize("piece", LITERALS.values(), ids=LITERALS)
def test_a_text_is_no_object_for_each_of_its_characters(piece):
    """A few calls of C for an escape, none for another character."""
    text = 'Z ~ LM("{}") max 3 tokens\n'
    found(text.format(piece))
    escapes = piece.count("\\u") or piece.count("\\")
    assert calls(text.format(piece * 2000)) - calls(text.format(piece)) < 2000 * 25 * escapes + 300


def test_a_text_means_what_its_pieces_mean():
    pieces = [("a", "a"), ("{{", "{"), ("}}", "}"), ("\\n", "\n"), ("\\u007b\\u007b", "{"), ("\\\\u007b", "\\u007b")]
    pieces += [("{\\u007b", "{"), ("\\ud83d\\ude00", "😀"), ('\\"', '"'), ("\\\\", "\\")]
    for first, meant in pieces:
        for second, also in pieces:
            program = analyse(Source("p.lm", f'{LM}Z ~ LM("{first}{second}") max 3 tokens\n'), ".").program
            assert [part.text for part in program.latents[0].terms[0].context.parts] == [meant + also]


def test_a_placeholder_is_a_few_calls():
    text = 'given X\nZ ~ LM("{}") max 3 tokens\n'
    found(text.format("{X}"))
    assert calls(text.format("{X}" * 2000)) - calls(text.format("{X}")) < 2000 * 24


@pytest.mark.slow
@pytest.mark.parametrize("piece", [*LITERALS.values(), "{X}"], ids=[*LITERALS, "placeholders"])
def test_a_text_of_a_megabyte(piece):
    """Two seconds on a machine that does nothing else, most well under one."""
    text = f'given X\nZ ~ LM("{{X}}{piece * (10**6 // len(piece))}") max 3 tokens\n'
    started = time.process_time()
    assert not found(text)
    assert time.process_time() - started < 4


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["given X{i}\n", 'constrain contains(Z0, "{i}")\n', LATENTS["a text"]])
def test_five_thousand_statements(statement):
    """One second on a machine that does nothing else."""
    text = statements("a text", "", 1) + "".join(statement.format(i=i) for i in range(1, 5_001))
    started = time.process_time()
    found(text)
    assert time.process_time() - started < 5
