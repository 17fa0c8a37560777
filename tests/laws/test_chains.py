"""Options of the chains and particles: parallel tempering, coupled pairs, boundaries to resample at."""

import numpy as np
import pytest
import tiny
from test_samplers import check_law, draw, histogram, models, total_variation, truth  # noqa: F401

import lmppl
from lmppl.data.rows import Row
from lmppl.diagnosis.levels import COUPLING
from lmppl.engines.mcmc_kernel.coupling import Meetings
from lmppl.engines.mcmc_kernel.tempering import Sweep, followed, inverse_temperatures, origins
from lmppl.report.page.rows import is_chain, ranks, traces
from lmppl.run import Request, run

STICKY = {"restarts": 0.0, "temperatures": "1"}  # chains that take long to forget where they began


def test_rungs_go_evenly_from_the_start_to_the_posterior():
    assert inverse_temperatures(1) == (1.0,)
    assert inverse_temperatures(3) == (0.0, 0.5, 1.0)


def test_a_state_is_followed_through_the_rungs():
    """One chain, three rungs: a new draw at the bottom reaches the top by two exchanges."""
    nothing = np.zeros((3, 1), dtype=bool)

    def swept(fresh, swapped):
        return Sweep([], nothing[0], np.array(fresh)[:, None], np.array(swapped)[:, None], np.ones(2, dtype=bool))

    first = origins(3, 1)
    assert first[:, 0].tolist() == [0, 1, 2]
    drawn = followed(first, swept([True, False, False], [True, False]))
    assert drawn[:, 0].tolist() == [1, 3, 2]  # a new number, exchanged with the rung above
    arrived = followed(drawn, swept([False, False, False], [False, True]))
    assert arrived[:, 0].tolist() == [1, 2, 3]
    assert followed(arrived, swept([True, True, False], [False, False]))[:, 0].tolist() == [4, 5, 3]


def test_tempered_chains_tell_of_fresh_starts_and_are_drawn_as_chains():
    program = lmppl.compile('lm LM = "tiny"\nZ ~ LM(" a")^2 until "." max 4\n').program
    how = Request("mcmc", {"num_samples": 60, "num_warmup": 5, "chains": 2}, {"levels": 3}, 1)
    row = run(program, [Row({}, {})], {"LM": tiny.model()}, how).rows[0]
    assert 0 < row.diagnostics.fresh_starts <= 2 * 60
    found = {check.name: check for check in row.checks}
    assert found["fresh_starts"].value == row.diagnostics.fresh_starts
    assert is_chain(row)  # the page shows their traces and ranks
    assert len(traces(row)) == len(ranks(row)) == 2
    assert sum(map(sum, ranks(row))) == len(row.draws)


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["nothing", "constraint", "observe", "choice", "two texts"])
def test_tempered_chains_follow_the_posterior(extra, models):  # noqa: F811
    cell = ("tempered", "free", extra)
    try:
        row = check_law(cell, models, "mcmc", levels=3)
    except AssertionError:
        row = check_law(cell, models, "mcmc", again=10_000, levels=3)
    first, second = row.diagnostics.swaps  # one step was kept, in which one pair of rungs was asked
    assert 0 < first + second <= 1


@pytest.mark.slow
def test_an_exchange_at_the_wrong_ratio_is_caught(models, monkeypatch):  # noqa: F811
    """Neighbours that always exchange their states bring the warmer rung's law to the posterior's."""
    cell = ("tempered", "free", "nothing")
    monkeypatch.setattr("lmppl.engines.mcmc_kernel.tempering.np.log1p", lambda value: -np.inf)
    with pytest.raises(AssertionError):
        check_law(cell, models, "mcmc", levels=2)


@pytest.mark.slow
def test_the_bound_of_coupled_pairs_holds(models):  # noqa: F811
    """Chains after a few steps are no farther from the posterior than pairs say, and the bound is not idle."""
    cell = ("tempered", "free", "observe")
    law, _ = truth(cell, models)
    bounds = []
    for warmup in (0, 4, 60):
        settings = {"lag": 5, "pairs": 60, **STICKY}
        row = draw_after(cell, models, warmup, settings)
        distance = total_variation(law, histogram(row))
        bound = row.diagnostics.coupling.total_variation_after_warmup
        noise = 0.5 * np.sqrt(len(law) / len(row.draws)) + 3 / np.sqrt(60)
        assert distance <= bound + noise
        bounds.append(bound)
    assert bounds[0] > bounds[1] > bounds[2]
    assert bounds[2] < 0.05


def draw_after(cell, models, warmup, options):  # noqa: F811
    from test_samplers import ENGINES

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "mcmc", {"chains": 300, "num_samples": 1, "num_warmup": warmup})
        return draw(cell, models, "mcmc", **options)


def test_pairs_that_never_meet_are_said_to(models):  # noqa: F811
    assert Meetings(5, (7, None)).bound(0) is None
    assert Meetings(5, (7, 21)).bound(0) == np.mean([1, 4])
    assert Meetings(5, (7, 21)).bound(10) == np.mean([0, 2])
    row = draw_after(("tempered", "free", "nothing"), models, 0, {"lag": 1, "pairs": 40, **STICKY})
    check = next(check for check in row.checks if check.name == "coupling")
    assert check.status in ("fail", "warn")
    assert check.threshold in COUPLING


def test_bad_options_are_named(models):  # noqa: F811
    cell = ("tempered", "free", "nothing")
    for options, expected in (({"levels": 0}, "levels"), ({"lag": -1}, "lag"), ({"lag": 5, "levels": 2}, "lag")):
        with pytest.raises(Exception, match=expected):
            draw(cell, models, "mcmc", **options)


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["token", "latent"])
@pytest.mark.parametrize("extra", ["two texts", "between", "choice"])
def test_token_smc_resamples_at_boundaries(extra, boundary, models):  # noqa: F811
    """Between latents all particles are compared, with what is known so far in their weights."""
    cell = ("tempered", "free", extra)
    options = {"boundary": boundary, "ess": 0.9}
    try:
        row = check_law(cell, models, "smc", **options)
    except AssertionError:
        row = check_law(cell, models, "smc", again=10_000, **options)
    assert sum(row.diagnostics.resamplings) > 0


def test_an_unknown_boundary_is_named(models):  # noqa: F811
    with pytest.raises(Exception, match="boundary"):
        draw(("tempered", "free", "nothing"), models, "smc", boundary="until")


@pytest.mark.slow
def test_chains_that_miss_the_mode_do_not_pass(models):  # noqa: F811
    """All mass but e^-10 is in one text, which is hardly ever proposed; dispersed chains all end elsewhere."""
    text = 'lm LM = "tiny"\nZ ~ LM(" a b") max 8 tokens\nfactor 8 * count(Z, " a") + 90 * count(Z, "{}")\n'
    program = lmppl.compile(text.format(" b" * 8)).program
    request = Request("mcmc", {"num_samples": 150, "num_warmup": 100}, {}, 5)
    row = run(program, [Row({}, {})], {"LM": models["LM"]}, request).rows[0]
    assert all(draw.values["Z"] != " b" * 8 for draw in row.draws)
    assert row.verdict != "pass"
    assert {check.name: check.status for check in row.checks}["fresh_starts"] == "warn"
