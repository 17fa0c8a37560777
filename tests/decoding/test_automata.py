"""Which texts the automata of files accept, and that the masks over tokens leave open just those."""

import itertools
import json

import pytest
from tiny import model

from lmppl.decoding.masks import Masks
from lmppl.expressions.constraint_language import Atom
from lmppl.expressions.grammars import MOST_RULES, GrammarError, accepts, file_grammar, grammar_problem

SUM = 'start: NUMBER ("+" NUMBER)*\n%import common.NUMBER\n%import common.WS_INLINE\n%ignore WS_INLINE\n'
PERSON = {
    "type": "object", "properties": {"é": {"type": "integer"}, "b": {"type": "string"}}, "required": ["é"],
    "additionalProperties": False,
}  # fmt: skip


def grammar(kind, text, folder):
    path = folder / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file_grammar(kind, str(path))


def accepted(kind, text, texts, folder):
    found = grammar(kind, text, folder)
    assert grammar_problem(found) is None
    return [text for text in texts if accepts(found, text)]


def test_ignored_texts_may_come_first(tmp_path):
    texts = [" 10 + 2", "10 + 2", "10 + 2 ", "\t10+2", "1 0", " ", "+ 1"]
    assert accepted("in_grammar", SUM, texts, tmp_path) == texts[:4]


def test_a_grammar_that_ignores_nothing_begins_at_once(tmp_path):
    assert accepted("in_grammar", 'start: "a"', ["a", " a", "a "], tmp_path) == ["a"]


def test_the_longest_terminal_is_taken(tmp_path):
    texts = ["a" * n for n in range(8)]
    assert accepted("in_grammar", 'start: x x x\nx: "a" | "aa"', texts, tmp_path) == texts[5:7]
    one = 'start: T\nT: ("a" | "aa") ("a" | "aa") ("a" | "aa")'
    assert accepted("in_grammar", one, texts, tmp_path) == texts[3:7]
    assert accepted("in_grammar", 'start: /[0-9]+/ "0"', ["10", "0", "100"], tmp_path) == []


def test_json_may_have_white_space_around_it(tmp_path):
    texts = ["1", " 1", "1 ", "\n\t1\r\n", " 1 2", "", " ", "\xa01", "1\x0b"]
    assert accepted("is_json", '{"type": "integer"}', texts, tmp_path) == texts[:4]
    texts = ['{"é":1}', ' {"é":1}', '{ "é" : 1 }\n', '{"é": 1, "b": "x"}  ', '{"b": "x", "é": 1}']
    assert accepted("is_json", json.dumps(PERSON), texts, tmp_path) == texts[:4]


@pytest.mark.parametrize("value", ["é", "a/b", "", '\n\t"\\', "😀", "\x01\x7f", "ä" * 20, "\u2028\ufeff"])
def test_texts_meet_a_schema_however_json_dumps_writes_them(value, tmp_path):
    for schema in ({"type": "string"}, {"type": "string", "maxLength": 20}, {}):
        written = [json.dumps(value), json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")]
        assert accepted("is_json", json.dumps(schema), written, tmp_path) == written


def test_what_the_page_says_no_automaton_has(tmp_path):
    """The escape of a slash, and escapes in what the schema itself spells."""
    texts = ['"\\/"', '"/"']
    assert accepted("is_json", '{"type": "string"}', texts, tmp_path) == texts[1:]
    texts = [json.dumps("é"), json.dumps("é", ensure_ascii=False)]
    for schema in ({"enum": ["é"]}, {"const": "é"}, {"type": "string", "pattern": "^[a-zé]$"}):
        assert accepted("is_json", json.dumps(schema), texts, tmp_path) == texts[1:]
    texts = ['{"\\u00e9": 1}', '{"é": 1}']
    assert accepted("is_json", json.dumps(PERSON), texts, tmp_path) == texts[1:]
    assert accepted("is_json", '{"type": "integer"}', ["1", "1.0"], tmp_path) == ["1"]


def test_formats_that_nobody_knows_are_annotations(tmp_path):
    texts = ['"a"', '"2020-01-01"', "1"]
    assert accepted("is_json", '{"type": "string", "format": "phone"}', texts, tmp_path) == texts[:2]
    assert accepted("is_json", '{"type": "string", "format": "date"}', texts, tmp_path) == texts[1:2]
    named = '{"type": "object", "properties": {"format": {"const": {"format": "phone"}}}, "required": ["format"]}'
    texts = ['{"format": {"format": "phone"}}', '{"format": {}}', "{}"]
    assert accepted("is_json", named, texts, tmp_path) == texts[:1]


def test_a_schema_keeps_its_own_options(tmp_path):
    compact = '{"type": "array", "x-guidance": {"whitespace_flexible": false}}'
    assert accepted("is_json", compact, ["[1,2]", '["\\u00e9"]', "[1, 2]"], tmp_path) == ["[1,2]", '["\\u00e9"]']
    assert accepted("is_json", "true", ["1", '"\\u00e9"', "x"], tmp_path) == ["1", '"\\u00e9"']


@pytest.mark.parametrize("kind", ["in_grammar", "is_json"])
def test_a_byte_order_mark_is_no_part_of_a_file(kind, tmp_path):
    text = 'start: "1"' if kind == "in_grammar" else '{"type": "integer"}'
    assert accepted(kind, b"\xef\xbb\xbf" + text.encode(), ["1", "x"], tmp_path) == ["1"]


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("in_grammar", b"\xff", "not UTF-8"),
        ("is_json", b"\xff", "not UTF-8"),
        ("is_json", b"[" * 100_000, "nested too deeply"),
        ("is_json", b"9" * 5000, "no JSON"),
        ("in_grammar", b"start: r0\n" + b"".join(b"r%d: r%d\n" % (i, i + 1) for i in range(20_000)), str(MOST_RULES)),
    ],
)
def test_files_that_would_break_something_are_refused(kind, text, reason, tmp_path):
    with pytest.raises(GrammarError, match=reason):
        grammar(kind, text, tmp_path)


def test_the_most_rules_are_few_enough(tmp_path):
    chain = "start: r0\n" + "".join(f"r{i}: r{i + 1}\n" for i in range(MOST_RULES - 2)) + f'r{MOST_RULES - 2}: "a"\n'
    assert accepted("in_grammar", chain, ["a", "b"], tmp_path) == ["a"]


def test_half_a_surrogate_pair_is_in_no_language(tmp_path):
    assert accepted("is_json", "{}", ['"\ud800"', '"a"'], tmp_path) == ['"a"']


JSON_WORDS = ('{"', "a", '":', " 1", "1", "}", "}\n", " ", '\\u00e9"', '"', ' "')
SUM_WORDS = (" ", "1", " 1", "+", " +", "1 ", "10")


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("is_json", '{"type": "integer"}', (" ", "1", " 1", "1\n", "10", "-")),
        pytest.param("is_json", '{"type": ["string", "number"]}', JSON_WORDS, marks=pytest.mark.slow),
        pytest.param(
            "is_json", '{"type": "object", "properties": {"a": {"type": "integer"}}}', JSON_WORDS,
            marks=pytest.mark.slow,
        ),
        ("in_grammar", SUM, SUM_WORDS),
    ],
)  # fmt: skip
def test_masks_leave_open_what_is_accepted(kind, text, words, tmp_path):
    """Every sequence of up to four tokens, by brute force and along the masks."""
    found, tiny = grammar(kind, text, tmp_path), model(words)
    masks = Masks(Atom(found), tiny, 5)
    tokens = range(len(words))

    def walk(kept):
        allowed = masks.along((*kept, 0))[-1].tolist() if len(kept) < 5 else []
        if allowed and allowed[tiny.end]:
            yield kept
        for token in tokens if len(kept) < 4 else []:
            if allowed[token]:
                yield from walk((*kept, token))

    every = [sequence for length in range(5) for sequence in itertools.product(tokens, repeat=length)]
    right = {sequence for sequence in every if accepts(found, "".join(words[token] for token in sequence))}
    assert right
    assert set(walk(())) == right
