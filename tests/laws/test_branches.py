"""Programs with `when`: their density is brute force's, and every engine that applies draws from it."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
from rich.console import Console
from test_samplers import THREE_SIGMA, histogram, largest_by_chance, total_variation
from toy import WORDS, ToyModel

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.stopping import ABSENT
from lmppl.density.binding import bind
from lmppl.density.gradients import log_joints
from lmppl.density.prefixes import prefix_log_density
from lmppl.em.cases import Case
from lmppl.em.maximise import learnable
from lmppl.engines.amortised.learning import _base
from lmppl.engines.amortised.policy import Policy, Wanted
from lmppl.engines.search import enumerate_states
from lmppl.errors import LmpplError, raise_errors
from lmppl.lm.transformers import adapter
from lmppl.posterior import load
from lmppl.posterior.columns import Run
from lmppl.posterior.groups import groups
from lmppl.posterior.table import table
from lmppl.report.run import show_posterior
from lmppl.run import Request, run
from lmppl.source import Source

MODEL = ToyModel()
END = len(WORDS) - 1
HEAD = 'lm LM = "toy"\ngiven X\nK ~ LM(" a") in [" a", " b"]\n'


def ids(text):
    return MODEL.tokenizer.encode(text, markers=False)


def begun(text):
    """A context that begins with a latent begins as a document does."""
    return [END, *ids(text)]


def log_prob(context, tokens):
    """Σ log p of tokens behind others."""
    return sum(float(MODEL.law((*context, *tokens[:t]))[token]) for t, token in enumerate(tokens))


def log_text(context, text, most, power=1.0):
    """Log prior of a text that may end by itself or be cut."""
    return power * log_prob(context, text if len(text) == most else [*text, END])


def log_option(context, option, options=(" a", " b")):
    scores = [log_prob(context, ids(one)) for one in options]
    return scores[options.index(option)] - np.logaddexp.reduce(scores)


def texts(most):
    return [t for n in range(most + 1) for t in itertools.product(range(END), repeat=n)]


# a program's statements behind the choice K, and what they add to the log density of (K, Z), for a row's X
TERMS = {
    "observe": (
        'Z ~ LM("{K}") max 2 tokens\nobserve " b" ~ LM(" a{Z}")^0.7 when K == " a"\n',
        lambda k, z, x: log_text(begun(k), z, 2) + (0.7 * log_prob([*ids(" a"), *z], ids(" b")) if k == " a" else 0.0),
    ),
    "mixture": (
        'Z ~ LM("{K}") max 2 tokens\nobserve " b" ~ mix(LM(" a{Z}"), 3 * LM(" b{Z}")) when not K == " a"\n',
        lambda k, z, x: log_text(begun(k), z, 2) + (0.0 if k == " a" else np.logaddexp(
            math.log(0.25) + log_prob([*ids(" a"), *z], ids(" b")),
            math.log(0.75) + log_prob([*ids(" b"), *z], ids(" b")))),
    ),
    "constrain": (
        'Z ~ LM("{K}")^2 max 2 tokens\nconstrain tokens(Z) >= 1 when K == " b"\n',
        lambda k, z, x: -math.inf if k == " b" and not z else log_text(begun(k), z, 2, 2.0),
    ),
    "factor": (
        'Z ~ LM("{K}") max 2 tokens\nfactor -1.5 * tokens(Z) when K == " b" and X == 1\n',
        lambda k, z, x: log_text(begun(k), z, 2) - (1.5 * len(z) if k == " b" and x == "1" else 0.0),
    ),
    "by the row": (
        'Z ~ LM("{K}") max 2 tokens\nobserve " b" ~ LM(" a{Z}") when X == 1 or X == 2\n'
        'constrain tokens(Z) >= 1 when X == 0\n',
        lambda k, z, x: -math.inf if x == "0" and not z
        else log_text(begun(k), z, 2) + (log_prob([*ids(" a"), *z], ids(" b")) if x == "1" else 0.0),
    ),
}  # fmt: skip


# more latents: a program's statements behind K, every (K, …) with its values, None where there is none, and log γ
FORBIDDEN = -math.inf
LATENTS = {
    "text": (
        'Z ~ LM("{K}") max 2 tokens when K == " a"\nobserve " b" ~ LM(" a{Z}")\n',
        lambda: [(k, z) for k in (" a", " b") for z in (texts(2) if k == " a" else [None])],
        lambda k, z: (log_text(begun(k), z, 2) if k == " a" else 0.0)
        + log_prob([*ids(" a"), *(z or ())], ids(" b")),
    ),
    "derived": (  # a guard reads the choice by names that are derived from it
        'derive PART = before(K, "b")\nderive SAME = PART\nZ ~ LM("{K}") max 2 tokens when not SAME == " "\n'
        'observe " b" ~ LM(" a{Z}") when not PART == " "\nobserve " b" ~ LM(" .") when PART == " "\n',
        lambda: [(k, z) for k in (" a", " b") for z in [None, *texts(2)] if (z is None) == (k == " b")],
        lambda k, z: log_prob(ids(" ."), ids(" b")) if z is None
        else log_text(begun(k), z, 2) + log_prob([*ids(" a"), *z], ids(" b")),
    ),
    "power": (
        'Z ~ LM("{K}")^2 max 2 tokens when K == " a"\nfactor 2 * tokens(Z) when K == " a"\n',
        lambda: [(k, z) for k in (" a", " b") for z in (texts(2) if k == " a" else [None])],
        lambda k, z: log_text(begun(k), z, 2, 2.0) + 2 * len(z) if k == " a" else 0.0,
    ),
    "hard": (
        'Z ~ LM("{K}") max 2 tokens when K == " a"\nconstrain contains(Z, " b") when K == " a"\n',
        lambda: [(k, z) for k in (" a", " b") for z in (texts(2) if k == " a" else [None])],
        lambda k, z: 0.0 if z is None else log_text(begun(k), z, 2) if 1 in z else FORBIDDEN,
    ),
    "until": (
        'Z ~ LM("{K}") until "." max 2 tokens when K == " a"\nobserve " b" ~ LM(" a{Z}")\n',
        lambda: [(k, z) for k in (" a", " b") for z in ([(2,), (0, 2), (1, 2)] if k == " a" else [None])],
        lambda k, z: (log_prob(begun(k), z) if z else 0.0) + log_prob([*ids(" a"), *(z or ())], ids(" b")),
    ),
    "arms": (
        'Z ~ LM("{K}") max 2 tokens when K == " a"\nZ ~ LM(" .{K}")^2 max 1 tokens when K == " b"\n'
        'V ~ LM("{Z}") in [" a", " b"]\nobserve " b" ~ LM(" a{V}{Z}")\nfactor 1.5 * tokens(Z)\n',
        lambda: [(k, z, v) for k in (" a", " b") for z in texts(2 if k == " a" else 1) for v in (" a", " b")],
        lambda k, z, v: (log_text(begun(k), z, 2) if k == " a" else log_text(ids(" .") + ids(k), z, 1, 2.0))
        + log_option([END, *z], v) + log_prob([*ids(" a"), *ids(v), *z], ids(" b")) + 1.5 * len(z),
    ),
    "choice arms": (
        'Y ~ LM(" a{K}") in [" a", "."] when K == " b"\nY ~ LM(" b") in [" b", ".", " a"] when not K == " b"\n'
        'Z ~ LM("{Y}") max 1 when Y == "."\nobserve " b" ~ LM(" a{Y}{Z}")\npredict Y\n',
        lambda: [(k, y, z) for k in (" a", " b") for y in ([" a", "."] if k == " b" else [" b", ".", " a"])
                 for z in (texts(1) if y == "." else [None])],
        lambda k, y, z: (log_option([*ids(" a"), *ids(k)], y, (" a", ".")) if k == " b"
                         else log_option(ids(" b"), y, (" b", ".", " a")))
        + (0.0 if z is None else log_text([END, *ids(y)], z, 1))
        + log_prob([*ids(" a"), *ids(y), *(z or ())], ids(" b")),
    ),
    "choices": (
        'Y ~ LM(" a{K}") in [" a", "."] when K == " b"\nZ ~ LM("{Y}{K}") max 1 when not Y == "."\n'
        'V ~ LM("{Z}") in [" a", " b"]\nobserve " b" ~ LM(" a{V}")\n',
        lambda: [(k, y, z, v) for k in (" a", " b") for y in ([" a", "."] if k == " b" else [None])
                 for z in (texts(1) if y != "." else [None]) for v in (" a", " b")],
        lambda k, y, z, v: (log_option([*ids(" a"), *ids(k)], y, (" a", ".")) if y else 0.0)
        + (0.0 if z is None else log_text([END, *ids(y or ""), *ids(k)], z, 1))
        + log_option([END, *(z or ())], v) + log_prob([*ids(" a"), *ids(v)], ids(" b")),
    ),
}  # fmt: skip


def law_of_latents(name):
    """Values of all latents → probability, and the log evidence, by brute force."""
    _, every, log_more = LATENTS[name]
    states = every()
    log_density = np.array([log_option(ids(" a"), state[0]) + log_more(*state) for state in states])
    evidence = np.logaddexp.reduce(log_density)
    keys = [tuple("".join(WORDS[t] for t in v) if isinstance(v, tuple) else v for v in state) for state in states]
    return dict(zip(keys, np.exp(log_density - evidence), strict=True)), float(evidence)


def compiled(text):
    analysis = analyse(Source("branches", text), Path(__file__).parent)
    raise_errors(analysis.findings)
    return analysis.program


def law(name, x):
    """(K, Z) → probability, and the log evidence, by brute force."""
    _, log_more = TERMS[name]
    states = list(itertools.product((" a", " b"), texts(2)))
    log_density = np.array([log_option(ids(" a"), k) + log_more(k, z, x) for k, z in states])
    evidence = np.logaddexp.reduce(log_density)
    keys = [(k, "".join(WORDS[t] for t in z)) for k, z in states]
    return dict(zip(keys, np.exp(log_density - evidence), strict=True)), float(evidence)


ENGINES = {
    "exact": ({"chains": 1, "num_samples": 1000}, {}),
    "importance": ({"num_samples": 300}, {}),
    "rejection": ({"num_samples": 40}, {"temperature": 0.5}),
    "mcmc": ({"chains": 200, "num_samples": 1, "num_warmup": 30}, {}),
    "annealed": ({"chains": 100, "num_samples": 1}, {"particles": 16, "search": 0}),
    "smc": ({"chains": 100, "num_samples": 1}, {"particles": 24}),
}
QUICK = ("exact", "importance")
UNBOUNDED = [("rejection", "arms")]  # a factor that has no bound
SLOW_TO_FORGET = [("mcmc", "until")]  # a third of the chains begins in the arm that few moves leave
CASES = [
    pytest.param(engine, name, x, marks=() if engine in QUICK else pytest.mark.slow)
    for engine, name, x in itertools.product(ENGINES, TERMS, "01")
]


def check(engine, name, x, expected, evidence, text, again=0):
    settings, options = ENGINES[engine]
    if (engine, name) in SLOW_TO_FORGET:
        settings = {**settings, "num_warmup": 200}
    request = Request(engine, settings, options, 7 + again, batch_size=512)
    row = run(compiled(text), [Row({} if x is None else {"X": x}, {})], {"LM": MODEL}, request).rows[0]
    size = 1 / (row.weights**2).sum()
    found = histogram(row)
    chance = largest_by_chance(expected, size, np.random.default_rng(0), THREE_SIGMA)
    assert total_variation(expected, found) < chance + 1e-3
    if row.log_evidence is not None:
        assert abs(row.log_evidence - evidence) < 4 * row.log_evidence_se + 1e-3


@pytest.mark.parametrize(("engine", "name", "x"), CASES)
def test_a_term_under_a_guard_is_there_where_it_holds(engine, name, x):
    expected, evidence = law(name, x)
    text = HEAD + TERMS[name][0]
    try:
        check(engine, name, x, expected, evidence, text)
    except AssertionError:  # of many levels at three sigma, some are missed by chance: an error is missed twice
        check(engine, name, x, expected, evidence, text, again=1000)


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        pytest.param(engine, name, marks=() if engine in QUICK else pytest.mark.slow)
        for engine, name in itertools.product(ENGINES, LATENTS)
        if (engine, name) not in UNBOUNDED
    ],
)
def test_a_latent_under_a_guard_is_there_where_it_holds(engine, name):
    expected, evidence = law_of_latents(name)
    text = HEAD.replace("given X\n", "") + LATENTS[name][0]
    try:
        check(engine, name, None, expected, evidence, text)
    except AssertionError:
        check(engine, name, None, expected, evidence, text, again=1000)


def test_a_state_must_have_what_its_guards_say_both_ways():
    target, _ = bind(compiled(HEAD + LATENTS["choices"][0]), {"LM": MODEL}, Row({"X": "0"}, {}))
    wrong = [
        {"K": 0, "Y": 0, "Z": (), "V": 0},  # Y is there where it must not be
        {"K": 1, "Y": 2, "Z": (), "V": 0},  # Y is missing
        {"K": 1, "Y": 1, "Z": (), "V": 0},  # Z is there where it must not be
        {"K": 1, "Y": 0, "Z": ABSENT, "V": 0},  # Z is missing
    ]
    right = [{"K": 0, "Y": 2, "Z": (), "V": 0}, {"K": 1, "Y": 1, "Z": ABSENT, "V": 0}]
    assert np.isneginf(target.log_density(wrong).total).all()
    assert np.isfinite(target.log_density(right).total).all()
    assert target.texts_of(right[1]) == {"K": " b", "Y": ".", "Z": None, "V": " a"}
    assert target.state_of(target.texts_of(right[1]), target.tokens_of(right[1])) == right[1]


def test_a_term_that_a_row_has_not_is_no_part_of_its_density():
    program = compiled(HEAD + TERMS["by the row"][0])
    names = {x: bind(program, {"LM": MODEL}, Row({"X": x}, {}))[0].factor_names for x in "012"}
    assert names == {"0": ("K", "Z", names["0"][2]), "1": ("K", "Z", 'observe " b"'), "2": names["1"]}
    assert names["0"][2].startswith("constrain")


def test_a_constraint_that_a_row_has_guides_its_texts():
    program = compiled(HEAD + 'Z ~ LM("{K}") max 2 tokens\nconstrain contains(Z, " b") when X == 1\n')
    for x, guided in (("0", False), ("1", True)):
        target, _ = bind(program, {"LM": MODEL}, Row({"X": x}, {}))
        assert (target.text_latent("Z").masks is not None) == guided


def test_a_guard_that_has_no_value_is_a_finding_with_its_line():
    program = compiled(HEAD + 'Z ~ LM("{K}") max 2 tokens\nfactor tokens(Z) when X > 3\n')
    with pytest.raises(LmpplError, match="`when` has no value: `>` needs a number, found the text 'many'"):
        bind(program, {"LM": MODEL}, Row({"X": "many"}, {}))


ARMS = (
    'lm LM = "toy"\ngiven X\nZ ~ LM(" a") max 2 tokens when X == 1\nZ ~ LM(" b") max 1 tokens when X == 2\n'
    'constrain contains(Z, " b")\nstatistic n = tokens(Z)\n'
)


def test_a_row_has_the_arm_that_its_givens_say():
    program = compiled(ARMS)
    assert program.names == ("Z",)
    for x, name, value in (("1", "Z (1)", (1, 0)), ("2", "Z (2)", (1,))):
        target, _ = bind(program, {"LM": MODEL}, Row({"X": x}, {}))
        assert [latent.name for latent in target.latents] == [name]
        assert target.text_latent(name).masks is not None
        state = {name: value}
        assert target.texts_of(state) == {"Z": "".join(WORDS[t] for t in value)}
        assert target.statistics(state) == {"n": len(value)}
        assert target.state_of(target.texts_of(state), target.tokens_of(state)) == state
        context = ids(" a" if x == "1" else " b")
        assert target.log_density([state]).total[0] == pytest.approx(log_text(context, value, 3 - int(x)))
    observed, _ = bind(program, {"LM": MODEL}, Row({"X": "2"}, {"Z": " b"}))
    assert observed.latents == ()
    assert observed.log_density([{}]).total[0] == pytest.approx(log_text(ids(" b"), ids(" b"), 1))
    nothing, _ = bind(program, {"LM": MODEL}, Row({"X": "3"}, {}))
    assert nothing.texts_of({}) == {"Z": None}
    assert nothing.log_density([{}]).total[0] == -math.inf  # nothing is true of what is not there


@pytest.mark.parametrize(
    ("text", "row", "message"),
    [
        (ARMS.replace("X == 2", "X > 0"), Row({"X": "1"}, {}), "defined on line 3 as well, and both hold in this row"),
        (ARMS, Row({"X": "3"}, {"Z": " b"}), "the row has a value of `Z`, which is not there in it"),
        (HEAD + LATENTS["arms"][0], Row({"X": "0"}, {"Z": " b"}), "it is not known of which definition"),
        (HEAD + LATENTS["text"][0], Row({"X": "0"}, {"K": " b", "Z": " b"}), "which is not there in it"),
    ],
)
def test_a_row_that_does_not_fit_its_branches_is_a_finding(text, row, message):
    with pytest.raises(LmpplError, match=message):
        bind(compiled(text), {"LM": MODEL}, row)


def test_a_value_of_a_row_tells_of_its_guard():
    """Z is there, so K is the option that it is there under; its prior is no part of the evidence's normaliser."""
    text, _, log_more = LATENTS["text"]
    row = run(compiled(HEAD + text), [Row({"X": "0"}, {"Z": " b"})], {"LM": MODEL}, Request("exact", {}, {}, 0)).rows[0]
    assert row["K"] == {" a": pytest.approx(1.0)}
    assert row.log_evidence == pytest.approx(log_option(ids(" a"), " a") + log_more(" a", tuple(ids(" b"))))


def answered(name, place, state):
    """p of each value of a latent, at its place in states, given the other latents: brute force."""
    _, every, log_more = LATENTS[name]
    others = state[:place], state[place + 1 :]
    alike = [one for one in every() if (one[:place], one[place + 1 :]) == others]
    log_density = np.array([log_option(ids(" a"), one[0]) + log_more(*one) for one in alike])
    mass = np.exp(log_density - np.logaddexp.reduce(log_density))
    return {one[place]: share for one, share in zip(alike, mass.tolist(), strict=True)}


PREDICTED = (
    'Y ~ LM(" a{K}") in [" a", "."] when K == " b"\nY ~ LM(" b") in [" b", ".", " a"] when K == " a"\n'
    'Z ~ LM("{Y}") max 1\nobserve " b" ~ LM(" a{Y}{Z}")\npredict Y\n'
)
LATENTS["predicted"] = (  # after the cases: engines are held to the law of "choice arms"
    PREDICTED,
    lambda: [(k, y, z) for k in (" a", " b") for y in ([" a", "."] if k == " b" else [" b", ".", " a"])
             for z in texts(1)],
    lambda k, y, z: (log_option([*ids(" a"), *ids(k)], y, (" a", ".")) if k == " b"
                     else log_option(ids(" b"), y, (" b", ".", " a")))
    + log_text([END, *ids(y)], z, 1) + log_prob([*ids(" a"), *ids(y), *z], ids(" b")),
)  # fmt: skip


@pytest.mark.parametrize("name", ["predicted", "choice arms"])
def test_a_prediction_of_arms_averages_what_each_arm_says(name):
    expected, _ = law_of_latents(name)
    program = compiled(HEAD.replace("given X\n", "") + LATENTS[name][0])
    exact = run(program, [Row({}, {})], {"LM": MODEL}, Request("exact", {}, {}, 0)).rows[0]
    marginal = {}
    for (_, y, *_), share in expected.items():
        marginal[y] = marginal.get(y, 0.0) + share
    assert exact.predictions["Y"] == pytest.approx(marginal, abs=1e-6)
    row = run(program, [Row({}, {})], {"LM": MODEL}, Request("importance", {"num_samples": 40}, {}, 3)).rows[0]
    averaged = {}
    for draw, weight in zip(row.draws, row.weights, strict=True):
        values = [*draw.values.values()]
        z = None if values[2] is None else tuple(draw.tokens["Z"])
        for y, share in answered(name, 1, (values[0], values[1], z)).items():
            averaged[y] = averaged.get(y, 0.0) + weight * share
    assert row.predictions["Y"] == pytest.approx(averaged, abs=1e-9)
    assert row.predictions["Y"].conditional_entropy is not None


def test_a_prediction_of_an_arm_that_need_not_be_there():
    """The probability of its values, and that there is none, add up to one."""
    text = 'Y ~ LM(" a") in [" a", "."] when K == " b"\nZ ~ LM("{Y}") max 1\npredict Y\n'
    program = compiled(HEAD.replace("given X\n", "") + text)
    for engine in ("exact", "importance"):
        row = run(program, [Row({}, {})], {"LM": MODEL}, Request(engine, {"num_samples": 60}, {}, 3)).rows[0]
        found = row.predictions["Y"]
        present = sum(weight for draw, weight in zip(row.draws, row.weights, strict=True) if draw.values["K"] == " b")
        if engine == "importance":
            assert found.absent.value == pytest.approx(1 - present)
        assert sum(found.values()) + found.absent.value == pytest.approx(1)
        option = math.exp(log_option(ids(" a"), " a", (" a", ".")))
        assert found[" a"] / sum(found.values()) == pytest.approx(option, abs=0.2)


def test_a_statistic_is_of_the_draws_where_its_guard_holds():
    program = compiled(HEAD + 'Z ~ LM("{K}") max 2 tokens\nstatistic n = tokens(Z) when K == " a"\n')
    request = Request("exact", {"chains": 1, "num_samples": 50}, {}, 1)
    row = run(program, [Row({"X": "0"}, {})], {"LM": MODEL}, request).rows[0]
    for draw in row.draws:
        assert math.isnan(draw.statistics["n"]) == (draw.values["K"] == " b")
    assert any('(`when K == " a"` does not hold)' in warning for warning in row.warnings)


# --- what learns ---------------------------------------------------------------------------------

LEARNED = (
    'lm LM = "tiny"\nK ~ LM(" a b") in [" a", " b"]\nZ ~ LM("{K}") max 2 tokens when K == " a"\n'
    'Y ~ LM(" b{Z}") in [" a", "."] when K == " b"\nobserve " b" ~ LM(" a{Z}{Y}")\n'
)


@pytest.fixture(scope="module")
def learning():
    """A target whose latents come and go, and a policy of it."""
    target, _ = bind(compiled(LEARNED), {"LM": tiny.model(seed=6)}, Row({}, {}))
    names = frozenset(latent.name for latent in target.latents)
    policy = Policy(adapter.add(_base(target, names), rank=4, alpha=8, targets="all-linear", seed=0), names)
    yield target, policy
    policy.adapter.remove()


@pytest.mark.parametrize("some", [slice(None), slice(0, 1), slice(-2, None)], ids=["all", "Z is there", "Y is there"])
def test_a_policy_decides_on_what_is_there(learning, some):
    """With gradients and without, and whatever a batch holds; nothing is decided on what is not there."""
    target, policy = learning
    states = list(enumerate_states(target, target.latents, {}))[some]
    opened = policy.open([target])
    decided = policy.decisions([Wanted(target, states)], opened)[0].log_q
    traced = policy.trace(target, states)
    np.testing.assert_allclose(decided.detach().double().sum(1), traced.total, atol=1e-4)
    absent = [target.text_latent("Z").is_absent(state["Z"]) for state in states]
    assert [len(row) == 0 for row in traced.log_q["Z"]] == absent
    decided.sum().backward()


def test_a_policy_learns_a_program_whose_latents_come_and_go():
    request = Request("gflownet", {"chains": 1, "num_samples": 200}, {"steps": 2, "draws": 8}, 3)
    row = run(compiled(LEARNED), [Row({}, {})], {"LM": tiny.model(seed=6)}, request).rows[0]
    for draw in row.draws:
        assert (draw.values["Z"] is None) == (draw.values["K"] == " b")
        assert (draw.values["Y"] is None) == (draw.values["K"] == " a")
    exact = run(compiled(LEARNED), [Row({}, {})], {"LM": tiny.model(seed=6)}, Request("exact", {}, {}, 0)).rows[0]
    assert row.log_evidence == pytest.approx(exact.log_evidence, abs=5 * row.log_evidence_se + 1e-3)


def test_what_a_model_learns_from_is_the_density_of_what_is_there(learning):
    """The M-step's objective is the log density, whose entries ask nothing of latents that are not there."""
    target, _ = learning
    states = list(enumerate_states(target, target.latents, {}))
    case = Case(target, states, np.full(len(states), 1 / len(states)))
    asked, base = learnable(case, "LM"), target.models["LM"]
    joint = log_joints([asked], base, base.open_prompts([piece.prompt for piece in asked.pieces]))[0]
    np.testing.assert_allclose(joint.detach(), target.log_density(states).total, atol=1e-4)


# --- other ways to look, and what people see -----------------------------------------------------


@pytest.mark.parametrize("name", ["text", "until"])
def test_a_search_certifies_texts_that_need_not_be_there(name):
    expected, evidence = law_of_latents(name)
    program = compiled(HEAD.replace("given X\n", "") + LATENTS[name][0])
    options = {"max_states": 0, "tolerance": 0.02}
    row = run(program, [Row({}, {})], {"LM": MODEL}, Request("exact", {}, options, 0)).rows[0]
    assert row.diagnostics.method == "best-first search"
    low, high = row.diagnostics.log_evidence_interval
    assert low - 1e-9 <= evidence <= high + 1e-9
    found = {tuple(state.values.values()): state.probability for state in row.support}
    assert total_variation(expected, found) <= row.diagnostics.total_variation_bound + 1e-9


@pytest.mark.parametrize("method", ["sample", "nucleus", "greedy", "beam"])
def test_prompting_writes_what_is_there(method):
    program = compiled(HEAD.replace("given X\n", "") + LATENTS["choices"][0])
    request = Request("prompting", {"chains": 1, "num_samples": 20}, {"method": method, "beams": 2}, 0)
    for draw in run(program, [Row({}, {})], {"LM": MODEL}, request).rows[0].draws:
        assert (draw.values["Y"] is None) == (draw.values["K"] == " a")
        assert (draw.values["Z"] is None) == (draw.values["Y"] == ".")
        assert math.isfinite(draw.log_density)


def test_people_see_that_a_latent_is_absent(tmp_path):
    program = compiled(HEAD.replace("given X\n", "") + LATENTS["choices"][0] + "predict Y\n")
    posterior = run(program, [Row({}, {})], {"LM": MODEL}, Request("exact", {"chains": 2, "num_samples": 20}, {}, 0))
    (row,) = posterior.rows
    expected, _ = law_of_latents("choices")
    gone = sum(share for (_, y, _, _), share in expected.items() if y is None)
    assert row["Y"][None] == pytest.approx(gone)
    assert {value["values"]["Y"] for value in posterior.document()["rows"][0]["support"]} == {None, " a", "."}
    assert "(absent)" in posterior._repr_html_()
    console = Console(width=100, record=True)
    show_posterior(posterior, console)
    assert "(absent)" in console.export_text()
    posterior.save(tmp_path / "run")
    again = load(tmp_path / "run")
    assert again.rows[0]["Y"] == row["Y"]
    assert None in table([Run(posterior)])["Y"]
    codes = groups(posterior, 0, row)["posterior"]["Y"]
    assert set(np.unique(codes)) <= {-1, 0, 1}
    assert (codes.to_numpy().ravel() == -1).tolist() == [draw.values["Y"] is None for draw in row.draws]


def test_a_comparison_that_no_option_meets_is_warned_of_in_a_guard():
    analysis = analyse(Source("a", HEAD + 'Z ~ LM("{K}{X}") max 2 tokens when K == " c"\nobserve "." ~ LM(Z)\n'), ".")
    assert [finding.code for finding in analysis.findings] == ["never-equal"]


def test_rewards_of_prefixes_sum_over_choices_that_need_not_be_there():
    program = compiled(
        'lm LM = "toy"\nZ ~ LM(" a") max 2 tokens\nK ~ LM("{Z}") in [" a", " b"]\n'
        'Y ~ LM(" a{Z}") in [" a", "."] when K == " b"\nobserve " b" ~ LM("{Y}{Z}")\n'
    )
    target, _ = bind(program, {"LM": MODEL}, Row({}, {}))
    states = list(enumerate_states(target, target.latents, {}))
    density = target.log_density(states).total
    some = next(state for state in states if state["Z"] == (0, 1))
    (rewards,) = prefix_log_density(target, "Z", [some], ("K", "Y"))
    for length, total in enumerate(rewards.total):
        same = [i for i, state in enumerate(states) if state["Z"] == (0, 1)[:length]]
        assert total == pytest.approx(np.logaddexp.reduce(density[same]))
