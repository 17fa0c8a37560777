"""What a run would hold at once is estimated from every setting and option that multiplies it, and refused in time."""

import json
import time

import pytest
from test_cli import here, lmppl, write  # noqa: F401  (here is a fixture)

from lmppl.engines.contract import Settings
from lmppl.engines.table import engine
from lmppl.run.memory import texts_held

FEW = Settings(chains=2, num_samples=3)


@pytest.mark.parametrize(
    ("name", "asked", "more"),
    [
        ("annealed", {"particles": 1000}, 2 * (1000 - 3)),
        ("smc", {"particles": 1000}, 2 * (1000 - 3)),
        ("genlm_control", {"particles": 1000}, 2 * (1000 - 3)),
        ("mcmc", {"levels": 50}, 2 * (50 - 1)),
        ("mcmc", {"pairs": 50, "lag": 1}, 100),
        ("prompting", {"beams": 50}, 50 - 8),
        ("gflownet", {"draws": 100, "rows": 10}, 100 * 10 - 16 * 4),
        ("gflownet", {"buffer": 1000}, 1000 - 64),
        ("gflownet", {"seed_draws": 1000}, 2 * (1000 - 3)),
        ("ppo", {"draws": 100, "rows": 10}, 100 * 10 - 16 * 4),
        ("mcmc", {"init_draws": 10**9}, 0),  # of those that are impossible, a few are kept
        ("exact", {"max_evaluations": 10**9}, 0),  # a search looks at what is free as it grows
    ],
)
def test_every_option_that_multiplies_is_counted(name, asked, more):
    options = engine(name).options
    assert texts_held(FEW, options(**asked)) - texts_held(FEW, options()) == more


def test_chains_and_samples_are_counted():
    options = engine("importance").options()
    assert texts_held(Settings(chains=5, num_samples=7), options) == 35


@pytest.mark.parametrize(
    "arguments",
    [
        ("--engine", "mcmc", "--chains", "1000000", "--num-samples", "1", "-o", "levels=60000"),
        ("--engine", "gflownet", "-o", "draws=60000", "-o", "rows=60000"),
        ("--engine", "gflownet", "-o", "seed_draws=1000000000"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_looked_for(here, arguments):  # noqa: F811
    write(here, 'Z ~ LM("a") max 3 tokens\n', "p.lm")
    done = lmppl(here, "run", "p.lm", "--lm", "LM=./nowhere", *arguments, code=2)
    assert "too-many-draws" in done.stderr
    assert "nowhere" not in done.stderr


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ('given X\nZ ~ LM("{X} a") max 3 tokens\n', 3),
        ('given X\nZ ~ LM(" a") in [" a", " b"]\nobserve X ~ LM("{Z}")\n', 4),
        ('given X\nZ ~ LM(" a") in [" a", " b"]\nobserve "b" ~ LM("{X}{Z}")\n', 4),
    ],
)
def test_a_row_that_no_model_could_see_is_refused_at_once(here, program, line):  # noqa: F811
    write(here, program, "p.lm")
    (here / "d.jsonl").write_text(json.dumps({"X": " a b" * 1_000_000}) + "\n")
    started = time.process_time()
    done = lmppl(here, "run", "p.lm", "--data", "d.jsonl", code=2)
    for said in ("context-too-long", f"p.lm:{line}", "4,000,000 characters"):
        assert said in done.stderr
    assert len(done.stderr) < 2000
    assert time.process_time() - started < 20  # it takes less than a second, and to encode it minutes
