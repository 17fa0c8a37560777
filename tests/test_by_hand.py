"""Numbers held against what one computes by hand, or by another road: bugs that laws of draws do not show."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm, rankdata
from toy import ToyModel

import lmppl
from lmppl.compare import reference
from lmppl.compare.measures import labels
from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.randomness import Randomness
from lmppl.density.binding import bind
from lmppl.diagnosis.draws import Draw
from lmppl.diagnosis.summary import rank_r_hat, summarise
from lmppl.engines import mcmc
from lmppl.engines.amortised.objectives import Batch, Shape, subtb, vargrad
from lmppl.engines.amortised.recipe import Recipe
from lmppl.engines.contract import Settings, quiet
from lmppl.engines.mcmc_kernel.kernel import Kernel
from lmppl.engines.mcmc_kernel.moves import Move
from lmppl.engines.resampling import replicate_evidence, resample
from lmppl.engines.search import Search, enumerate_states
from lmppl.engines.weights import log_mean_weight
from lmppl.posterior.posterior import Posterior
from lmppl.posterior.result import RowPosterior
from lmppl.run import Request, run
from lmppl.source import Source

LM = 'lm LM = "toy"\n'


def bound(text):
    return bind(lmppl.compile(LM + text).program, {"LM": ToyModel()}, Row({}, {}))[0]


def row_of(text, engine, settings, options, seed=0):
    request = Request(engine, settings, options, seed)
    return run(lmppl.compile(LM + text).program, [Row({}, {})], {"LM": ToyModel()}, request).rows[0]


def log_evidence(text):
    """By scoring every state."""
    target = bound(text)
    states = list(enumerate_states(target, target.latents, {}))
    return float(np.logaddexp.reduce(target.log_density(states).total))


# --- summaries and measures -----------------------------------------------------------------------


def test_r_hat_of_heavy_tails_is_that_of_the_paper():
    """Vehtari et al. (2021), eqs. 1 to 14, on chains of one centre and unequal scales: the folded part decides."""

    def normal_scores(values):
        return norm.ppf((rankdata(values).reshape(values.shape) - 3 / 8) / (values.size + 1 / 4))

    def split_r_hat(values):
        halves = np.array([half for chain in values for half in (chain[:50], chain[50:])])
        within, between = halves.var(axis=1, ddof=1).mean(), 50 * halves.mean(axis=1).var(ddof=1)
        return math.sqrt((49 / 50 * within + between / 50) / within)

    values = np.random.default_rng(0).standard_cauchy((4, 100))
    values[0] *= 4
    plain, folded = split_r_hat(normal_scores(values)), split_r_hat(normal_scores(abs(values - np.median(values))))
    assert folded > plain + 0.02
    assert rank_r_hat(values) == pytest.approx(folded, abs=1e-9)


def test_the_error_of_a_weighted_mean_counts_weights_where_the_deviations_are():
    """A draw of large weight at the mean takes nothing from the error: √ Σ w² (x − m)² (Owen 2013, ch. 9)."""
    values, weights = np.array([[5.0, 0.0, 10.0]]), np.array([[0.8, 0.1, 0.1]])
    assert summarise(values, weights)["mcse"] == pytest.approx(math.sqrt(2 * (0.1 * 5) ** 2))


def test_calibration_error_bins_are_tenths():
    """Confidences of .52 and .58 share a bin, in which half are right: |1 − 1.1| / 2."""
    laws = [{"yes": 0.52, "no": 0.48}, {"yes": 0.58, "no": 0.42}]
    assert labels.calibration_error(laws, ["yes", "no"]) == pytest.approx(0.05)


def test_gold_keeps_the_weights_of_its_draws():
    draws = [
        Draw({"Z": "a"}, {"Z": [1] * n}, -float(n), {}, weight, None, 0, n)
        for n, weight in ((1, math.log(3)), (2, 0.0))
    ]
    cost = {"tokens_decoded": 1, "tokens_scored": 1}
    gold = reference.gold(Posterior({}, "mcmc", 0, {}, {}, [RowPosterior({}, draws)], cost), "mcmc", None)
    assert gold.truths[0].weights.tolist() == [0.75, 0.25]
    assert gold.truths[0].moments()["length"][0] == 1.25


# --- learning -------------------------------------------------------------------------------------


def test_subtrajectory_balance_is_a_double_loop():
    """Over pairs of stops in order, λ to the number of stops between them; a prefix that cannot stop is left out."""
    rng, decay, width = np.random.default_rng(0), 0.5, 2.0
    reward, stop = rng.normal(0, 2, (2, 4)), rng.normal(-1, 1, (2, 4))
    reward[0, 1] = -math.inf
    tokens, whole_reward, log_q = rng.normal(-1, 1, (2, 3)), rng.normal(0, 1, 2), rng.normal(-1, 1, (2, 4))

    def penalty(gap):
        return gap**2 if abs(gap) <= width else width * (2 * abs(gap) - width)

    whole = whole_reward - log_q.sum(1)
    losses = []
    for n in range(2):
        stops = [t for t in range(4) if math.isfinite(reward[n, t])]
        flows = [reward[n, t] - stop[n, t] - tokens[n, :t].sum() for t in stops] + [whole[n], whole.mean()]
        total = weights = 0.0
        for i in range(len(flows)):
            for j in range(i + 1, len(flows)):
                total += decay ** (j - i - 1) * penalty(flows[j] - flows[i])
                weights += decay ** (j - i - 1)
        losses.append(total / weights)
    values = (whole_reward, log_q, log_q.sum(1), reward, stop, tokens)
    names = ("log_reward", "log_q", "drawn_log_q", "prefix_reward", "log_stop", "prefix_log_q")
    batch = Batch(**{name: torch.tensor(value) for name, value in zip(names, values, strict=True)})
    assert float(subtb(batch, Shape(huber=width, decay=decay))) == pytest.approx(np.mean(losses), abs=1e-9)


def test_forbidden_texts_lose_their_density_step_by_step():
    recipe = Recipe(first_epsilon=-6.0, last_epsilon=-14.0)
    assert [recipe.log_epsilon(step, 5) for step in range(5)] == [-6.0, -8.0, -10.0, -12.0, -14.0]


def test_a_residual_beyond_the_width_counts_linearly_with_the_same_slope():
    log_reward, log_q = torch.tensor([0.0, 1.0, 9.0]), torch.tensor([[0.5], [0.0], [-1.0]])
    residuals = np.array([-0.5, 1.0, 10.0]) - np.mean([-0.5, 1.0, 10.0])
    expected = [x**2 if abs(x) <= 4 else 4 * (2 * abs(x) - 4) for x in residuals]
    batch = Batch(log_reward, log_q, log_q[:, 0])
    assert float(vargrad(batch, Shape(huber=4.0))) == pytest.approx(np.mean(expected))


# --- which texts and tokens are possible ----------------------------------------------------------


def test_a_text_ends_with_its_until_and_does_not_go_on():
    target = bound('Z ~ LM(" a") until "." max 4 tokens\n')
    a, dot = (target.models["LM"].encode(text, markers=False)[0] for text in (" a", "."))
    texts = [(a, dot), (dot,), (a, dot, a, dot), (dot, dot), (a, a)]
    assert np.isfinite(target.log_density([{"Z": text} for text in texts]).total).tolist() == [True] * 2 + [False] * 3


GRAMMAR = 'in_grammar(Z, "list.lark")'  # begins with " a" or " b"
STARTS = {'starts_with(Z, " a")': {" a"}, '(starts_with(Z, " b") or starts_with(Z, "."))': {" b", "."}}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("word", ["and", "or"])
def test_masks_of_and_and_or_are_what_they_say(word, start):
    source = Source("p.lm", f'{LM}Z ~ LM(" a") max 3 tokens\nconstrain {GRAMMAR} {word} {start}\n')
    program = analyse(source, Path(__file__).parent / "laws").program
    target = bind(program, {"LM": ToyModel()}, Row({}, {}))[0]
    masks, model = target.text_latent("Z").masks, target.models["LM"]
    possible = {" a", " b"} & STARTS[start] if word == "and" else {" a", " b"} | STARTS[start]
    allowed = [masks.start([()]).allowed()[0, token].item() for token in range(model.vocabulary_size)]
    found = {model.decode([token]) for token, said in enumerate(allowed) if said and token != model.end}
    assert found == possible


@pytest.mark.parametrize("table", [True, False], ids=["by its table", "by a matcher"])
@pytest.mark.parametrize(
    ("constraint", "words", "holds"),
    [
        ('not ends_with(Z, " a")', (0, 1, 2, 4), lambda text: not text.endswith(" a")),
        ("matches(Z, /( a)*( b)*/)", (1, 4), lambda text: True),
        ("matches(Z, /( a)*( b)*\\./)", (0, 4), lambda text: False),
    ],
    ids=["a complement", "all of a pattern", "a beginning of a pattern"],
)
def test_masks_allow_an_end_in_the_language_and_what_has_no_text_on_the_way(
    constraint, words, holds, table, monkeypatch
):
    if not table:
        monkeypatch.setattr("lmppl.decoding.masks._table", lambda *asked: None)
    program = lmppl.compile(f'{LM}Z ~ LM(" a") max 4 tokens\nconstrain {constraint}\n').program
    model = ToyModel(padding=1)  # its last token has no text: it may stand anywhere in a text
    masks = bind(program, {"LM": model}, Row({}, {}))[0].text_latent("Z").masks
    for length in range(3):
        for tokens in itertools.product(words, repeat=length):
            found = masks.start([tokens]).allowed()[0].tolist()
            assert found[3:] == [holds(model.decode(tokens)), True], tokens


def test_a_mask_counts_the_tokens_that_are_left():
    """With two tokens left a text may go on to its end; with one it must end."""
    target = bound('Z ~ LM(" a") max 2 tokens\nconstrain matches(Z, /( a)+\\./)\n')
    rows, (a, dot) = target.text_latent("Z").masks.start([()]), target.models["LM"].encode(" a.", markers=False)
    assert rows.allowed()[0].nonzero()[:, 0].tolist() == [a]
    rows.feed(0, (a,))
    assert rows.allowed()[0].nonzero()[:, 0].tolist() == [dot]


# --- evidence ------------------------------------------------------------------------------------


def test_the_mean_weight_counts_impossible_draws():
    value, error = log_mean_weight(np.append(np.log([1.0, 3.0, 2.0]), -np.inf))
    assert value == pytest.approx(math.log(1.5))
    assert error == pytest.approx(np.std([1, 3, 2, 0]) / 1.5 / 2)


def test_replicates_are_pooled_by_their_mean_not_by_the_mean_of_logs():
    value, error, interval = replicate_evidence([math.log(1.0), math.log(3.0), math.log(5.0)])
    assert value == pytest.approx(math.log(3))
    assert error == pytest.approx(np.std([1, 3, 5], ddof=1) / 3 / math.sqrt(3))
    assert interval is not None
    assert interval[1] == pytest.approx(math.log(3 + 4.302653 * np.std([1, 3, 5], ddof=1) / math.sqrt(3)), abs=1e-6)


def test_systematic_draws_are_as_many_as_their_weights_say():
    log_weights = np.log([0.13, 0.17, 0.32, 0.38])
    counts = [np.bincount(resample(log_weights, 10, u), minlength=4) for u in (np.arange(1000) + 0.5) / 1000]
    np.testing.assert_allclose(np.mean(counts, axis=0), [1.3, 1.7, 3.2, 3.8], atol=0.01)
    assert np.ptp(counts, axis=0).max() <= 1


# --- certified search -----------------------------------------------------------------------------


@pytest.mark.parametrize("branches", [1, 2, 4])
@pytest.mark.parametrize(
    "text",
    ['Z ~ LM(" a")^1.5 max 3 tokens\nfactor 4 - min(count(Z, "b"), 4)\n', 'Z ~ LM(" a")^2 max 4 tokens\n'],
    ids=["a factor above 0", "a power"],
)
def test_an_interval_that_is_certified_holds_the_truth_at_every_step(text, branches, monkeypatch):
    monkeypatch.setattr("lmppl.engines.search.BLOCK", 3)
    truth, search = log_evidence(text), Search(bound(text), branches)
    steps = 0
    while search.heap:
        search.step()
        steps += 1
        assert search.found <= truth + 1e-9
        assert truth <= np.logaddexp(search.found, search.residual()) + 1e-9
    assert steps >= 2


OBSERVED = 'Z ~ LM(" a") max 2 tokens\nobserve " b." ~ LM("{Z}")\n'  # which is told before the next latent


# --- particles ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "most"),
    [
        (f'{OBSERVED}Y ~ LM(" b{{Z}}") max 1 tokens\n', {"particles": 100}, 0.4),
        ('Z ~ LM(" a") max 2 tokens\nconstrain chars(Z) == 3\n', {"tries": 1, "rounds": 1}, 0.2),
        ('Z ~ LM(" a") max 2 tokens\nconstrain chars(Z) == 3\n', {"tries": 1, "rounds": 2}, 0.2),
        ('Z ~ LM(" a") max 2 tokens\nconstrain chars(Z) == 3\n', {"tries": 2, "rounds": 1}, 0.2),
        (f'{OBSERVED}Y ~ LM(" b{{Z}}")^2 max 2 tokens\n', {"ess": 1.0}, 0.2),
    ],
    ids=["a factor that is told early", "one try", "one try, in two rounds", "two tries", "resampled at every token"],
)
def test_evidence_of_particles(text, options, most):
    row = row_of(text, "smc", {"chains": 4, "num_samples": 5}, {"particles": 600, **options})
    assert row.log_evidence == pytest.approx(log_evidence(text), abs=most)


@pytest.mark.slow
def test_steps_of_annealing_weigh_with_what_they_add():
    """Four temperatures or more between the prior's draws and its fourth power."""
    text, options = 'Z ~ LM(" a")^4 max 3 tokens\n', {"search": 0, "temperatures": "1", "ess": 0.9, "particles": 300}
    row = row_of(text, "annealed", {"chains": 2, "num_samples": 5}, options)
    assert row.diagnostics.temperatures >= 4
    assert row.log_evidence == pytest.approx(log_evidence(text), abs=0.2)


@pytest.mark.parametrize(("engine", "options"), [("smc", {}), ("annealed", {"search": 0})])
def test_draws_of_a_replicate_share_its_estimate_of_the_evidence(engine, options):
    settings, options = {"chains": 6, "num_samples": 2}, {"particles": 2, **options}
    row = row_of('Z ~ LM(" a")^2 max 3 tokens\n', engine, settings, options)
    logs = row.diagnostics.log_evidence_by_replicate
    assert np.ptp(logs) > 0.1
    assert [draw.log_weight for draw in row.draws] == [logs[draw.chain] for draw in row.draws]


# --- chains ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_chains_that_go_on_by_themselves_record_what_single_steps_do(early):
    """Steps that are passed over leave the state as it was: their draws are the earlier state, not the next."""
    target = bound('Z ~ LM(" a")^2 max 3 tokens\nobserve " b." ~ LM(" a{Z}")\n')
    options, randomness = mcmc.Options(early_rejection=early), Randomness(0)
    outcome = mcmc.run(target, Settings(3, 60, 5, 1), options, randomness, quiet)
    moves = mcmc.kernel(target, mcmc.Options(early_rejection=False), randomness)
    chain_states, expected = mcmc.init(moves, range(3), 100), []
    for at in range(65):
        chain_states = mcmc.step(moves, chain_states, range(3), at).chain_states
        expected += [(chain, at - 5, chain_states[chain].state) for chain in range(3) if at >= 5]
    found = [(sample.chain, sample.draw, sample.state) for sample in outcome.samples]
    assert found == sorted(expected, key=lambda entry: entry[:2])


def test_a_choice_that_moves_takes_the_scores_of_later_texts_with_it():
    """The text's context reads the choice: its log q under the new one is what a trace says, and log q_θ is unknown."""
    target = bound('Y ~ LM(" a") in [" a", " b"]\nZ ~ LM("{Y}")^2 max 3 tokens\n')
    kernel = Kernel(target, Randomness(0))
    keys = [(number, 0) for number in range(12)]
    chain_states = [replace(chain_state, log_learned=-1.0) for chain_state in kernel.start(keys)]
    choice = Move("choice", 0.0, target.latents[0])
    later = [(number, 1) for number in range(12)]
    found = [candidate for candidate, _ in kernel._choices(chain_states, [choice] * 12, later, [1.0] * 12)]
    assert any(new.state["Y"] != old.state["Y"] for new, old in zip(found, chain_states, strict=True))
    traced = target.trace("Z", [chain_state.state for chain_state in found], kernel.ladder(target.latents[1]))
    for candidate, log_prior, log_proposal in zip(found, traced.log_prior, traced.log_proposal, strict=True):
        np.testing.assert_allclose(candidate.log_prior["Z"], log_prior, atol=1e-9)
        np.testing.assert_allclose(candidate.log_proposal["Z"], log_proposal, atol=1e-9)
        assert candidate.log_learned is None
        assert candidate.log_density == pytest.approx(float(target.log_density([candidate.state]).total[0]))
