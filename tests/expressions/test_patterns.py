"""The dialect of `matches`: read in one way by check, by the density and by the masks, whoever decides it."""

import random
import time

import pytest
import regex
import tiny

import lmppl
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.masks import Masks
from lmppl.errors import LmpplError
from lmppl.expressions.constraint_language import Reading, necessary
from lmppl.expressions.patterns import PatternError, read_pattern, searched, tokens_of
from lmppl.ir import Apply, Pattern, Read
from lmppl.report.explain import explain_ir
from lmppl.run import Request, run
from lmppl.source import Source, Span

ATOMS = [
    "a", "b", "A", "é", "k", "1", ".", "[ab]", "[^a]", r"[\w.]", r"[a-c\d]", r"[^\s]", r"\d", r"\w", r"\W", r"\s",
    r"\S", r"\D", r"\.", r"\-", "_", "-", "&", "~", "/", "#", " ", "{", "}", "]", "[]a]", r"[\]a]", r"[a\-c]", "[&~]",
    r"\x41", r"\u00e9", r"\p{Lu}", r"\p{L}", r"\P{L}", r"\n", r"\t", r"(?i:a)", r"(?i:[^k])", r"(?s:.)", "(?#note)",
    "ß", "[ -~]",
]  # fmt: skip
REPEATS = ["*", "+", "?", "{2}", "{,2}", "{1,}", "{0,1}", "*?", "+?", "??", "{1,2}?"]
CHARACTERS = 'aabbAkK1é_É.-&~/# {}]\n\t\rßſ\u212a\u0301\x1c\u2028\u0660\u00a0😀"A'


def pattern(rng, depth):
    kind = rng.random()
    if depth == 0 or kind < 0.3:
        return rng.choice(ATOMS)
    if kind < 0.55:
        return pattern(rng, depth - 1) + pattern(rng, depth - 1)
    if kind < 0.7:
        return f"({pattern(rng, depth - 1)}|{pattern(rng, depth - 1)})"
    if kind < 0.8:
        return f"(?:{pattern(rng, depth - 1)}|)"
    if kind < 0.85:
        return f"(?P<n{rng.randrange(10**6)}>{pattern(rng, depth - 1)})"
    return f"(?:{pattern(rng, depth - 1)}){rng.choice(REPEATS)}"


def whole(rng):
    middle = pattern(rng, 4)
    begin, end = rng.choice(["", "", "^", r"\A", "(?i)", "(?s)"]), rng.choice(["", "", "$", r"\Z", r"\z"])
    return f"{begin}(?:{middle}){end}" if rng.random() < 0.5 else begin + middle + end if "|" not in middle else middle


@pytest.mark.parametrize("seed", range(6))
def test_the_automaton_and_a_search_agree(seed):
    """Every pattern of the dialect means the same to both who decide: no text tells them apart."""
    rng = random.Random(seed)
    told = 0
    for _ in range(25):
        written = whole(rng)
        read = read_pattern(written)
        assert read.terminal is not None, written
        search = regex.compile(searched(tokens_of(written)), regex.V0)
        texts = ["".join(rng.choices(CHARACTERS, k=rng.randrange(5))) for _ in range(40)]
        for text in ["", "a", "ab", "aa", "a\n", *texts]:
            expected = search.fullmatch(text) is not None
            told += expected
            assert read.matches(text) is expected, (written, text)
    assert told > 50


@pytest.mark.parametrize(
    ("written", "yes", "no"),
    [
        (r" ([a-z]) \1", [" a a"], [" a b", "a a"]),
        (r".*\bcats?\b.*", ["cats", "a cat."], ["catsup", "scat"]),
        (r"\<a.*d\>", ["abcd"], ["abcde ", " abcd"]),
        (r"(?=a)\w+(?<!b)", ["ac"], ["ab", "ba"]),
        (r"a++b", ["aab"], ["aa"]),
        (r"a*+a", [], ["a", "aa"]),
        (r"(?>a|ab)c", ["ac"], ["abc"]),
        (r"(?m)a$\n^b", ["a\nb"], ["ab"]),
        (r"a$\n?", ["a"], ["a\n"]),
        (r"(?P<x>.)(?P=x)", ["aa"], ["ab"]),
    ],
)
def test_what_has_no_automaton_issearched_for(written, yes, no):
    read = read_pattern(written)
    assert read.terminal is None
    assert read.why.endswith("has no automaton")
    assert [text for text in (*yes, *no) if read.matches(text)] == yes


@pytest.mark.parametrize(
    ("written", "yes", "no"),
    [
        (r"a{,3}", ["", "aaa"], ["aaaa"]),
        (r"a\Z", ["a"], ["a\n"]),
        (r"a$", ["a"], ["a\n"]),
        (r"[[:alpha:]]", ["a"], ["é"]),
        (r"\w", ["é", "_", "\u0301"], ["-"]),
        (r"\d", ["1", "\u0660"], ["a"]),
        (r"\s", ["\u00a0", "\n"], ["\x1c", "a"]),
        (r".", ["\r", "\u2028"], ["\n", "ab"]),
        (r"(?i)straße", ["STRAßE"], ["STRASSE"]),
        (r"[a-d&&[^b]]", ["a"], ["b"]),
        (r'{"a": \d{1,2}}', ['{"a": 12}'], ['{"a": 123}']),
        (r"a(?#why)b", ["ab"], ["a"]),
        (r"(a{1000}){1000}", [], ["a"]),
    ],
)
def test_what_an_automaton_decides(written, yes, no):
    read = read_pattern(written)
    assert read.terminal is not None
    assert not read.why
    assert [text for text in (*yes, *no) if read.matches(text)] == yes


@pytest.mark.parametrize(
    ("written", "place"),
    [
        (r"a\h", 1), ("[a-z", 0), ("a/(", 2), ("a{2,1}", 1), (r"\0", 0), ("(?z)a", 2), (r"\b[a&&b]", 2), (r"(a)\2", 4),
        (r"(?=a\h)", 4), ("\\b" + "(" * 3000 + "a" + ")" * 3000, 251), ("(?=(a{1000}){1000})", 0), (r"a{,3}(?<=\h)", 9),
        ("(" * 120 + "a" + ")" * 120 + r"\b", 0), (r"(?x)\b", 0), ("\ud800", 0), ("a\\", 1),
    ],
)  # fmt: skip
def test_what_is_no_pattern(written, place):
    with pytest.raises(PatternError) as caught:
        read_pattern(written)
    assert caught.value.place == place


def test_reading_takes_little_time_and_memory():
    started = time.process_time()
    for written in ("((((a{1000}){1000}){1000}){1000}){1000}", "a" * 20_000, "(a|" * 100 + "b" + ")" * 100):
        read_pattern(written)
    assert time.process_time() - started < 5


def test_an_automaton_that_grows_too_large_is_an_error_every_time(monkeypatch):
    text = "".join(random.Random(0).choices("ab", k=1000))
    assert read_pattern("(.*a){200}b*").matches(text)  # in small steps
    assert not read_pattern(".*a.{500}b").matches(text + "a" * 501)
    monkeypatch.setattr("lmppl.expressions.grammars.FEW_UNITS", len(text))
    for _ in range(2):
        with pytest.raises(ValueError, match="too many"):
            read_pattern("(.*a){1000}").matches(text)
        assert read_pattern("(.*a){2}b?").matches("aab")


NOWHERE = Span(0, 0)
HEAD = 'lm LM = "x"\nZ ~ LM(" a") max 2 tokens\n'


def drawn(text, engine="importance", words=tiny.WORDS, folder=".", samples=20):
    program = analyse(Source("p.lm", HEAD + text), folder).program
    assert program is not None
    request = Request(engine, {"chains": 1, "num_samples": samples} if engine != "exact" else {})
    return run(program, [Row({}, {})], {"LM": tiny.model(words)}, request).rows[0]


def unguided(row):
    return [warning for warning in row.warnings if "nothing guides" in warning]


def test_a_run_says_what_nothing_guides(tmp_path):
    (tmp_path / "f.py").write_text("def f(text):\n    return len(text) > 1\n")
    row = drawn(
        'use f from "f.py"\nconstrain f(Z) and not contains(Z, ".")\nconstrain matches(Z, /.*\\ba\\b.*/)\n'
        "constrain words(Z) <= 2 and matches(Z, /.*a.*/)\nconstrain chars(Z) > 1",
        folder=tmp_path,
    )
    assert unguided(row) == [
        "nothing guides the draws to what line 4 asks for: `f` is a Python function",
        "nothing guides the draws to what line 5 asks for: a word border has no automaton",
        "nothing guides the draws to what line 7 asks for: no automaton follows it",
    ]


def test_constraints_that_guide_are_not_named():
    assert (
        unguided(drawn('constrain matches(Z, /.*a{,3}\\Z/) and contains(lower(Z), "a")\nconstrain words(Z) <= 5')) == []
    )


def test_a_constraint_on_two_texts_is_said_and_one_on_a_choice_is_not():
    text = 'W ~ LM(" b") max 2 tokens\nC ~ LM(" a") in [" a", " b"]\nconstrain chars(Z) <= chars(W)\n'
    row = drawn(text + 'constrain C == " a"')
    assert unguided(row) == ["nothing guides the draws to what line 5 asks for: it reads `W` and `Z` together"]


def test_masks_of_an_automaton_that_grows_too_large_say_so():
    pattern = Pattern("(.*a){1000}", NOWHERE)
    condition = necessary([Apply("matches", (Read("Z", NOWHERE), pattern), NOWHERE)], Reading("Z"))
    tokens = random.Random(0).choices([0, 1], k=3000)
    for _ in range(2):
        row = Masks(condition, tiny.model(("a", "b")), 4000).start([()])
        with pytest.raises(LmpplError, match="too large"):
            row.feed(0, tokens)


def test_an_exact_law_needs_no_guide():
    text = "constrain matches(Z, /.*\\ba\\b.*/)"
    assert unguided(drawn(text, "exact")) == []
    assert unguided(drawn(text)) != []


def test_draws_that_find_nothing_say_that_nothing_guided_them():
    with pytest.raises(LmpplError) as caught:
        drawn("constrain matches(Z, /.*\\bzebra\\b.*/)")
    assert [finding.code for finding in caught.value.diagnostics] == ["no-support", "unguided"]


def test_explain_says_what_guides_no_text(tmp_path):
    (tmp_path / "f.py").write_text("def f(text):\n    return True\n")
    text = HEAD + 'given X, N\nuse f from "f.py"\nconstrain f(Z)\nconstrain count(Z, X) > 0 and words(Z) <= N\n'
    program = analyse(Source("p.lm", text + 'constrain contains(Z, X)\nconstrain X == "a"'), tmp_path).program
    shown = explain_ir(program)
    assert shown.count("asked of whole texts only") == 1
    assert "(0 if f(Z) else -inf)\n      (asked of whole texts only: `f` is a Python function)" in shown


def test_until_with_the_end_token_is_an_error():
    program = lmppl.compile(f'lm LM = "x"\nZ ~ LM(" a") until "{tiny.END}" max 3 tokens').program
    with pytest.raises(LmpplError) as caught:
        run(program, [Row({}, {})], {"LM": tiny.model()}, Request("importance"))
    assert [finding.code for finding in caught.value.diagnostics] == ["until-end-token"]
    assert "leave `until` out" in caught.value.diagnostics[0].help
