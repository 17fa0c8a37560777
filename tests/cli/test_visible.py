"""Text that attacks: escape sequences of models, data, files and flags reach no terminal, wherever they come from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import here, lmppl, write  # noqa: F401

import lmppl as lmppl_package
from lmppl.screen.escapes import visible, visible_json

EVIL = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202eback\x7f"
SEEN = "é　\u00a0👩\u200d👩"  # letters, wide and narrow spaces, joined emoji


def is_clean(text):
    return not set(text) & set("\x1b\x07\x9b\u202e\x7f\r\x08")


def test_what_moves_the_cursor_is_replaced_and_what_is_read_stays():
    assert is_clean(visible(EVIL))
    assert "red" in visible(EVIL)
    assert visible(SEEN) == SEEN
    assert visible("a\tb\n") == "a    b\n"


def test_json_says_the_same_by_escapes():
    document = {EVIL: [EVIL, SEEN, "\n\t\\"]}
    for indent in (None, 1):
        text = visible_json(document, indent)
        assert is_clean(text)
        assert SEEN in text
        assert json.loads(text) == document


ATTACKS = {
    "a column's name": ["run", "p.lm", "--data", "d.jsonl"],
    "a value": ["run", "p.lm", "--set", f"X={EVIL}", "--num-samples", "3", "--engine", "importance"],
    "a value, as JSON": ["run", "p.lm", "--set", f"X={EVIL}", "--num-samples", "3", "--engine", "importance", "--json"],
    "a flag": ["run", "p.lm", f"--{EVIL}"],
    "a command": [EVIL],
    "a setting": ["run", "p.lm", "--set", f"{EVIL}=1"],
    "an option": ["run", "p.lm", "--set", "X=a", "-o", f"{EVIL}=1"],
    "an option's value": ["run", "p.lm", "--set", "X=a", "--engine", "smc", "-o", f"ess={EVIL}"],
    "a model": ["run", "p.lm", "--set", "X=a", "--lm", f"LM={EVIL}"],
    "an engine": ["run", "p.lm", "--set", "X=a", "--engine", EVIL],
    "a label": ["compare", "p.lm", "--set", "X=a", "--engines", f"{EVIL}=importance", "--budget", "50", "--seeds", "1"],
    "a helper's error": ["run", "helped.lm", "--engine", "importance"],
    "a file": ["check", f"{EVIL}.lm"],
    "a program": ["check", "evil.lm"],
    "a run": ["summary", "evil", "-v"],
    "a run's checks": ["diagnose", "evil"],
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_escape_sequence_reaches_the_terminal(here, name):  # noqa: F811
    (here / "d.jsonl").write_text(json.dumps({EVIL: "a"}) + "\n", encoding="utf-8")
    (here / "helper.py").write_text(f"def fail(text):\n    raise ValueError({EVIL!r})\n", encoding="utf-8")
    write(here, 'use fail from "helper.py"\nZ ~ LM(" a") max 2 tokens\nfactor fail(Z)\n', "helped.lm")
    write(here, f'Z ~ LM(" {EVIL}") max 2 tokens {EVIL}\n', "evil.lm")
    if "evil" in ATTACKS[name]:
        lmppl(here, "run", "p.lm", "--set", "X=a", "--num-samples", "3", "--engine", "importance", "--out", "evil")
        document = (here / "evil" / "run.json").read_text(encoding="utf-8")
        for plain in ("importance", "./model", "p.lm"):
            document = document.replace(json.dumps(plain), json.dumps(EVIL))
        (here / "evil" / "run.json").write_text(document, encoding="utf-8")
    code, out = ended(here, *ATTACKS[name])
    assert is_clean(out)
    assert "internal" not in out
    assert code in (0, 1, 2)


def ended(folder, *arguments):
    """The exit code, and all that was printed."""
    for code in (0, 1, 2):
        try:
            done = lmppl(folder, *arguments, code=code)
        except AssertionError:
            shutil.rmtree(folder / "p-compare", ignore_errors=True)
            continue
        return code, done.stdout + done.stderr
    raise AssertionError("it ended otherwise")


# --- floods ---------------------------------------------------------------------------------------


def test_ten_findings_of_a_kind_and_a_count(here):  # noqa: F811
    givens = "".join(f"given {name}\n" for name in ("".join(chr(97 + int(d)) for d in str(i)) for i in range(100, 400)))
    write(here, f'{givens}Z ~ LM(" a") max 2 tokens\n', "many.lm")
    out = lmppl(here, "check", "many.lm", code=1).stdout
    assert out.count("warning[unused-name]: `") == 10
    assert "and 290 more of this kind" in out


def test_a_long_line_is_cut_with_its_place_in_view(here):  # noqa: F811
    options = ", ".join(f'" o{i}"' for i in [*range(5000), 2500, *range(5000, 9000)])
    write(here, f'Z ~ LM(" a") in [{options}]\n', "wide.lm")
    out = lmppl(here, "check", "wide.lm", code=1).stdout
    assert max(map(len, out.splitlines())) < 220
    line, carets = next((a, b) for a, b in zip(out.splitlines(), out.splitlines()[1:], strict=False) if "^" in b)
    assert line[carets.index("^") : carets.rindex("^") + 1] == '" o2500"'


def test_a_long_literal_is_checked_at_once(here):  # noqa: F811
    import time

    write(here, f'Z ~ LM("{"ab c" * 250_000}") max 2 tokens\n', "long.lm")
    began = time.process_time()
    lmppl(here, "check", "long.lm")
    assert time.process_time() - began < 2


def test_ctrl_c_while_it_is_imported_is_clean(tmp_path):
    """What is imported first raises what Ctrl-C does."""
    (tmp_path / "rich_click.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), str(Path(lmppl_package.__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "lmppl", "engines"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
