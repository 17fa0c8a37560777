"""Grammars, schemas and patterns nested thousands deep are findings, and end no process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lmppl.compile import analyse
from lmppl.source import Source

ROOT = Path(__file__).parent.parent.parent
HEAD = 'lm LM = "smollm2-135m"\nZ ~ LM("a") max 3 tokens\n'
DEEP = 5000


def chain(length):
    """A schema of definitions that each lead to the next."""
    steps = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(length)}
    return json.dumps({"$ref": "#/$defs/a0", "$defs": {**steps, f"a{length}": {"type": "null"}}})


LARK = {
    "groups": "start: " + "(" * DEEP + '"a"' + ")" * DEEP,
    "options": "start: " + "[" * DEEP + '"a"' + "]" * DEEP,
    "repetitions": "start: " + "(" * DEEP + '"a"' + ")+" * DEEP,
    "negations": "start: T\nT: " + "~(" * DEEP + "/a/" + ")" * DEEP,
    "an expression": "start: /" + "(" * DEEP + "a" + ")" * DEEP + "/",
    "a schema": 'start: %json {"$defs": ' + '{"items": ' * DEEP + "{}" + "}" * DEEP + "}",
}
SCHEMAS = {
    "items": '{"type": "array", "items": ' * DEEP + "{}" + "}" * DEEP,
    "items, few": '{"type": "array", "items": ' * 300 + "{}" + "}" * 300,
    "one of some": '{"anyOf": [' * DEEP + "{}" + "]}" * DEEP,
    "negations": '{"not": ' * 300 + "{}" + "}" * 300,
    "a constant": '{"const": ' + "[" * DEEP + "]" * DEEP + "}",
    "a pattern": json.dumps({"type": "string", "pattern": "(" * DEEP + "a" + ")" * DEEP}),
    "references": chain(DEEP),
}
PATTERNS = {"groups": "(" * DEEP + "a" + ")" * DEEP, "repetitions": "(?:" * DEEP + "a" + ")*" * DEEP}


def found(folder, constraint):
    return [finding.code for finding in analyse(Source("p.lm", f"{HEAD}constrain {constraint}\n"), folder).findings]


@pytest.mark.parametrize(
    ("function", "name", "text"),
    [("in_grammar", f"{name}.lark", text) for name, text in LARK.items()]
    + [("is_json", f"{name}.json", text) for name, text in SCHEMAS.items()],
)
def test_nested_files_are_bad_grammars(tmp_path, function, name, text):
    (tmp_path / name).write_text(text + "\n")
    assert found(tmp_path, f'{function}(Z, "{name}")') == ["bad-grammar"]


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_nested_patterns_are_bad_patterns(tmp_path, pattern):
    assert found(tmp_path, f"matches(Z, /{pattern}/)") == ["bad-pattern"]


def test_a_chain_of_references_that_can_be_read_is_read(tmp_path):
    (tmp_path / "s.json").write_text(chain(400))
    assert found(tmp_path, 'is_json(Z, "s.json")') == []


def test_without_a_process_of_its_own_that_chain_would_end_this_one(tmp_path):
    """If the library learns to say it, what asks first in another process is dead code."""
    text = "from lmppl.expressions import grammars as automata\nautomata.MANY_REFERENCES = 10**9\n"
    text += f"print(automata.grammar_problem(automata.file_grammar('is_json', {str(tmp_path / 's.json')!r})))"
    (tmp_path / "s.json").write_text(chain(DEEP))
    assert subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True).returncode < 0
