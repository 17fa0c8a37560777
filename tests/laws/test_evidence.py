"""Intervals for log evidence from replicates cover the truth as often as they say."""

import functools
import itertools

import grid
import numpy as np
import pytest
import tiny
from test_samplers import truth

from lmppl.compile import compile as compile_program
from lmppl.data.rows import Row
from lmppl.engines.resampling import replicate_evidence
from lmppl.posterior.answer import evidence_interval
from lmppl.run import Request, run

GROUPS, REPLICATES = 300, 4
CASES = {
    "annealed": (("tempered", "free", "observe"), {"particles": 24, "waste_free": 4, "search": 0}),
    "smc": (("plain", "until", "grammar"), {"particles": 24}),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", CASES)
def test_intervals_cover_the_truth(engine):
    cell, options = CASES[engine]
    models = grid.models()
    _, evidence = truth(cell, models)
    request = Request(engine, {"chains": GROUPS * REPLICATES, "num_samples": 1}, options, 5, 2048)
    row = run(grid.program(*cell), [Row({}, {})], grid.used_models(cell, models), request).rows[0]
    logs = np.array(row.diagnostics.log_evidence_by_replicate).reshape(GROUPS, REPLICATES)
    covered = 0
    for group in logs:
        _, _, (low, high) = replicate_evidence(group)
        covered += (low is None or low <= evidence) and evidence <= high
    assert 0.90 <= covered / GROUPS <= 0.99


WORDS = (" cat", " bat", "cat", "bat", " b", " c", "at", ".", "x", "\n")  # of byte pairs, as in Gemma
CATS = 'lm LM = "tiny"\nZ ~ LM("a cat") max 6 tokens\nconstrain matches(Z, /( ?(cat|bat)){1,2}\\./)\n'


def ways(words, text):
    """Every way to write a text in tokens."""
    if not text:
        yield ()
    for word, token in words.items():
        if text.startswith(word):
            yield from ((token, *rest) for rest in ways(words, text[len(word) :]))


@pytest.fixture(scope="module")
def cats():
    """A model of that kind; and, by enumeration, the law of its texts that meet the pattern, with its log evidence."""
    model = tiny.model(seed=3, scale=1.2, chosen=tiny.sentencepiece(WORDS, "gemma"))
    words = {name.replace("▁", " "): token for name, token in model.tokenizer.get_vocab().items() if name != tiny.END}
    context = model.begin(model.encode("a cat", markers=True))
    law = functools.cache(functools.partial(tiny.reference_law, model))
    masses = {}
    animals = [space + animal for space in ("", " ") for animal in ("cat", "bat")]
    for text in ("".join(some) + "." for n in (1, 2) for some in itertools.product(animals, repeat=n)):
        for tokens in (way for way in ways(words, text) if len(way) <= 6):
            scored = (*tokens, model.end)[:6]  # a text of all its tokens is cut, and has no end
            total = sum(float(law((*context, *scored[:t]))[token]) for t, token in enumerate(scored))
            masses[text] = np.logaddexp(masses.get(text, -np.inf), total)
    evidence = np.logaddexp.reduce(list(masses.values()))
    return model, {text: np.exp(mass - evidence) for text, mass in masses.items()}, evidence


def asked(model, engine, seed=0, **options):
    request = Request(engine, {"chains": 4, "num_samples": 100}, options, seed, 512)
    return run(compile_program(CATS).program, [Row({}, {})], {"LM": model}, request).rows[0]


def test_a_rare_pattern_has_its_exact_evidence_under_a_tokenizer_of_pieces(cats):
    model, law, evidence = cats
    row = asked(model, "exact")
    assert evidence < -8
    assert row.log_evidence == pytest.approx(evidence, abs=1e-4)
    assert row.probabilities("Z") == pytest.approx(law, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "seeds", "options"),
    [("importance", 8, {}), ("smc", 8, {}), ("annealed", 4, {"particles": 64, "search": 0})],
)
def test_a_rare_pattern_has_its_evidence_within_what_is_claimed(cats, engine, seeds, options):
    """What lies outside its interval of 95 % does not pass; and over some seeds evidence is right in the mean."""
    model, _, evidence = cats
    ratios = []
    for seed in range(seeds):
        row = asked(model, engine, seed, **options)
        two = 2 * row.log_evidence_se
        low, high = evidence_interval(row) or (row.log_evidence - two, row.log_evidence + two)
        inside = (low is None or low <= evidence) and evidence <= high
        assert inside or row.verdict != "pass"
        ratios.append(np.exp(row.log_evidence - evidence))
    assert np.mean(ratios) == pytest.approx(1, abs=0.2)


def test_particles_that_died_at_an_earlier_latent_stay_dead():
    """Beside them others go on: their weights are numbers, and so is the evidence, where any of them lives."""
    cell = ("plain", "until", "two texts")
    models = grid.models()
    alive = 0
    for seed in range(4):
        request = Request("smc", {"chains": 1, "num_samples": 1}, {"particles": 5}, seed)
        row = run(grid.program(*cell), [Row({}, {})], grid.used_models(cell, models), request).rows[0]
        alive += row.log_evidence is not None and np.isfinite(row.log_evidence)
    assert alive >= 3
