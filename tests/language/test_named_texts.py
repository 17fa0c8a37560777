"""Texts over several lines, texts that a program names, and files that hold them."""

import re
from pathlib import Path

import pytest
from toy import ToyModel

import lmppl
from lmppl import ir
from lmppl.compile import analyse
from lmppl.language.formatting import format_program
from lmppl.language.templates import body
from lmppl.report.explain import explain_ir
from lmppl.run.provenance import program_files
from lmppl.source import Source

ROOT = Path(__file__).parent.parent.parent
LM = 'lm LM = "m"\n'


def parts(text, folder="."):
    """Of the context of the first latent."""
    analysis = analyse(Source("p.lm", LM + text), folder)
    assert not analysis.findings, analysis.findings
    return analysis.program.latents[0].terms[0].context.parts


def shown(text, folder="."):
    (part,) = parts(text, folder)
    assert isinstance(part, ir.Literal)
    return part.text


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('"""a"""', "a"),
        ('"""  a"""', "  a"),  # on one line, spaces are its own
        ('"""\n    a\n      b\n    c"""', "a\n  b\nc"),
        ('"""\n    a\n\n    b\n    """', "a\n\nb\n"),
        ('"""\n  a\n \t \n  b\n"""', "a\n\nb\n"),  # a blank line has no part in it, and is empty
        ('"""\n    a\n  b\n      """', "  a\nb\n"),  # what stands before the quotes has none either
        ('"""a\n    b\n      c"""', "a\nb\n  c"),  # the line of the quotes is not indented
        ('"""\n\ta\n    b"""', "\ta\n    b"),  # a tab is no four spaces
        ('"""  \n    a"""', "a"),
        ('"""\r\n    a\r\n    b"""', "a\nb"),
        ('"""\n    \\ta\\n    b"""', "\ta\n    b"),  # a line break that is an escape begins no line
        ('"""say "no", ""no"" and \\"""no"""', 'say "no", ""no"" and """no'),
        ('"""\n    # no comment"""', "# no comment"),
        ('"""{{\n  a: 1\n}}"""', "{\na: 1\n}".replace("a", "  a")),
    ],
)
def test_what_a_long_text_means(written, meant):
    assert shown(f"Z ~ LM({written}) max 3\n") == meant
    assert shown(f"text A = {written}\nZ ~ LM(A) max 3\n") == meant


def test_an_empty_one_is_no_part_of_a_context():
    assert parts('Z ~ LM("""""") max 3\n') == parts('Z ~ LM("""\n   """) max 3\n') == parts('Z ~ LM("") max 3\n')


def test_a_long_text_knows_where_its_characters_stand():
    raw = '"""\n    one {X}\n      two {Y}\n    """'
    text = body(raw, 100)
    for word in ("one", "X", "two", "Y"):
        span = text.span(text.text.index(word), text.text.index(word) + len(word))
        assert raw[span.start - 100 : span.end - 100] == word


def test_names_in_a_named_text_are_filled_in_where_a_context_shows_it():
    program = 'given X\ntext A = "<|im_start|>{X}"\ntext B = "{A} and {{"\nZ ~ LM("1 {B} 2{B}", X, A) max 3\n'
    begun, given, join = ir.Literal("<|im_start|>"), ir.Given("X"), ir.Join()
    assert parts(program) == (
        ir.Literal("1 <|im_start|>"), given, ir.Literal(" and { 2<|im_start|>"), given, ir.Literal(" and {"),
        join, given, join, begun, given,
    )  # fmt: skip


def test_a_named_text_is_the_text_in_expressions_and_observations():
    program = (
        'text A = """say "{Z}" """\nZ ~ LM("a") max 3\nconstrain contains(Z, A)\nobserve A | Z\nobserve A ~ LM(Z)\n'
    )
    found = analyse(Source("p.lm", LM + program + 'statistic n = count(A, "a")\n'), ".")
    assert [finding.code for finding in found.findings] == ["reads-no-latent"]  # the statistic
    constraint, short, long = found.program.factors
    assert constraint.expression.arguments[1].value == 'say "{Z}" '
    assert short.target == long.target == ir.Literal('say "{Z}" ')


def test_a_file_is_taken_as_it_is(tmp_path):
    (tmp_path / "below").mkdir()
    raw = "\ufeffA \\n, {X} and {{.\r\n  Indented.\n\n"
    (tmp_path / "below" / "intro.md").write_bytes(raw.encode())
    program = 'given X\ntext A = from "below/intro.md"\nZ ~ LM("{A}") max 3\n'
    assert parts(program, tmp_path) == (
        ir.Literal("A \\n, "), ir.Given("X"), ir.Literal(" and {.\n  Indented.\n"),
    )  # fmt: skip


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    with (tmp_path / "long.md").open("wb") as file:
        file.truncate(2**33)
    (finding,) = analyse(Source("p.lm", LM + 'text A = from "long.md"\nZ ~ LM(A) max 3\n'), tmp_path).findings
    assert (finding.code, finding.source.position(finding.span.start)) == ("text-too-long", (2, 15))


def test_the_file_is_part_of_what_a_run_is_made_from(tmp_path):
    (tmp_path / "intro.md").write_text("A.")
    (tmp_path / "p.lm").write_text(LM + 'text A = from "intro.md"\nZ ~ LM(A) max 3\n')
    first = program_files(lmppl.compile(tmp_path / "p.lm").program)
    (tmp_path / "intro.md").write_text("B.")
    second = program_files(lmppl.compile(tmp_path / "p.lm").program)
    assert first.keys() == second.keys() == {"intro.md"}
    assert first != second


def test_a_file_that_is_gone_when_the_program_runs_is_found(tmp_path):
    (tmp_path / "intro.md").write_text("A.")
    (tmp_path / "p.lm").write_text(LM + 'text A = from "intro.md"\nZ ~ LM(A) max 3\n')
    compiled = lmppl.compile(tmp_path / "p.lm")
    (tmp_path / "intro.md").unlink()
    with pytest.raises(lmppl.LmpplError) as raised:
        compiled.infer("importance", num_samples=2)
    assert [finding.code for finding in raised.value.diagnostics] == ["missing-file"]


MESSY = '''text   A="""
      # no comment
        kept as it is,

      "quotes" and all
    """    # why
Z~LM( A ,"""
  x
""" )  max 3 tokens
text B=from"f.md"
'''
TIDY = '''text A = """
      # no comment
        kept as it is,

      "quotes" and all
    """  # why
Z ~ LM(A, """
  x
""") max 3 tokens
text B = from "f.md"
'''


def test_format_keeps_a_long_text_as_it_is():
    assert format_program(Source("p", MESSY)) == (TIDY, ())
    assert format_program(Source("p", TIDY)) == (TIDY, ())


def test_explain_shows_a_named_text():
    program = analyse(Source("p.lm", LM + 'text A = """\n  a\n  b"""\nZ ~ LM(A) max 3\n'), ".").program
    assert "text A = 'a\\nb'" in explain_ir(program).split("\n")


def test_the_density_is_that_of_the_text_written_out():
    head = 'lm LM = "m"\n'
    named = lmppl.compile(head + 'text A = """\n   a b"""\nZ ~ LM(" b{A}") max 2\nconstrain contains(Z, A)\n')
    plain = lmppl.compile(head + 'Z ~ LM(" ba b") max 2\nconstrain contains(Z, "a b")\n')
    toy = {"LM": ToyModel()}
    first, second = (program.infer("exact", lms=toy) for program in (named, plain))
    assert first["Z"] == second["Z"]
    assert first.rows[0].log_evidence == second.rows[0].log_evidence


def test_the_programs_of_the_page_are_clean(tmp_path):
    page = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"^```\n(.*?)^```", page, re.M | re.S) if '"""' in b)
    (tmp_path / "rules.md").write_text("Be brief.\n")
    assert analyse(Source("p.lm", block), tmp_path).findings == ()
