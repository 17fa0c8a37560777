"""The page of the programs' outputs: written after each, read back, and made anew where a program has changed."""

import re
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
    monkeypatch.setitem(
        main.__globals__, "printed", lambda command: ran.append(Path(command[1]).stem) or "it printed this"
    )

    def make(*arguments):
        monkeypatch.setattr(sys, "argv", ["outputs.py", *arguments])
        ran.clear()
        main()
        return list(ran), (tmp_path / "programs.md")

    return make


def test_every_program_has_its_text_and_output_once(outputs):
    names = sorted(path.stem for path in (ROOT / "programs").glob("*.lm"))
    ran, page = outputs()
    assert list(dict.fromkeys(ran)) == names
    text = page.read_text(encoding="utf-8")
    for name in names:
        assert text.count(f"\n## {name}\n") == 1
        assert (ROOT / "programs" / f"{name}.lm").read_text(encoding="utf-8").strip() in text
    assert text.count("it printed this") == len(ran) > len(names)
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
    page.write_text(text.replace("steps=12", "steps=1"), encoding="utf-8")
    assert set(outputs()[0]) == {"numbers"}
    assert len(set(outputs("--again")[0])) == text.count("\n## ")


def lines_of(text):
    return [line.rstrip() for line in text.splitlines()]


def test_the_page_is_of_the_programs_as_they_are():
    script = runpy.run_path(str(ROOT / "benchmarks" / "outputs.py"))
    sections = script["sections"]()
    for program in script["programs"]():
        assert script["is_current"](program, sections.get(program.stem, "")), (
            f"make outputs: {program.stem} has changed"
        )
    assert list(sections) == [program.stem for program in script["programs"]()]


def test_the_outputs_in_the_readme_are_those_of_the_page():
    """A line of three dots stands for what is left out."""
    page = lines_of((ROOT / "docs" / "programs.md").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = [lines_of(block) for block in re.findall(r"^```\n(\$ lmppl run .*?)^```", readme, flags=re.M | re.S)]
    assert len(blocks) == 5
    for block in blocks:
        rest = iter(page[page.index(block[0]) : page.index("```", page.index(block[0]))])
        assert all(line in rest for line in block if line != "…"), block[0]
