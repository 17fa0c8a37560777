"""Parts of texts: what is taken out, what is absent, and what is true of what is absent."""

import pytest

from lmppl.compile import analyse
from lmppl.errors import raise_errors
from lmppl.expressions import Absent, Environment, EvaluationError, evaluate, interval
from lmppl.ir import Apply, Read
from lmppl.source import Source, Span

ABSENT = object()
JSON = '{"to": {"city": "São Paulo", "zip": 01310}, "n": 1}'  # a number may not begin with 0
ORDER = ' {"to": {"city": "São Paulo"}, "n": [1.50, 1e400, -0], "ok": true, "no": null, "n2": 12345678901234567890}\n'


def parsed(text):
    """The expression of a derived value, which may read the text Z and the given X."""
    program = f'lm LM = "tiny"\ngiven X\nZ ~ LM("{{X}}") max 3\nderive A = {text}\npredict A\n'
    analysis = analyse(Source("p.lm", program), ".")
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program.derived[0].expression


def value(text, z=""):
    found = evaluate(parsed(text), Environment({"Z": z}))
    return ABSENT if isinstance(found, Absent) else found


def helped(returned):
    """What a call of a Python function is that returns this."""
    span = Span(0, 1)
    environment = Environment({"Z": "a"}, helpers={"f": lambda text: returned})
    return evaluate(Apply("f", (Read("Z", span),), span), environment)


@pytest.mark.parametrize(
    ("text", "z", "expected"),
    [
        ('after(Z, "=")', "3+4=7=x", "7=x"),
        ('after(Z, "=")', "3+4=", ""),
        ('after(Z, "=")', "3+4", ABSENT),
        ('before(Z, "=")', "a=b=c", "a"),
        ('before(Z, "=")', "abc", ABSENT),
        ('between(Z, "<", ">")', "> <b> <i>", "b"),
        ('between(Z, "<", ">")', "> <b", ABSENT),
        ('after(Z, "")', "abc", "abc"),
        ("line(Z, 2)", "a\nb\r\nc", "b"),
        ("line(Z, -1)", "a\nb\r\nc\n", "c"),
        ("line(Z, 4)", "a\nb\r\nc\n", ABSENT),
        ("line(Z, 0)", "a", ABSENT),
        ("line(Z, 1.5)", "a\nb", ABSENT),
        ("line(Z, 1)", "", ABSENT),
        ("strip(Z)", " \ta b\n", "a b"),
        ("lower(Z)", "ÀB", "àb"),
        (r"group(Z, /Answer: (\d+)/)", "So: Answer: 42. Answer: 7", "42"),
        (r"group(Z, /Answer: (\d+)$/)", "Answer: 42. Answer: 7", "7"),
        (r"group(Z, /(?:yes|(no)|(never))/)", "oh never", "never"),
        (r"group(Z, /x(y)?/)", "x", ABSENT),
        (r"group(Z, /(\d+)/)", "none", ABSENT),
        (r"group(Z, /<(.*?)>/)", "<a> <b>", "a"),
        (r"group(Z, /(?s)begin(.*)end/)", "begin\nx\nend", "\nx\n"),
        ('field(Z, "to.city")', ORDER, "São Paulo"),
        ('field(Z, "n[0]")', ORDER, "1.50"),
        ('field(Z, "n[1]")', ORDER, "1e400"),
        ('field(Z, "n[-1]")', ORDER, "-0"),
        ('field(Z, "n2")', ORDER, "12345678901234567890"),
        ('field(Z, "ok")', ORDER, True),
        ('field(Z, "no")', ORDER, ABSENT),
        ('field(Z, "n[3]")', ORDER, ABSENT),
        ('field(Z, "n.x")', ORDER, ABSENT),
        ('field(Z, "to[0]")', ORDER, ABSENT),
        ('field(Z, "n")', ORDER, "[1.50,1e400,-0]"),
        ('field(Z, "to")', ORDER, '{"city":"São Paulo"}'),
        ('field(Z, "[1].a")', '[1, {"a": "b"}]', "b"),
        ('field(Z, "to.city")', JSON, ABSENT),
        ('field(Z, "a")', '{"a": NaN}', ABSENT),
        ('field(Z, "a")', '{"a": 1} and', ABSENT),
        ('field(Z, "a")', '{"a": "\\ud800"}', ABSENT),
        ('field(Z, "a")', "[" * 100_000, ABSENT),
        ('field(Z, "a b.c-d")', '{"a b": {"c-d": 5}}', "5"),
        ('number(after(Z, "="))', "a=12", 12.0),
        ('words(after(Z, "="))', "a=b c", 2),
        ('words(after(Z, "="))', "a", ABSENT),
        ('1 + chars(after(Z, "="))', "a", ABSENT),
        ('lower(strip(after(Z, "=")))', "a", ABSENT),
        ('field(after(Z, "="), "x")', '={"x": "y"}', "y"),
    ],
)
def test_what_is_taken_out(text, z, expected):
    found = value(text, z)
    assert found is expected or found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('after(Z, "=") == "x"', False),
        ('after(Z, "=") != "x"', False),
        ('after(Z, "=") == after(Z, "=")', False),
        ('number(after(Z, "=")) < 3', False),
        ('number(after(Z, "=")) >= 3', False),
        ('contains(after(Z, "="), "")', False),
        ('matches(after(Z, "="), /.*/)', False),
        ('not after(Z, "=") == "x"', True),
        ('present(after(Z, "="))', False),
        ("present(Z)", True),
        ('Z == "a" or after(Z, "=") == "x"', True),
        ('after(Z, "=") == "x" or Z == "a"', True),
        ('Z == "a" and after(Z, "=") == "x"', False),
    ],
)
def test_nothing_is_true_of_what_is_absent(text, expected):
    assert value(text, "a") is expected


def test_a_range_knows_that_values_may_be_absent():
    """`words` is never below 0, and of a part that is absent not even that is true."""
    assert interval(parsed("words(Z) >= 0"), {}) == (1.0, 1.0)
    assert interval(parsed('words(after(Z, "=")) >= 0'), {}) == (0.0, 1.0)
    assert interval(parsed('not words(after(Z, "=")) >= 0'), {}) == (0.0, 1.0)
    assert interval(parsed('not present(after(Z, "="))'), {}) == (0.0, 1.0)


def test_a_number_is_wanted_where_there_is_none():
    expression = parsed('number(after(Z, "=")) + 1')
    assert isinstance(evaluate(expression, Environment({"Z": "a"})), Absent)
    with pytest.raises(EvaluationError, match="needs a number, found the text 'b'"):
        evaluate(parsed('field(Z, "x") + 1'), Environment({"Z": '{"x": "b"}'}))


@pytest.mark.parametrize(("returned", "expected"), [("x", "x"), (None, ABSENT), (2, 2), (True, True), ("", "")])
def test_a_python_function_gives_a_text_or_nothing(returned, expected):
    found = helped(returned)
    assert (ABSENT if isinstance(found, Absent) else found) == expected


@pytest.mark.parametrize("returned", ["\ud800", [1], b"x", object()])
def test_a_python_function_gives_nothing_else(returned):
    with pytest.raises(EvaluationError, match="must return a text, a number or a bool"):
        helped(returned)
