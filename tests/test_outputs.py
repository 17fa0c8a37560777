"""The page of the programs' outputs: written after each, read back, and made anew where a program has changed."""

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    """The script with a page of its own; in place of models, a printer that counts."""
    script = runpy.run_path(str(ROOT / "benchmarks" / "outputs.py"))
    main, ran = script["main"], []
    monkeypatch.setitem(main.__globals__, "PAGE", tmp_path / "programs.md")
    monkeypatch.setitem(main.__globals__, "printed", lambda program: ran.append(program.stem) or "it printed this")

    def make(*arguments):
        monkeypatch.setattr(sys, "argv", ["outputs.py", *arguments])
        ran.clear()
        main()
        return list(ran), (tmp_path / "programs.md")

    return make


def test_every_program_has_its_text_and_output_once(outputs):
    names = sorted(path.stem for path in (ROOT / "programs").glob("*.lm"))
    ran, page = outputs()
    assert ran == names
    text = page.read_text(encoding="utf-8")
    for name in names:
        assert text.count(f"\n## {name}\n") == 1
        assert (ROOT / "programs" / f"{name}.lm").read_text(encoding="utf-8").strip() in text
    assert text.count("it printed this") == len(names)
    assert text.count("```") % 2 == 0
    assert outputs() == ([], page)
    assert page.read_text(encoding="utf-8") == text


def test_what_has_changed_or_is_named_is_run_again(outputs):
    _, page = outputs()
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("What did Anna lose?", "What did Anna find?"), encoding="utf-8")
    assert outputs()[0] == ["lost"]
    assert page.read_text(encoding="utf-8") == text
    assert outputs("sum")[0] == ["sum"]
    assert len(outputs("--again")[0]) == text.count("\n## ")
