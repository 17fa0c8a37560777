"""Small languages are enumerated whatever the vocabulary; what cannot end in time is refused with figures."""

import itertools
import re
from unittest import mock

import numpy as np
import pytest
import tiny

import lmppl
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.masks import Masks
from lmppl.decoding.randomness import Randomness
from lmppl.density.binding import bind
from lmppl.density.kinds.listing import INNER
from lmppl.engines import exact, rejection
from lmppl.engines.hope import outlook
from lmppl.engines.search import Search
from lmppl.errors import LmpplError
from lmppl.run import Request, run
from lmppl.source import Source

WORDS = (" a", " b", " a b", ".")  # " a b" is one token, or two
SMALL = 'lm LM = "unused"\nZ ~ LM(" b a"){} max 64 tokens\nconstrain matches(Z, /( a| b){{1,2}}\\./)\n'
LARGE = 'lm LM = "unused"\nZ ~ LM(" b a") max 64 tokens\nconstrain matches(Z, /( a| b){1,7}\\./)\n'
FREE = 'lm LM = "unused"\nZ ~ LM(" b a")^{} max 64 tokens\n'


def infer(text, model, engine="exact", **request):
    return run(lmppl.compile(text).program, [Row({}, {})], {"LM": model}, Request(engine, **request))


def refusal(text, model, engine="exact", **request):
    with pytest.raises(LmpplError) as caught:
        infer(text, model, engine, **request)
    (finding,) = caught.value.diagnostics
    return finding


def brute(model, most, pattern, power=1.0):
    """Text → log density, over all token sequences, each ended by the end token."""
    context, found = model.encode(" b a", markers=True), {}
    for length in range(1, most + 1):
        for tokens in itertools.product(range(len(WORDS)), repeat=length):
            text = model.decode(tokens)
            if re.fullmatch(pattern, text):
                value = power * tiny.reference_log_prob(model, context, (*tokens, model.end))
                found[text] = np.logaddexp(found.get(text, -np.inf), value)
    return found


@pytest.mark.parametrize("power", [1.0, 0.3])
@pytest.mark.parametrize("engine", ["exact", "auto"])
def test_a_finite_language_is_enumerated_with_every_tokenisation(engine, power):
    model = tiny.model(WORDS)
    posterior = infer(SMALL.format(f"^{power}"), model, engine, quick=True)
    truth = brute(model, 3, r"( a| b){1,2}\.", power)
    (row,) = posterior.rows
    assert posterior.engine == "exact"
    assert row.diagnostics.method == "enumeration"
    assert row.diagnostics.states == 7  # " a b." in two ways
    assert row.log_evidence == pytest.approx(np.logaddexp.reduce(list(truth.values())), abs=1e-5)
    law = {texts[0]: p for texts, p in row.joint().items()}
    assert law == pytest.approx({text: np.exp(v - row.log_evidence) for text, v in truth.items()}, abs=1e-5)


def test_a_larger_language_is_searched_under_its_masks():
    model = tiny.model(WORDS)
    (row,) = infer(LARGE, model).rows
    assert row.diagnostics.method == "best-first search"
    assert row.diagnostics.total_variation_bound <= 0.01
    program = lmppl.compile(LARGE).program
    target = bind(program, {"LM": model}, Row({}, {}), {})[0]
    states = exact.finite_states(target, 10_000)
    truth = float(np.logaddexp.reduce(target.log_density(states).total))
    low, high = row.diagnostics.log_evidence_interval
    assert low - 1e-5 <= truth <= high + 1e-5
    assert low < truth - 1e-9  # it has not looked at all of them
    assert len(states) > exact.LISTED


def test_more_states_than_asked_for_are_not_listed():
    program = lmppl.compile(SMALL.format("")).program
    target = bind(program, {"LM": tiny.model(WORDS)}, Row({}, {}), {})[0]
    assert len(exact.finite_states(target, 7)) == 7
    assert exact.finite_states(target, 6) is None


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (FREE.format(1), {"max_evaluations": 10**9}, "a search that holds 1 prefixes does not fit into memory"),
        (FREE.format(1).replace("64", "5"), {"max_states": 10**9}, "draws or particles of `exact` do not fit"),
    ],
)
def test_what_there_is_no_room_for_is_refused_before_memory_goes(monkeypatch, text, options, said):
    """Both are as many as they turn out to be, whatever the options allow."""
    one = {"settings": {"chains": 1, "num_samples": 1}, "options": options}
    monkeypatch.setattr("psutil.virtual_memory", lambda: mock.Mock(available=50_000))
    finding = refusal(text, tiny.model(WORDS), **one)
    assert finding.code == "too-many-draws"
    assert said in finding.message


def test_prefixes_that_lead_nowhere_are_not_followed_for_long(tmp_path, monkeypatch):
    text = 'lm LM = "unused"\nZ ~ LM(" b a") until "." max 12 tokens\nconstrain in_grammar(Z, "long.lark")\n'
    (tmp_path / "long.lark").write_text('start: (" a" | " b")~40 "."\n')  # its masks do not tell that it is too long
    program = analyse(Source("p.lm", text), tmp_path).program
    target = bind(program, {"LM": tiny.model((" a", " b", "."))}, Row({}, {}), {})[0]
    begun, start = [], Masks.start
    monkeypatch.setattr(Masks, "start", lambda masks, kept: begun.append(kept) or start(masks, kept))
    assert exact.finite_states(target, 16) is None
    assert 16 < len(begun) <= INNER * 16 + 1


@pytest.mark.parametrize("power", [1.0, 1.5, 3.0])
def test_a_search_needs_at_least_what_its_outlook_says(power):
    program = lmppl.compile(FREE.format(power)).program
    target = bind(program, {"LM": tiny.model(WORDS)}, Row({}, {}), {})[0]
    ahead = outlook(target, "Z", 0.1, Randomness(0, 0))
    search = Search(target)
    while search.total_variation() > 0.1 and search.evaluations < 3_000:
        search.step()
    assert ahead.prefixes <= 1.5 * search.evaluations  # the evidence is estimated
    assert ahead.prefixes > 0


def test_a_hopeless_search_is_refused_with_figures(monkeypatch):
    monkeypatch.setattr(exact, "SOON", 0.0)
    finding = refusal(FREE.format(1.0), tiny.model(WORDS, scale=0.3, seed=1))
    assert finding.code == "engine-cannot"
    found = re.search(
        r"after (\d+) prefixes in [\d.]+ s its search has a total variation bound of (0\.\d+); (\d+)% of the mass lies "
        r"under prefixes of at most [\de.-]+ each, so ([\d,]+) are needed at least, about [\d,]+ s",
        finding.message,
    )
    assert int(found[1]) <= exact.TRIAL + 64
    assert int(found[4].replace(",", "")) > 20_000


def test_scoring_too_many_states_is_refused_with_figures():
    text = FREE.format(1.0).replace("64", "6")
    finding = refusal(text, tiny.model(WORDS), options={"limit": 1e-6})
    assert re.search(r"scoring its [\d,]+ states would take about [\d,]+ s: 64 took [\d.]+ s", finding.message)
    assert infer(text.replace("6 tok", "4 tok"), tiny.model(WORDS), options={"limit": 1e-6}).rows  # in one block


def test_hopeless_rejection_is_refused_with_figures(monkeypatch):
    monkeypatch.setattr(rejection, "TRIAL_SECONDS", 0.0)
    text = FREE.format(1.0).replace("64", "4") + 'observe "' + " a b a b." * 4 + '" | Z\n'
    finding = refusal(text, tiny.model(WORDS), "rejection")
    assert finding.code == "hopeless-rejection"
    found = re.match(
        r"rejection accepted 0 of (\d+) proposals in [\d.]+ s, a share of about ([\de.-]+): 400 draws would take "
        r"[\d,]+ s more at the least",
        finding.message,
    )
    assert int(found[1]) == 64
    assert float(found[2]) < 1e-6


def test_rejection_that_has_a_chance_is_not_refused(monkeypatch):
    monkeypatch.setattr(rejection, "TRIAL_SECONDS", 0.0)
    text = FREE.format(1.0).replace("64", "4") + 'constrain contains(Z, "b")\n'
    (row,) = infer(text, tiny.model(WORDS), "rejection", settings={"num_samples": 20}).rows
    assert len(row.draws) == 80
