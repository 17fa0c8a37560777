"""A trained policy as a proposal: engines draw from the exact posterior whatever it is, and faster where it is good."""

import shutil
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import grid
import numpy as np
import pytest
import tiny
from test_kernel import setting
from test_samplers import check_law, truth

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.randomness import Randomness
from lmppl.engines import gflownet, importance
from lmppl.engines.amortised import checkpoint, trainer
from lmppl.engines.amortised.learning import cannot
from lmppl.engines.amortised.policy import Policy
from lmppl.engines.amortised.processes import Processes
from lmppl.engines.amortised.proposing import lender
from lmppl.engines.defensive import Defended, draw_start, proposal_of, trace_start
from lmppl.engines.mcmc_kernel.chain_state import FOUND, Finds, asked
from lmppl.engines.mcmc_kernel.kernel import Kernel, Move
from lmppl.engines.mcmc_kernel.rescoring import Scores
from lmppl.errors import LmpplError
from lmppl.lm.transformers import adapter
from lmppl.lm.transformers.adapter import FILES
from lmppl.run import Request, run
from lmppl.source import Source
from lmppl.validation.bounds import certify
from lmppl.validation.sbc import calibrate

TEXT = ("tempered", "free", "nothing")
BOTH = ("tempered", "free", "choice")
HARD = ("plain", "until", "constraint")
CELLS = [TEXT, BOTH, HARD]
ELSEWHERE = ("plain", "free", "factor")  # what the bad policy was trained for: few words a


pytestmark = pytest.mark.slow  # policies are trained


@pytest.fixture(scope="module")
def models():
    return grid.models()


def train(cell, models, folder, steps=100, rate=1e-2):
    """A policy for a cell, in a folder."""
    options = gflownet.Options(steps=steps, draws=32, learning_rate=rate)
    target = grid.target(cell, models, batch_size=512)
    assert cannot(target.program) is None
    trained = frozenset(latent.name for latent in target.latents)
    added = adapter.add(models["LM"], rank=options.rank, alpha=options.alpha, targets=options.targets, seed=0)
    try:
        policy = Policy(added, trained)
        task = trainer.Task([(0, target)], options, gflownet.recipe(options), 0, Processes())
        task.train(trainer.learner_of(policy, task), report=lambda found: None, keep=lambda learner: None)
        checkpoint.publish(folder, policy)
    finally:
        added.remove()
    return str(folder)


@pytest.fixture(scope="module")
def folders(models, tmp_path_factory):
    """Policies by the cell that they were trained for, trained when they are asked for."""
    found = {}

    def folder(cell):
        if cell not in found:
            steep = {"steps": 40, "rate": 5e-2} if cell == ELSEWHERE else {}
            found[cell] = train(cell, models, tmp_path_factory.mktemp("fit"), **steep)
        return found[cell]

    return folder


def check_twice(cell, models, engine, **options):
    try:
        check_law(cell, models, engine, **options)
    except AssertionError:  # an error is missed twice
        check_law(cell, models, engine, again=10_000, **options)


# --- the law of the draws -------------------------------------------------------------------------


@contextmanager
def lent(cell, models, folder):
    """A cell's target with what it proposes from."""
    options = importance.Options(proposal=folder)
    target = grid.target(cell, models, batch_size=512)
    with lender(target.program, options) as lend:
        lend(target)
        yield target, proposal_of(target, options)


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_log_q_is_that_of_the_mixture(cell, models, folders):
    """It is the same drawn or traced, and adds up to 1 over all texts that may end so."""
    states = list(grid.Reference(cell, models).states())
    with lent(cell, models, folders(cell)) as (target, proposal):
        drawn, log_learned = proposal.draw(target, [(0, i) for i in range(64)], Randomness(0))
        everything = trace_start(target, states, None, proposal).log_proposal
        again = trace_start(target, drawn.states, None, proposal)
    expected = np.logaddexp(np.log(0.9) + log_learned, np.log(0.1) + drawn.log_proposal)
    np.testing.assert_allclose(again.log_proposal, expected, atol=1e-4)
    for name, values in again.known.items():
        np.testing.assert_allclose(drawn.known[name], values, atol=1e-4)
    assert np.exp(everything).sum() == pytest.approx(1, abs=1e-4)  # masks leave no other texts


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_importance_follows_the_posterior(cell, good, models, folders):
    check_twice(cell, models, "importance", proposal=folders(cell if good else ELSEWHERE))


CASES = [
    *((engine, {}, cell, good) for engine in ("annealed", "mcmc") for cell in (BOTH, HARD) for good in (True, False)),
    ("annealed", {"search": 6, "restarts": 0.4}, TEXT, False),
    ("annealed", {"search": 6, "restarts": 0.4}, TEXT, True),
    ("annealed", {"waste_free": 4}, TEXT, False),
    ("mcmc", {"restarts": 0.4}, TEXT, False),
    ("mcmc", {"levels": 3}, TEXT, False),
]


@pytest.mark.parametrize(("engine", "options", "cell", "good"), CASES)
def test_other_engines_follow_the_posterior(engine, options, cell, good, models, folders):
    check_twice(cell, models, engine, proposal=folders(cell if good else ELSEWHERE), **options)


@pytest.mark.parametrize("cell", [TEXT, HARD], ids="-".join)
def test_a_good_policy_makes_draws_worth_more(cell, models, folders):
    """More effective draws than without, also for each token, and the same evidence."""
    plain, helped = worth(cell, models), worth(cell, models, proposal=folders(cell))
    assert helped.ess > 1.1 * plain.ess
    assert helped.ess / helped.tokens > plain.ess / plain.tokens
    assert abs(plain.log_evidence - helped.log_evidence) < 3 * np.hypot(plain.error, helped.error)
    assert abs(helped.log_evidence - truth(cell, models)[1]) < 3 * helped.error + 1e-3
    assert helped.error < plain.error


def worth(cell, models, **options):
    """What 2,000 draws of `importance` are worth, and cost."""
    asked = Request("importance", {"chains": 4, "num_samples": 500}, options, 5, 512)
    posterior = run(grid.program(*cell), [Row({}, {})], grid.used_models(cell, models), asked)
    row, cost = posterior.rows[0], posterior.cost
    tokens = cost["tokens_decoded"] + cost["tokens_scored"]
    return SimpleNamespace(
        ess=row.diagnostics.ess, tokens=tokens, log_evidence=row.log_evidence, error=row.log_evidence_se
    )


@pytest.mark.parametrize("folder", [TEXT, ELSEWHERE], ids=["good", "bad"])
def test_evidence_has_no_bias(folder, models, folders):
    """The mean of Ẑ / Z over many small runs is 1."""
    evidence = truth(TEXT, models)[1]
    with lent(TEXT, models, folders(folder)) as (target, proposal):
        keys = [(chain, i) for chain in range(100) for i in range(40)]
        drawn = draw_start(target, keys, Randomness(1), None, proposal, evenly=True)
        log_weights = target.log_density(drawn.states, drawn.known).total - drawn.log_proposal
    ratios = np.exp(log_weights - evidence).reshape(100, 40).mean(1)
    assert abs(ratios.mean() - 1) < 3 * ratios.std() / 10


def test_weights_are_bounded_whatever_the_policy_is(models, folders):
    """γ / q' ≤ max γ / (ε q₀)."""
    states = list(grid.Reference(TEXT, models).states())
    with lent(TEXT, models, folders(ELSEWHERE)) as (target, proposal):
        density = target.log_density(states).total
        plain, mixed = trace_start(target, states), trace_start(target, states, None, proposal)
    assert (density - mixed.log_proposal).max() <= (density - plain.log_proposal).max() - np.log(proposal.share) + 1e-6


# --- the kernel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [0.0, 0.5])
def test_chain_states_know_the_policy_of_their_own_state(restarts, models, folders):
    """After moves of every kind; at β = 1 it is asked by restarts alone."""
    with lent(BOTH, models, folders(ELSEWHERE)) as (target, proposal):
        said = Asked(proposal.sampler)
        kernel = Kernel(target, Randomness(3), restarts=restarts, proposal=replace(proposal, sampler=said))
        chain_states = [w for w in kernel.start([(i, 10**6) for i in range(40)]) if np.isfinite(w.log_density)]
        said.count = 0
        for beta, first in ((1.0, 0), (0.4, 10)):
            for step in range(first, first + 6):
                chain_states = kernel.step(
                    chain_states, [(i, step) for i in range(len(chain_states))], [beta] * len(chain_states)
                ).chain_states
            assert (said.count == 0) == (restarts == 0 and beta == 1)
            assert beta == 1 or all(chain_state.log_learned is not None for chain_state in chain_states)
            known = asked(chain_states)
            expected = trace_start(target, [chain_state.state for chain_state in known], None, proposal).log_proposal
            np.testing.assert_allclose([chain_state.log_start for chain_state in known], expected, atol=1e-4)


class Asked:
    """A sampler that counts how many states it is asked about."""

    def __init__(self, sampler):
        self.sampler, self.count = sampler, 0

    def draw(self, keys, randomness):
        return self.sampler.draw(keys, randomness)

    def log_prob(self, states):
        self.count += len(states)
        return self.sampler.log_prob(states)


class Table:
    """A sampler that is a table over states; it never draws some of them."""

    def __init__(self, states):
        weights = np.random.default_rng(0).dirichlet(np.full(len(states), 0.3))
        weights[::5] = 0
        with np.errstate(divide="ignore"):
            self.log_probs = np.log(weights / weights.sum())
        self.place = {repr(sorted(state.items())): i for i, state in enumerate(states)}

    def log_prob(self, states):
        return np.array([self.log_probs[self.place[repr(sorted(state.items()))]] for state in states])


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("found", [False, True], ids=["", "finds"])
@pytest.mark.parametrize("name", ["tempered", "masked", "choice"])
def test_restarts_leave_the_law_invariant(name, found, beta):
    matrix, law = restart_matrix(name, found, beta)
    np.testing.assert_allclose(law @ matrix, law, atol=1e-10)


def restart_matrix(name, found, beta):
    """Transition probabilities of restarts and finds through the kernel's own code, and the law at β."""
    plain, _, chain_states = setting(name)
    table, share = Table([chain_state.state for chain_state in chain_states]), 0.2
    drawn = np.exp([chain_state.log_start for chain_state in chain_states])  # without the table
    learned = np.exp(table.log_prob([chain_state.state for chain_state in chain_states]))
    chain_states = [replace(chain_state, proposal=Defended(table, share)) for chain_state in chain_states]
    finds = None
    if found:
        finds = Finds(
            asked(sorted(chain_states, key=lambda chain_state: -chain_state.log_density)[: len(chain_states) // 3])
        )
        chain_states = [replace(chain_state, finds=finds) for chain_state in chain_states]
    kernel = replace(plain, proposal=Defended(table, share), finds=finds)
    assert {kernel.draw_move((i, 0)).kind for i in range(200)} - {"suffix", "choice", "span"}
    assert not any(kernel.draw_move((i, 0)).whole for i in range(200))
    known = asked(chain_states)
    level = np.array([chain_state.level(beta) for chain_state in known])
    law = np.exp(level - np.logaddexp.reduce(level))
    chances = (1 - share) * learned + share * drawn  # of what a restart draws; the rest is impossible
    matrix = np.zeros((len(chain_states), len(chain_states)))
    for j, fresh in enumerate(known):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Kernel, "start", lambda self, keys, fresh=fresh: [fresh] * len(keys))
            proposals = kernel._starts(known, [Move("restart", 0.0)] * len(known), [(0, 0)] * len(known), [])
        add(matrix, known, j, chances[j] * (1 - FOUND * found), proposals, beta)
    if finds is not None:
        places = {repr(sorted(chain_state.state.items())): j for j, chain_state in enumerate(chain_states)}
        for place, chance in enumerate(np.exp(finds.log_probs)):
            middle = np.exp(finds.log_probs[:place]).sum() + chance / 2
            proposals = kernel._starts(known, [Move("find", 0.0, place=middle)] * len(known), [(0, 0)] * len(known), [])
            add(matrix, known, places[repr(sorted(proposals[0][0].state.items()))], FOUND * chance, proposals, beta)
    assert (matrix.sum(1) < 1 + 1e-10).all()
    matrix[np.diag_indices(len(chain_states))] += 1 - matrix.sum(1)
    return matrix, law


def add(matrix, chain_states, j, chance, proposals, beta):
    for i, (candidate, log_ratio) in enumerate(proposals):
        accepted = min(1.0, np.exp(candidate.level(beta) - chain_states[i].level(beta) + log_ratio))
        matrix[i, j] += chance * accepted


# --- planted bugs ---------------------------------------------------------------------------------


def forget(monkeypatch):
    """log q' leaves the policy out."""
    monkeypatch.setattr(Defended, "mixed", lambda self, log_learned, log_drawn: log_drawn)


def test_a_forgotten_policy_is_caught(models, folders, monkeypatch):
    forget(monkeypatch)
    matrix, law = restart_matrix("tempered", False, 1.0)
    assert np.abs(law @ matrix - law).max() > 1e-3
    with pytest.raises(AssertionError):
        check_law(TEXT, models, "importance", proposal=folders(ELSEWHERE))


@pytest.mark.parametrize(("engine", "options"), [("annealed", {"moves": 1}), ("mcmc", {"restarts": 0.8})])
def test_a_forgotten_policy_is_caught_in_others(engine, options, models, folders, monkeypatch):
    forget(monkeypatch)
    with pytest.raises(AssertionError):
        check_law(TEXT, models, engine, proposal=folders(ELSEWHERE), **options)


def test_a_stale_policy_is_caught(models, folders, monkeypatch):
    """Moves keep what the policy said of the state before."""
    plain = Scores.moved

    def rescore(self, chain_states, *rest):
        moved = plain(self, chain_states, *rest)
        return [replace(new, log_learned=old.log_learned) for new, old in zip(moved, chain_states, strict=True)]

    monkeypatch.setattr(Scores, "moved", rescore)
    with pytest.raises(AssertionError):
        test_chain_states_know_the_policy_of_their_own_state(0.5, models, folders)


# --- through the driver ---------------------------------------------------------------------------


def request(engine, proposal, batch_size=512, chains=3, **options):
    options = {"particles": 24, "search": 0, **options} if engine == "annealed" else options
    settings = {"chains": chains, "num_samples": 12, "num_warmup": 3}
    return Request(engine, settings, {"proposal": proposal, **options}, 11, batch_size)


def test_one_seed_gives_the_same_draws(models, folders):
    program, used = grid.program(*BOTH), {"LM": models["LM"]}

    def draws(engine, batch_size, chains):
        row = run(program, [Row({}, {})], used, request(engine, folders(BOTH), batch_size, chains)).rows[0]
        return {(draw.chain, draw.draw): draw.values for draw in row.draws}

    for engine in ("importance", "mcmc", "annealed"):
        first = draws(engine, 64, 3)
        assert first == draws(engine, 5, 3), engine
        more = draws(engine, 64, 4)
        assert {key: value for key, value in more.items() if key[0] < 3} == first, engine


def clean(models):
    """Whether the model is as it was loaded."""
    names = [name for name, _ in models["LM"].model.named_modules()]
    return not any("lora" in name for name in names)


def write(path, text):
    path.write_text(text)
    return {}


ERRORS = {
    "missing": (lambda folder: {"proposal": str(folder / "nowhere")}, "there is no adapter"),
    "without the prior": (lambda folder: {"defensive": 0}, "cannot be 0"),
    "without the policy": (lambda folder: {"defensive": 1}, "cannot be 1"),
    "other latents": (lambda folder: write(folder / "policy.json", '{"trained": ["W"]}'), "draws none of"),
    "damaged": (
        lambda folder: write(folder / FILES[1], "damaged"),
        "is damaged\n  = found: .*safetensors` cannot be read",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_be_a_proposal_is_said(name, models, folders, tmp_path):
    change, message = ERRORS[name]
    folder = shutil.copytree(folders(TEXT), tmp_path / "fit")
    options = {"proposal": str(folder), **change(folder)}
    for engine in ("importance", "mcmc", "annealed"):
        with pytest.raises(LmpplError, match=message):
            run(grid.program(*TEXT), [Row({}, {})], {"LM": models["LM"]}, request(engine, **options))
        assert clean(models)


def test_an_adapter_of_another_model_is_refused(folders):
    other = {"LM": tiny.model(seed=6)}
    network, config = other["LM"].model, deepcopy(other["LM"].model.config)
    config.intermediate_size *= 2
    other["LM"].model = type(network)(config).eval().requires_grad_(False)
    with pytest.raises(LmpplError, match="does not fit"):
        run(grid.program(*TEXT), [Row({}, {})], other, request("importance", folders(TEXT)))
    assert clean(other)


def test_several_models_have_no_policy(models, folders):
    text = 'lm LM = "tiny"\nlm OTHER = "other"\nZ ~ LM(" a") max 2 tokens\nW ~ OTHER("{Z}") max 2 tokens\n'
    analysis = analyse(Source("two", text), grid.FOLDER)
    with pytest.raises(LmpplError, match="several language models"):
        run(analysis.program, [Row({}, {})], models, request("importance", folders(TEXT)))


def test_models_are_as_they_were(models, folders):
    """After runs that end well, and after one that does not."""
    target = grid.target(TEXT, models)
    states = list(grid.Reference(TEXT, models).states())[:20]
    before = target.log_density(states).total
    program, used = grid.program(*TEXT), {"LM": models["LM"]}
    for engine in ("importance", "mcmc", "annealed"):
        run(program, [Row({}, {})], used, request(engine, folders(TEXT)))
        assert clean(models)

    def stop(*progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(program, [Row({}, {})], used, request("importance", folders(TEXT)), stop)
    assert clean(models)
    np.testing.assert_array_equal(target.log_density(states).total, before)


def test_a_target_without_the_policy_is_refused(models):
    target = grid.target(TEXT, models)
    with pytest.raises(LmpplError, match="has not been read"):
        proposal_of(target, importance.Options(proposal="fit"))


def test_bounds_and_ranks_are_of_what_proposes(models, tmp_path):
    """A policy of the posterior narrows the bounds; simulation-based calibration runs with it."""
    text = 'lm LM = "tiny"\ngiven Y\nZ ~ LM(" a b") max 3 tokens\nobserve Y ~ LM(" a{Z}")\n'
    program = analyse(Source("simulated", text), grid.FOLDER).program
    found = train(("plain", "free", "observe"), models, tmp_path)
    used, rows = {"LM": models["LM"]}, [Row({"Y": " b."}, {})]
    asked = Request("importance", {"num_samples": 8, "chains": 1}, {"proposal": found}, 0, 512)
    bounds = certify(program, rows, used, asked, simulations=4)
    assert np.isfinite(bounds.lower.mean)
    plain = certify(program, rows, used, replace(asked, options={}), simulations=4)
    assert bounds.lower.mean != plain.lower.mean
    assert clean(models)
    ranks = calibrate(program, rows, used, replace(asked, settings={"num_samples": 7}), simulations=4)
    assert ranks.simulations == 4
    assert clean(models)
