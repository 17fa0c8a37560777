"""Derived values in contexts and factors: what they add to a density, against brute force; and what is said of them."""

import itertools

import numpy as np
import pytest
import toy

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.errors import LmpplError, raise_errors
from lmppl.run import Request, run
from lmppl.source import Source

HEAD = 'lm LM = "toy"\ngiven X\nZ ~ LM("{X} a") max 3\n'


def program(lines, folder="."):
    analysis = analyse(Source("p.lm", HEAD + lines), folder)
    raise_errors(analysis.findings)
    assert analysis.program is not None
    return analysis.program


def target(lines, given=" b", folder=".", **observed):
    return bind(program(lines, folder), {"LM": toy.ToyModel(seed=3)}, Row({"X": given}, observed))[0]


def every(bound):
    """States of Z that may be drawn, with their texts."""
    states = [{"Z": tokens} for n in range(4) for tokens in itertools.product(range(3), repeat=n)]
    return [(state, bound.text("Z", state["Z"])) for state in states]


def scored(bound, context, text):
    """log p of a text behind a context, token by token, by the law of the toy itself."""
    model = bound.models["LM"]
    tokens, before = (list(model.tokenizer.encode(part, markers=False)) for part in (text, context))
    before = before or [model.end]
    return sum(model.law((*before, *tokens[:t]))[token] for t, token in enumerate(tokens))


def begun(bound, context, text):
    """As `scored`, of a context that begins with what a state says: it starts as documents do."""
    model = bound.models["LM"]
    before, tokens = (list(model.tokenizer.encode(part, markers=False)) for part in (context, text))
    return sum(model.law((model.end, *before, *tokens[:t]))[token] for t, token in enumerate(tokens))


def part(text):
    return text.partition(" b")[2]  # nothing where it is absent


@pytest.mark.parametrize(
    ("lines", "worth"),
    [
        ('observe " a." ~ LM("{X}{A}")^0.5', lambda b, z: 0.5 * scored(b, f" b{part(z)}", " a.")),
        ('observe " a" ~ LM("{A}{X}{A}")', lambda b, z: begun(b, f"{part(z)} b{part(z)}", " a")),
        ('observe " a" ~ LM("{X}{Z}{A}")', lambda b, z: scored(b, f" b{z}{part(z)}", " a")),
        ('observe " a" ~ LM("{X}{B}.")', lambda b, z: scored(b, f" b{part(part(z))}.", " a")),
        ("factor -2 * number(A == \" a\")", lambda b, z: -2.0 * (part(z) == " a" and " b" in z)),
        ("factor 2 * number(present(A)) - 1", lambda b, z: 2.0 * (" b" in z) - 1),
        ("constrain not chars(A) >= 0 or A == B", lambda b, z: 0.0 if " b" not in z else -np.inf),
    ],
)  # fmt: skip
def test_densities_are_what_the_parts_say(lines, worth):
    bound = target(f'derive A = after(Z, " b")\nderive B = after(A, " b")\n{lines}\n')
    (factor,) = bound.program.factors
    states = every(bound)
    density = bound.log_density([state for state, _ in states]).factors[factor.name]
    expected = [worth(bound, text) for _, text in states]
    np.testing.assert_allclose(density, expected, atol=1e-9)
    assert density.max() <= bound.upper_bound_of(factor.name) + 1e-9
    assert bound.affected_by("Z") == {"Z", factor.name}


def test_a_join_sees_the_derived_text():
    bound = target('derive A = after(Z, " b")\nobserve " a" | X, A\n')
    (term,) = bound.scored_text('observe " a"').terms
    views = bound.spelling.views([{"Z": (1, 2)}, {"Z": (1, 0)}, {"Z": (0,)}, {"Z": (1,)}])
    lone = 0  # how the toy writes a space
    assert term.suffixes(views) == [(lone, 2), (0,), (), ()]


def test_what_the_row_settles_is_a_part_of_the_prompt():
    lines = 'derive A = after(X, ".")\nderive B = lower(Z)\nobserve " a" ~ LM("{A}{B}{Z}")\n'
    bound = target(lines, given=" a. b", Z=" b.")
    (term,) = bound.scored_text('observe " a"').terms
    assert (term.context.prompt, term.context.tail) == ((1, 1, 2, 1, 2), ())
    free = target(lines, given=" a. b")
    (term,) = free.scored_text('observe " a"').terms
    assert term.context.prompt == (1,)
    assert term.reads == {"Z"}


def test_masks_follow_what_a_derived_text_stands_for():
    lines = "derive A = lower(Z)\nderive G = lower(X)\nconstrain A == Z and contains(A, G)\n"
    with_name = target(lines).text_latent("Z").masks
    bound = target('constrain contains(lower(Z), " b")\n').text_latent("Z").masks
    assert with_name is not None
    assert bound is not None
    for prefix in ((), (0,), (0, 0), (0, 1)):
        assert with_name.start([prefix]).allowed().tolist() == bound.start([prefix]).allowed().tolist()


def test_a_value_that_cannot_be_derived_is_said_with_its_place(tmp_path):
    (tmp_path / "h.py").write_text("def f(text):\n    raise ValueError(text)\n")
    lines = 'use f from "h.py"\nderive A = f(Z)\nY ~ LM("{A}") in [" a", " b"]\npredict A\n'
    bound = target(lines, folder=tmp_path)
    with pytest.raises(LmpplError, match="`A` cannot be derived: `f` raised ValueError") as caught:
        bound.log_density([{"Z": (1,), "Y": 0}])
    (finding,) = caught.value.diagnostics
    assert finding.source.slice(finding.span) == "f(Z)"
    fixed = lines.replace("f(Z)", "f(X)").replace("predict A", "")
    with pytest.raises(LmpplError, match="`A` cannot be derived"):
        target(fixed, folder=tmp_path)


def test_each_is_computed_once_a_state_and_only_where_it_is_read(tmp_path):
    (tmp_path / "h.py").write_text("seen = []\ndef f(text):\n    seen.append(text)\n    return text\n")
    lines = 'use f from "h.py"\nderive A = f(Z)\nY ~ LM("{A}{A}") in [" a", " b"]\nfactor words(A) * chars(A)\n'
    bound = target(lines, folder=tmp_path)
    bound.log_prior("Z", [{"Z": (1,)}])
    seen = bound.spelling.helpers["f"].__globals__["seen"]
    assert seen == []
    bound.log_density([{"Z": (1,), "Y": 0}])
    assert seen == [" b"]


def test_prediction_is_the_exact_pushforward():
    lines = 'derive A = after(Z, " b")\nderive N = words(A)\nobserve " a" | X, A\npredict A\npredict N\n'
    row = run(program(lines), [Row({"X": " b"}, {})], {"LM": toy.ToyModel(seed=3)}, Request("exact", {}, {}, 0)).rows[0]
    law, numbers = {}, {}
    for state in row.support:
        text = state.values["Z"]
        if " b" in text:
            law[part(text)] = law.get(part(text), 0.0) + state.probability
            count = str(len(part(text).split()))
            numbers[count] = numbers.get(count, 0.0) + state.probability
    assert row.predictions["A"] == pytest.approx(law, abs=1e-9)
    assert row.predictions["N"] == pytest.approx(numbers, abs=1e-9)
    for name in ("A", "N"):
        assert row.predictions[name].absent == (pytest.approx(1 - sum(law.values())), 0.0)
        assert row.predictions[name].absent.value > 0.01
        assert set(row.predictions[name].errors.values()) == {0.0}
