"""The same laws under tokenizers of the SentencePiece kind, with their masks: a space is a token, or a part of one."""

import grid
import pytest
from quick import covered
from test_samplers import check_law, draw, total_variation, truth

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


@pytest.mark.parametrize("form", FORMS, indirect=True)
@pytest.mark.parametrize(
    ("engine", "cell"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in LENGTHY)]
)
def test_draws_follow_the_posterior(engine, cell, form, models):
    try:
        check_law(cell, models, engine, form)
    except AssertionError:  # an error is missed twice
        check_law(cell, models, engine, form, again=10_000)
