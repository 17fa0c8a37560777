"""Options and flags beyond what they may be: refused in one way, for every engine, before any model is loaded."""

import math
from dataclasses import fields, is_dataclass

import pytest

import lmppl
from lmppl.em.maximise import Fit
from lmppl.engines.contract import Settings
from lmppl.engines.options import parse_options, require_together
from lmppl.engines.table import ENGINE_NAMES, engine
from lmppl.errors import LmpplError
from lmppl.run import Request
from lmppl.settings.ranges import LAST_SEED, OneOf, Range, ranges_of

PROGRAM = 'lm LM = "./nowhere"\ngiven X\nZ ~ LM(X) max 3 tokens\nobserve "b" ~ LM(" a{Z}")\n'
KINDS = [Settings, Fit, *(engine(name).options for name in ENGINE_NAMES)]
WORDS_OF_ALL = {"proposal", "python", "targets", "start_from", "tracker", "seed_from"}  # whatever one writes there


def finding(engine_name="importance", **asked):
    with pytest.raises(LmpplError) as raised:
        lmppl.compile(PROGRAM).infer(engine=engine_name, X=" a", **asked)
    (found,) = raised.value.diagnostics
    assert found.code == "bad-option"
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__module__)
def test_every_number_and_every_choice_has_a_range_that_its_default_meets(kind):
    assert is_dataclass(kind)
    values, ranges = kind(), ranges_of(kind)
    for field in fields(kind):
        value = getattr(values, field.name)
        if isinstance(value, bool) or field.name in WORDS_OF_ALL:
            assert field.name not in ranges
        elif field.name != "bound":  # which is no number as long as nobody says one
            assert ranges[field.name].holds(value), field.name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__module__)
def test_what_lies_beyond_a_range_is_named_with_what_is_allowed(kind):
    for name, allowed in ranges_of(kind).items():
        wrong = ["nan", "-inf", "x"] + ([str(allowed.low - 1)] if isinstance(allowed, Range) else [])
        for value in wrong:
            if isinstance(allowed, Range) and value == str(-math.inf):
                continue
            with pytest.raises(LmpplError) as raised:
                parse_options("some", kind(), {name: value})
            (found,) = raised.value.diagnostics
            assert found.code == "bad-option"
            assert f"`{name}`" in found.message
            assert str(allowed) in (found.expected or "")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("annealed", {"particles": -1}),
        ("smc", {"particles": -1}),
        ("smc", {"ess": 2}),
        ("smc", {"temperature": math.nan}),
        ("importance", {"temperatures": 0}),
        ("importance", {"temperatures": "1,-0.5"}),
        ("mcmc", {"pairs": 1}),
        ("rejection", {"bound": math.inf}),
        ("exact", {"limit": -1}),
        ("gflownet", {"learning_rate": math.nan}),
        ("prompting", {"beams": 10**9}),
    ],
)
def test_from_python_the_option_itself_is_blamed(name, options):
    (option,) = options
    assert f"`{option}` of `{name}`" in finding(name, options=options).message


@pytest.mark.parametrize(
    "asked",
    [{"seed": -1}, {"seed": LAST_SEED + 1}, {"seed": 1.5}, {"batch_size": 0}, {"chains": 0}, {"num_samples": 10**10}],
    ids=str,
)
def test_from_python_flags_are_blamed_as_options_are(asked):
    (name,) = asked
    found = finding(**asked)
    assert f"`{name}`" in found.message
    assert found.expected


def test_a_range_in_the_program_is_located():
    with pytest.raises(LmpplError, match=r"<string>:5:"):
        lmppl.compile(PROGRAM + "infer with smc(particles = -1)\n").infer(X=" a")


def test_options_that_do_not_go_together():
    def conflict(name, **given):
        with pytest.raises(LmpplError) as raised:
            require_together(name, parse_options(name, engine(name).options(), given))
        return raised.value.diagnostics[0].message

    assert "`lag`" in conflict("mcmc", lag=5, levels=2)
    assert "`replay`" in conflict("gflownet", replay=0.9)
    assert "`groups`" in conflict("prompting", method="diverse_beam", beams=2)
    for alone in ({"lag": 5}, {"levels": 2}):
        require_together("mcmc", parse_options("mcmc", engine("mcmc").options(), alone))
    beams = parse_options("prompting", engine("prompting").options(), {"method": "beam", "beams": 2})
    require_together("prompting", beams)  # groups are nothing to it


@pytest.mark.parametrize(
    ("allowed", "text"),
    [
        (Range(0, 1), "from 0 to 1"),
        (Range(0, math.inf, open_low=True, endless=True), "above 0, or inf"),
        (Range(1e-3, 1e3, zero=True), "0, or from 0.001 to 1,000"),
        (Range(0, 1, open_high=True), "at least 0 and below 1"),
        (Range(-math.inf, 0), "at most 0"),
        (Range(-math.inf, math.inf), "any number"),
        (OneOf(("a", "b", "c")), "a, b or c"),
    ],
)
def test_ranges_in_words(allowed, text):
    assert str(allowed) == text


def test_a_seed_is_what_every_library_takes():
    allowed = ranges_of(Request)["seed"]
    assert allowed.holds(LAST_SEED)
    assert not allowed.holds(LAST_SEED + 1)
    assert not allowed.holds(True)
