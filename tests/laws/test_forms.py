"""The same laws under tokenizers of the SentencePiece kind, with their masks: a space is a token, or a part of one."""

import grid
import pytest
from quick import covered
from test_samplers import check_law, draw, total_variation, truth

from lmppl.compile import compile
from lmppl.data.rows import Row
from lmppl.density.binding import bind
from lmppl.run import Request, run

FORMS = ("llama", "gemma", "metaspace")
CELLS = [
    ("tempered", "until", "nothing"),
    ("product", "until", "nothing"),
    ("plain", "until", "constraint"),
    ("tempered", "until", "observe"),
    ("tempered", "until", "choice"),
    ("plain", "until", "regex"),
    ("tempered", "free", "regex"),
    ("plain", "until", "grammar"),
    ("tempered", "free", "json"),
    ("plain", "until", "tool"),
]
MASKED = [cell for cell in CELLS if cell[2] in ("constraint", "regex", "grammar", "json")]
GRID = covered((form, *cell) for form in FORMS for cell in CELLS)
QUICK = [("importance", ("plain", "until", "regex"))]
LENGTHY = [
    *(("importance", cell) for cell in MASKED if cell[2] != "regex"),
    *(("smc", cell) for cell in MASKED),
    *((engine, MASKED[0]) for engine in ("annealed", "mcmc", "rejection")),  # 30 moves of `mcmc` are few for others
]


@pytest.fixture(scope="module")
def form(request):
    return request.param


@pytest.fixture(scope="module")
def models(form):
    return grid.models(form)


@pytest.mark.parametrize(("form", "prior", "ending", "extra"), GRID, indirect=["form"])
def test_exact_support_is_brute_force(form, prior, ending, extra, models):
    cell = (prior, ending, extra)
    law, evidence = truth(cell, models, form)
    row = draw(cell, models, "exact")
    assert abs(row.log_evidence - evidence) < 1e-4
    found = {}
    for state in row.support:  # a text may be written in several ways
        key = tuple(state.values.values())
        found[key] = found.get(key, 0.0) + state.probability
    assert total_variation(law, found) < 1e-4


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("cell", MASKED, ids="-".join)
def test_there_are_masks(cell, models):
    masks = grid.target(cell, models).text_latent("Z").masks
    assert masks is not None
    assert not masks.start([()]).allowed().all()


AHEAD = 'lm LM = "tiny"\nZ ~ LM(" a b"){power} {ending}\nconstrain {words}\n'
WORDS = {  # a space is a token, or a part of one; words go across tokens
    "free": ("", "max 4 tokens", 'contains(Z, "b a") and count(Z, "b") >= 2'),
    "until": ("^1.5", 'until "." max 4 tokens', 'contains(Z, "a b")'),
}


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize("case", WORDS)
def test_looking_ahead_finds_the_evidence(case, form, models):
    """That of `exact`, which knows no looking ahead."""
    power, ending, words = WORDS[case]
    program = compile(AHEAD.format(power=power, ending=ending, words=words)).program
    target, _ = bind(program, {"LM": models["LM"]}, Row({}, {}))
    assert target.text_latent("Z").looks_ahead
    exact = run(program, [Row({}, {})], models, Request("exact", {}, {}, 0)).rows[0].log_evidence
    request = Request("smc", {"chains": 24, "num_samples": 1}, {"particles": 24}, 5, batch_size=512)
    row = run(program, [Row({}, {})], models, request).rows[0]
    assert abs(row.log_evidence - exact) < 4 * row.log_evidence_se + 1e-3
    assert row.log_evidence_se < 0.5


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize(
    ("engine", "cell"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in LENGTHY)]
)
def test_draws_follow_the_posterior(engine, cell, form, models):
    try:
        check_law(cell, models, engine, form)
    except AssertionError:  # an error is missed twice
        check_law(cell, models, engine, form, again=10_000)
