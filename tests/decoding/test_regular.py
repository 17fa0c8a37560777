"""Tables of terminals: the same language as llguidance's, and under them a mask that knows how many tokens are left."""

import functools
import itertools
import random

import numpy as np
import pytest
import tiny
from test_patterns import CHARACTERS, pattern

from lmppl import compile as compile_program
from lmppl.data.rows import Row
from lmppl.decoding import automata as regular
from lmppl.decoding.automata import automaton
from lmppl.decoding.masks import Masks, _matcher, _Stepped, _Tabled
from lmppl.errors import LmpplError
from lmppl.expressions.constraint_language import Atom, Reading, necessary
from lmppl.expressions.grammars import accepts
from lmppl.expressions.patterns import PatternError, read_pattern
from lmppl.ir import Constraint
from lmppl.run import Request, run

WORDS = ("a", "b", "ab", "ba.", ".", "é", " a")
CONSTRAINTS = [
    r"matches(Z, /(ab?){2,3}\./)",
    r"matches(Z, /[^a]*(ab|b)+/) and not contains(Z, \".\")".replace("\\", ""),
    'ends_with(Z, "b.") or starts_with(Z, "é")',
    'count(Z, "ab") == 2',
    'words(Z) >= 1 and lines(Z) <= 1 and contains(lower(Z), "ab")',
    'Z != "ab" and matches(Z, /(ab)*/)',
]


def condition(constraint, until=None):
    program = compile_program(f'lm LM = "x"\nZ ~ LM("a") max 4 tokens\nconstrain {constraint}\n').program
    (factor,) = [factor for factor in program.factors if isinstance(factor, Constraint)]
    return necessary([factor.expression], Reading("Z"), until)


@pytest.mark.slow
def test_a_table_has_the_language_of_its_terminal():
    """Patterns by chance, and texts by chance that are made of the pieces of patterns."""
    rng = random.Random(0)
    tabled = texts = 0
    for _ in range(40):
        try:
            terminal = read_pattern(pattern(rng, 3)).terminal
        except PatternError:
            continue
        grammar = f"start: T\nT: {terminal}\n"
        if terminal is None or (table := automaton(grammar)) is None:
            continue
        tabled += 1
        for _ in range(20):
            text = "".join(rng.choices(CHARACTERS, k=rng.randrange(5)))
            texts += (right := accepts(grammar, text))
            assert table.accepts(text.encode()) == right, (terminal, text)
    assert tabled > 10
    assert texts > 30


@pytest.mark.parametrize("piece", [".", r"\d", r"\w", "[^é]", r"\P{L}"])
def test_one_character_is_what_llguidance_says(piece, monkeypatch):
    """Along the edges of planes and of lengths in bytes, and at characters that classes are about."""
    edges = [0, 9, 10, 0x41, 0x7F, 0x80, 0xE9, 0x660, 0x7FF, 0x800, 0x2028, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]
    grammar = f"start: T\nT: /{piece}/\n"
    monkeypatch.setattr(regular, "MOST_STEPS", 100_000)
    table = automaton.__wrapped__(grammar)
    for code in edges:
        assert table.accepts(chr(code).encode()) == accepts(grammar, chr(code)), hex(code)
    assert not any(table.accepts(bad) for bad in (b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xc3"))


def test_what_is_not_read_has_no_table():
    assert automaton("start: T\nT: /(?i:a)b/\n") is None
    assert automaton("start: T\nT: /[a-c]{500}/\n") is None
    assert automaton('start: "a" b\nb: "b"\n') is None


@pytest.mark.parametrize("maximum", [1, 2, 4])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_a_token_is_allowed_where_an_end_is_in_reach(constraint, maximum):
    """Against brute force over all texts of so many tokens."""
    model, demanded = tiny.model(WORDS), condition(constraint)
    masks = Masks(demanded, model, maximum)
    assert isinstance(demanded, Atom)
    assert all(isinstance(follower, _Tabled) for follower in masks._start)
    tokens = range(len(WORDS))

    @functools.cache
    def inside(text):
        return accepts(demanded.grammar, "".join(WORDS[token] for token in text))

    every = [text for n in range(maximum + 1) for text in itertools.product(tokens, repeat=n)]
    beginnings = {text[:n] for text in every if inside(text) for n in range(len(text) + 1)}
    for text in (text for text in every if len(text) < maximum):
        allowed = masks.start([text]).allowed()[0].numpy()
        right = [(*text, token) in beginnings for token in tokens]
        assert allowed[: len(WORDS)].tolist() == right, text
        assert allowed[model.end] == inside(text)


def test_a_table_and_a_matcher_leave_open_the_same_where_there_is_room():
    model = tiny.model(WORDS)
    for constraint in CONSTRAINTS:
        demanded = condition(constraint)
        tabled = Masks(demanded, model, 1000)
        stepped = Masks(demanded, model, 1000)
        stepped._start = [_Stepped(tabled._vocabulary, _matcher(tabled._vocabulary, demanded.grammar))]
        for text in itertools.product(range(len(WORDS)), repeat=2):
            pair = [masks.start([text]).allowed().numpy() for masks in (tabled, stepped)]
            assert np.array_equal(*pair), (constraint, text)


def drawn(constraint, engine, maximum=3, **options):
    program = compile_program(f'lm LM = "x"\nZ ~ LM("a") max {maximum} tokens\nconstrain {constraint}\n').program
    return run(program, [Row({}, {})], {"LM": tiny.model(WORDS)}, Request(engine, options)).rows[0]


def test_no_draw_is_lost_for_want_of_tokens():
    """Every text of three tokens is allowed somewhere; with no look ahead, most draws would end unfinished."""
    constraint = "matches(Z, /(ab){1,2}\\./)"
    right = drawn(constraint, "exact").log_evidence
    row = drawn(constraint, "importance", chains=1, num_samples=200)
    assert row.diagnostics.impossible_draws == 0
    assert abs(row.log_evidence - right) < 4 * (row.log_evidence_se or 0)


def test_too_few_tokens_for_any_text_are_said():
    with pytest.raises(LmpplError) as caught:
        drawn("matches(Z, /(ab){2}\\./)", "importance", maximum=2)
    assert [finding.code for finding in caught.value.diagnostics] == ["unsatisfiable-constraint"]
    assert "`max`" in caught.value.diagnostics[0].help


@pytest.mark.parametrize("constraint", ['contains(Z, "\ufffd")', 'Z == "\ufffd"', 'count(Z, "\ufffd") == 1'])
def test_no_mask_forbids_what_broken_bytes_are_read_as(constraint):
    """They decode to U+FFFD, which the density looks for in the text; no automaton over bytes knows all of them."""
    assert condition(constraint) is None
    both = condition(f'{constraint} and contains(Z, "a")')
    assert both == condition('contains(Z, "a")')
    assert condition('contains(Z, "a")', until="\ufffd") == condition('contains(Z, "a")')
