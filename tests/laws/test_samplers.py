"""Every engine draws from the posterior that brute force computes, on the whole grid."""

import grid
import numpy as np
import pytest
import quick

from lmppl.data.rows import Row
from lmppl.run import Request, run

ENGINES = {
    "exact": {"chains": 1, "num_samples": 1500},
    "importance": {"chains": 4, "num_samples": 500},
    "rejection": {"chains": 4, "num_samples": 100},
    "mcmc": {"chains": 400, "num_samples": 1, "num_warmup": 30},  # one draw a chain: they are independent
    "annealed": {"chains": 250, "num_samples": 1},
    "smc": {"chains": 120, "num_samples": 1},
}
SMALL = {"annealed": {"particles": 16, "search": 0}, "smc": {"particles": 24}}  # options of many small replicates
NOT_SEARCHED = ("factor", "two texts", "between", "derived text")  # no bound, or two texts
SEARCHABLE = [c for c in grid.CELLS if c[0] == "tempered" and c[2] not in NOT_SEARCHED]
THREE_SIGMA = 0.00135  # what a normal variable exceeds its mean by three standard deviations with
RARELY = [("tempered", "free", extra) for extra in ("between", "derived", "derived text")]
UNBOUNDED = {"flat", "product"}  # priors that rejection must refuse


@pytest.fixture(scope="module")
def models():
    return grid.models()


def truth(cell, models, form=None):
    """Posterior by brute force: values → probability, and log evidence. form: of the models' tokenizers."""
    reference = grid.Reference(cell, models, form)
    states = list(reference.states())
    log_density = np.array([reference.log_density(state) for state in states])
    evidence = np.logaddexp.reduce(log_density)
    options = (" a", " b a", ".")
    keys = [tuple(options[v] if isinstance(v, int) else reference.string(v) for v in s.values()) for s in states]
    law = {}
    for key, probability in zip(
        keys, np.exp(log_density - evidence), strict=True
    ):  # texts may be written in several ways
        law[key] = law.get(key, 0.0) + probability
    return law, float(evidence)


def total_variation(left, right):
    return 0.5 * sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in left.keys() | right.keys())


def largest_by_chance(law, size, rng, level):
    """The total variation that `size` exact draws exceed with probability `level`, by simulation."""
    probabilities = np.sort(list(law.values()))  # sorted, so that the simulation is always the same
    counts = rng.multinomial(int(size), probabilities / probabilities.sum(), size=5000)
    return np.quantile(0.5 * np.abs(counts / int(size) - probabilities).sum(1), 1 - level)


def marginal(law, of):
    result = {}
    for key, probability in law.items():
        result[of(key)] = result.get(of(key), 0.0) + probability
    return result


def histogram(row):
    """Values → share of the draws' mass."""
    shares = {}
    for values, weight in zip((tuple(d.values.values()) for d in row.draws), row.weights, strict=True):
        shares[values] = shares.get(values, 0.0) + weight
    return shares


def draw(cell, models, engine, again=0, **options):
    seed = 100 * list(ENGINES).index(engine) + grid.CELLS.index(cell) + again  # cells must not share their luck
    program = grid.program(*cell)
    used = grid.used_models(cell, models)
    if engine == "rejection" and cell[0] == "tempered":
        options = {"temperature": 0.4, **options}  # 1/power: accepts most
    options = {**SMALL.get(engine, {}), **options}
    settings = ENGINES[engine] | (FEWER.get(engine, {}) if cell in CHEAP else {})
    if engine == "rejection" and cell in RARELY:  # one proposal in a thousand, or in seventy, is accepted
        settings, options = {**settings, "num_samples": 20}, {"max_proposals": 100_000, **options}
    request = Request(engine, settings, options, seed, batch_size=512)
    return run(program, [Row({}, {})], used, request).rows[0]


def check_law(cell, models, engine, form=None, **options):
    """Raises AssertionError where an engine's draws or evidence are not those of the posterior."""
    law, evidence = truth(cell, models, form)
    row = draw(cell, models, engine, **options)
    shares = histogram(row)
    size = 1 / (row.weights**2).sum() if engine == "importance" else len(row.draws)
    rng = np.random.default_rng(0)
    views = [  # marginals see what a histogram of many texts cannot; they are many, hence a lower level
        (lambda key: key, THREE_SIGMA),
        (lambda key: len(key[0].split()) + key[0].count("."), THREE_SIGMA / 4),
        (lambda key: key[0][:2], THREE_SIGMA / 4),
    ]
    for of, level in views:
        expected, found = marginal(law, of), marginal(shares, of)
        assert total_variation(expected, found) < largest_by_chance(expected, size, rng, level) + 1e-3
    if row.log_evidence is not None:
        assert abs(row.log_evidence - evidence) < 4 * row.log_evidence_se + 1e-3
    return row


HARD = [("tempered", "until", "nothing"), ("tempered", "free", "observe"), ("plain", "until", "choice")]
CHEAP = [("tempered", "cut", "nothing")]
FEWER = {"mcmc": {"chains": 100, "num_warmup": 10}, "annealed": {"chains": 60}, "smc": {"chains": 40}}  # of it
DRAWN = [*HARD[:1], ("plain", "cut", "choice"), ("plain", "free", "factor"), *(
    ("plain", "until", extra) for extra in ("regex", "tool")), ("tempered", "free", "json")]  # fmt: skip
QUICK = {  # cells that are no slow tests
    "exact": HARD[:1], "importance": DRAWN, "rejection": CHEAP, "mcmc": CHEAP, "annealed": CHEAP, "smc": CHEAP,
}  # fmt: skip


def marked(engine, cell):
    """A cell of the grid for an engine; those that take seconds are marked, but for a few."""
    return pytest.param(
        engine, cell, id="-".join((engine, *cell)), marks=() if cell in QUICK.get(engine, ()) else pytest.mark.slow
    )


@pytest.mark.parametrize(("engine", "cell"), [marked(engine, cell) for engine in ENGINES for cell in grid.CELLS])
def test_draws_follow_the_posterior(engine, cell, models):
    if engine == "rejection" and cell[0] in UNBOUNDED:
        with pytest.raises(Exception, match="cannot run this program"):
            draw(cell, models, engine)
        return
    try:
        check_law(cell, models, engine)
    except AssertionError:  # of a thousand levels at three sigma, one is missed by chance: an error is missed twice
        check_law(cell, models, engine, again=10_000)


@pytest.mark.parametrize("cell", quick.marked(grid.CELLS, grid.LENGTHY))
def test_exact_support_is_brute_force(cell, models):
    law, evidence = truth(cell, models)
    row = draw(cell, models, "exact")
    assert abs(row.log_evidence - evidence) < 1e-4
    assert row.log_evidence_se == 0
    found = {tuple(state.values.values()): state.probability for state in row.support}
    assert total_variation(law, found) < 1e-4


@pytest.mark.parametrize("cell", quick.marked(SEARCHABLE))
def test_best_first_search_certifies(cell, models):
    law, evidence = truth(cell, models)
    row = draw(cell, models, "exact", max_states=0, tolerance=0.02)
    low, high = row.diagnostics.log_evidence_interval
    assert low - 1e-4 <= evidence <= high + 1e-4
    bound = row.diagnostics.total_variation_bound
    assert bound <= 0.02
    found = {tuple(state.values.values()): state.probability for state in row.support}
    assert total_variation(law, found) <= bound + 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["nothing", "constraint", "observe", "choice", "regex"])
def test_annealed_with_the_finds_of_a_short_search(extra, models):
    """What a search found in part is half of the start: the other half still reaches the rest."""
    options = {"search": 6, "restarts": 0.4}
    try:
        check_law(("tempered", "free", extra), models, "annealed", **options)
    except AssertionError:
        check_law(("tempered", "free", extra), models, "annealed", again=10_000, **options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"search": 0}], ids=["default", "without search"])
def test_annealed_is_close_at_few_tokens(options, models, monkeypatch):
    """Power 4, free ending: total variation at most .03, over some seeds, at no more than 500 tokens a draw."""
    monkeypatch.setitem(grid.PRIORS, "tempered", [("LM", " a b", 4.0)])
    cell = ("tempered", "free", "nothing")
    law, _ = truth(cell, models)
    distances = []
    for seed in range(8):
        request = Request("annealed", {}, options, seed, batch_size=512)
        posterior = run(grid.program(*cell), [Row({}, {})], {"LM": models["LM"]}, request)
        row, cost = posterior.rows[0], posterior.cost
        distances.append(total_variation(law, histogram(row)))
        assert cost["tokens_decoded"] + cost["tokens_scored"] <= 500 * len(row.draws)
    assert np.mean(distances) <= 0.03


def test_search_refuses_what_it_cannot_bound(models):
    with pytest.raises(Exception, match="negative power"):
        draw(("product", "free", "nothing"), models, "exact", max_states=0)


@pytest.mark.slow
def test_one_seed_gives_the_same_draws(models):
    """Whatever the batch size; and another chain leaves the others as they were."""
    cell = ("tempered", "free", "observe")
    program = grid.program(*cell)

    def draws(engine, batch_size, chains, num_samples):
        settings = {"chains": chains, "num_samples": num_samples, "num_warmup": 3}
        request = Request(engine, settings, {}, 11, batch_size)
        row = run(program, [Row({}, {})], {"LM": models["LM"]}, request).rows[0]
        return {(draw.chain, draw.draw): draw.values["Z"] for draw in row.draws}

    for engine in ("importance", "rejection", "mcmc", "prompting", "exact", "annealed", "smc"):
        first = draws(engine, 64, 3, 12)
        assert first == draws(engine, 5, 3, 12), engine
        more = draws(engine, 64, 4, 12)
        assert {key: value for key, value in more.items() if key[0] < 3} == first, engine
        assert len(set(first.values())) > 1
