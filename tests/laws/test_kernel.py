"""Every Metropolis move leaves its law invariant: whole transition matrices, through the kernel's own code."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from quick import covered
from toy import ToyModel

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.decoding.batch import Beginnings
from lmppl.decoding.randomness import Randomness
from lmppl.decoding.rollout import FREE
from lmppl.density.binding import bind
from lmppl.density.latent_draws import LatentDraws
from lmppl.engines.mcmc_kernel.chain_state import FOUND, ChainState, Finds, mixture, remembering
from lmppl.engines.mcmc_kernel.kernel import Kernel
from lmppl.engines.mcmc_kernel.moves import Move, cut_law
from lmppl.engines.search import enumerate_states
from lmppl.errors import raise_errors
from lmppl.source import Source

PROGRAMS = {
    "tempered": 'lm LM = "toy"\nZ ~ LM(" a")^4 max 3 tokens\n',
    "until": 'lm LM = "toy"\nZ ~ LM(" a")^2 until "." max 3 tokens\nfactor 0.7 * count(Z, "a")\n',
    "masked": 'lm LM = "toy"\nZ ~ LM(" a")^1.5 max 3 tokens\nconstrain matches(Z, /( a| b)*\\.?/)\n',
    "observed": 'lm LM = "toy"\nZ ~ LM(" a") max 3 tokens\nobserve " b." ~ LM(" a{Z}")\n',
    "choice": 'lm LM = "toy"\nZ ~ LM(" a")^2 max 2 tokens\nY ~ LM("{Z}") in [" a", " b"]\nobserve " b" ~ LM("{Y}")\n',
    "tool": 'lm LM = "toy"\nuse echo from "helpers.py"\nZ ~ LM(" b")^2 with echo(trigger = " a") max 4 tokens\n'
    'observe " b." ~ LM(" a{Z}")\n',
    "two texts": 'lm LM = "toy"\nZ ~ LM(" a") max 2 tokens\nW ~ LM(" b{Z}")^2 max 1 tokens\n',
}


def marked(*names, slow=("tool",)):
    """Programs by name; the one with a tool has the longest texts, and takes seconds."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in names]


class Forced:
    """A target whose rollouts draw the tokens that are given here, one text a row: randomness, replaced."""

    def __init__(self, target):
        self._target, self.kept = target, None

    def __getattr__(self, name):
        return getattr(self._target, name)

    def roll_out(self, name, states, *, forced=None, **options):
        bound = self._target.text_latent(name)
        mine = np.full((len(states), bound.latent.maximum), FREE, dtype=np.int64)
        for row, text in zip(mine, self.kept, strict=True):
            scored = bound.stopping.scored(text)
            row[: len(scored)] = scored
        return self._target.roll_out(name, states, forced=mine, **options)


def setting(name):
    analysis = analyse(Source(name, PROGRAMS[name]), Path(__file__).parent)
    raise_errors(analysis.findings)
    target, _ = bind(analysis.program, {"LM": ToyModel()}, Row({}, {}), batch_size=10**6)
    states = [dict(state) for state in enumerate_states(target, target.latents, {})]
    forced = Forced(target)
    kernel = Kernel(forced, Randomness(0), early=False)
    density = target.log_density(states)
    texts = [latent for latent in target.latents if isinstance(states[0][latent.name], tuple)]
    traces = {latent.name: target.trace(latent.name, states, kernel.ladder(latent)) for latent in texts}
    chain_states = []
    for i, state in enumerate(states):
        factors = {key: float(values[i]) for key, values in density.factors.items()}
        chain_states.append(
            ChainState(
                state, float(density.total[i]), factors,
                {key: trace.log_prior[i] for key, trace in traces.items()},
                {key: trace.log_proposal[i] for key, trace in traces.items()},
            )
        )  # fmt: skip
    return kernel, forced, [chain_state for chain_state in chain_states if np.isfinite(chain_state.log_density)]


def moves_of(kernel, latent):
    """Every text move but spans, and its probability among them."""
    laws = len(kernel.ladder(latent))
    for component, (cut, share) in itertools.product(range(laws), enumerate(cut_law(latent.maximum))):
        yield Move("suffix", 0.0, latent, component, cut), share / laws
    yield Move("suffix", 0.0, latent, whole=True), 1.0


def spans_of(kernel, latent):
    for component, cut, length in itertools.product(range(len(kernel.ladder(latent))), range(latent.maximum), (1, 2)):
        yield Move("span", 0.0, latent, component, cut, length), 1.0


def proposals(kernel, forced, chain_states, move):
    """(from, to, probability of proposing, probability of accepting) of one move, for all pairs that it can join."""
    name = move.latent.name
    index = {repr(sorted(chain_state.state.items())): i for i, chain_state in enumerate(chain_states)}
    pairs = [
        (i, chain_state, text)
        for i, chain_state in enumerate(chain_states)
        for text in {w.state[name]: None for w in chain_states}
        if joinable(forced, chain_state, text, move)
    ]
    if not pairs:
        return
    forced.kept = [text for _, _, text in pairs]
    proposer = kernel.text_moves.suffixes if move.kind == "suffix" else kernel.text_moves.spans
    sources = [chain_state for _, chain_state, _ in pairs]
    found = proposer(sources, [move] * len(pairs), [(0, 0)] * len(pairs), kernel_betas(kernel, len(pairs)))
    for (i, chain_state, text), (candidate, log_ratio) in zip(pairs, found, strict=True):
        state = {**chain_state.state, name: text}
        j = index.get(repr(sorted(state.items())))
        if candidate is None or j is None:
            continue
        assert candidate.state == state
        scores = candidate.log_proposal[name]
        end = move.cut + move.length if move.kind == "span" else len(scores)
        chance = mixture(scores) if move.whole else scores[move.cut : end, move.component].sum()
        beta = kernel_betas.beta
        yield i, j, np.exp(chance), min(1.0, np.exp(candidate.level(beta) - chain_state.level(beta) + log_ratio))


def kernel_betas(kernel, count):
    return [kernel_betas.beta] * count


def joinable(target, chain_state, text, move):
    """Whether a move can lead to this text: what it keeps is the same, and its cut lies in both."""
    name = move.latent.name
    old = chain_state.state[name]
    if move.kind == "span":
        end = move.cut + move.length
        return end <= len(old) == len(text) and old[: move.cut] == text[: move.cut] and old[end:] == text[end:]
    if move.whole:
        return True
    lengths = [len(target.text_latent(name).stopping.scored(tokens)) for tokens in (old, text)]
    return min(lengths) > move.cut and old[: move.cut] == text[: move.cut]


REST = ("until", "masked", "observed", "tool")
MOVES = itertools.product(["suffix", "span"], PROGRAMS, [0.3, 1.0])


@pytest.mark.parametrize(("kind", "name", "beta"), covered(MOVES, {"tool", "two texts", "tempered"}))
def test_text_moves_leave_the_law_invariant(kind, name, beta):
    kernel, forced, chain_states = setting(name)
    kernel_betas.beta = beta
    level = np.array([chain_state.level(beta) for chain_state in chain_states])
    law = np.exp(level - np.logaddexp.reduce(level))
    for latent in forced.latents:
        if latent not in forced.texts:
            continue
        for move, _ in moves_of(kernel, latent) if kind == "suffix" else spans_of(kernel, latent):
            matrix = np.zeros((len(chain_states), len(chain_states)))
            for i, j, chance, accepted in proposals(kernel, forced, chain_states, move):
                matrix[i, j] += chance * accepted
            assert (matrix.sum(1) < 1 + 1e-10).all()
            matrix[np.diag_indices(len(chain_states))] += 1 - matrix.sum(1)
            np.testing.assert_allclose(law @ matrix, law, atol=1e-10)


def test_a_span_that_changes_what_a_tool_writes_behind_it_has_no_way_back():
    """Drawn freely: where the tool writes on in what the span should keep, there is no candidate."""
    kernel, forced, chain_states = setting("tool")
    kernel = replace(kernel, target=forced._target, finds=None)
    (latent,) = forced.latents
    move, keys = Move("span", 0.0, latent, 0, 1, 1), [(i, 0) for i in range(300)]
    old = next(
        chain_state for chain_state in chain_states if chain_state.state["Z"] == (1, 1, 0, 2)
    )  # " b b a", and what is written: "."
    found = kernel.text_moves.spans([old] * 300, [move] * 300, keys, [1.0] * 300)
    drawn = {None if candidate is None else candidate.state["Z"] for candidate, _ in found}
    assert {None} < drawn <= {None, (1, 1, 0, 2), (1, 2, 0, 2)}
    free = forced._target.roll_out(
        "Z", [old.state] * 300, temperatures=kernel.ladder(latent), component=np.zeros(300, dtype=np.int64),
        uniforms=kernel.text_moves.token_uniforms(keys, latent), kept=[(1,)] * 300,
        forced=np.tile([FREE, FREE, 0, 2], (300, 1)),
    )  # fmt: skip
    assert (1, 0, 2, 1) in free.tokens


@pytest.mark.parametrize("name", marked("tempered", "until", "masked", "tool", slow=("tempered", "masked", "tool")))
def test_the_mixture_of_moves_has_no_other_law(name):
    """Together, the suffix moves reach everything: the second largest eigenvalue is below 1."""
    kernel, forced, chain_states = setting(name)
    kernel_betas.beta = 1.0
    (latent,) = forced.latents
    matrix = np.zeros((len(chain_states), len(chain_states)))
    for move, share in moves_of(kernel, latent):
        for i, j, chance, accepted in proposals(kernel, forced, chain_states, move):
            matrix[i, j] += share / 2 * chance * accepted
    matrix[np.diag_indices(len(chain_states))] += 1 - matrix.sum(1)
    values = np.sort(np.abs(np.linalg.eigvals(matrix)))
    assert values[-1] == pytest.approx(1)
    assert values[-2] < 0.999


@pytest.mark.parametrize("beta", [pytest.param(0.3, marks=pytest.mark.slow), 1.0])
@pytest.mark.parametrize("name", marked("tempered", "masked", "choice", "tool"))
def test_restarts_from_what_a_search_found_leave_the_law_invariant(name, beta):
    """Half of the restarts draw from the finds, half from the temperatures; both are weighed against the mixture."""
    kernel, _, chain_states = setting(name)
    finds = Finds(sorted(chain_states, key=lambda chain_state: -chain_state.log_density)[: len(chain_states) // 3])
    kernel = replace(kernel, finds=finds)
    chain_states = [replace(chain_state, finds=finds) for chain_state in chain_states]
    level = np.array([chain_state.level(beta) for chain_state in chain_states])
    law = np.exp(level - np.logaddexp.reduce(level))
    index = {repr(sorted(chain_state.state.items())): i for i, chain_state in enumerate(chain_states)}
    matrix = np.zeros((len(chain_states), len(chain_states)))
    drawn = np.exp([replace(chain_state, finds=None).log_start for chain_state in chain_states])
    for place, chance in enumerate(np.exp(finds.log_probs)):
        middle = np.exp(finds.log_probs[:place]).sum() + chance / 2
        moves = [Move("find", 0.0, place=middle)] * len(chain_states)
        for i, (new, log_ratio) in enumerate(kernel._starts(chain_states, moves, [(0, 0)] * len(chain_states), [])):
            j = index[repr(sorted(new.state.items()))]
            accepted = min(1.0, np.exp(new.level(beta) - chain_states[i].level(beta) + log_ratio))
            matrix[i, j] += FOUND * chance * accepted
    for i, j in itertools.product(range(len(chain_states)), repeat=2):  # what a restart proposes, at its ratio
        ratio = level[j] - level[i] + chain_states[i].log_start - chain_states[j].log_start
        matrix[i, j] += (1 - FOUND) * drawn[j] * min(1.0, np.exp(ratio))
    assert (matrix.sum(1) < 1 + 1e-10).all()
    matrix[np.diag_indices(len(chain_states))] += 1 - matrix.sum(1)
    np.testing.assert_allclose(law @ matrix, law, atol=1e-10)


def test_choice_moves_leave_the_law_invariant():
    kernel, _, chain_states = setting("choice")
    level = np.array([chain_state.level(1.0) for chain_state in chain_states])
    law = np.exp(level - np.logaddexp.reduce(level))
    latent = kernel.target.latents[1]
    index = {repr(sorted(chain_state.state.items())): i for i, chain_state in enumerate(chain_states)}
    matrix = np.zeros((len(chain_states), len(chain_states)))
    prior = np.exp(kernel.target.choice_log_probs("Y", [chain_state.state for chain_state in chain_states]))
    for option in range(2):
        middle = prior[:, :option].sum(1) + prior[:, option] / 2  # a uniform that draws this option
        uniforms = iter(middle)
        stub = replace(kernel, randomness=Fixed(uniforms))
        found = stub._choices(
            chain_states, [Move("choice", 0.0, latent)] * len(chain_states), [(0, 0)] * len(chain_states), []
        )
        for i, (candidate, log_ratio) in enumerate(found):
            j = index[repr(sorted(candidate.state.items()))]
            assert candidate.state["Y"] == option
            ratio = np.exp(candidate.log_density - chain_states[i].log_density + log_ratio)
            matrix[i, j] += prior[i, option] * min(1.0, ratio)
    matrix[np.diag_indices(len(chain_states))] += 1 - matrix.sum(1)
    np.testing.assert_allclose(law @ matrix, law, atol=1e-10)


BRANCHES = (
    'lm LM = "toy"\nK ~ LM(" a") in [" a", " b"]\nZ ~ LM("{K}")^2 max 2 tokens when K == " a"\n'
    'Y ~ LM("{Z}") in [" a", "."] when K == " b"\nV ~ LM("{Z}{Y}") max 1 tokens\n'
    'W ~ LM(" b{Y}") max 1 tokens when Y == "."\nobserve " b" ~ LM(" a{Z}{W}{V}")\nfactor tokens(Z) when K == " a"\n'
)


@pytest.mark.parametrize("beta", [0.4, 1.0])
@pytest.mark.parametrize("name", ["K", "Y"])
def test_a_choice_that_guards_latents_redraws_them_reversibly(name, beta, monkeypatch):
    """Detailed balance of all pairs that the move joins: what comes is forced on it, by whole states."""
    monkeypatch.setitem(PROGRAMS, "branches", BRANCHES)
    kernel, _, chain_states = setting("branches")
    kernel = replace(kernel, target=kernel.target._target)
    target, states = kernel.target, [chain_state.state for chain_state in chain_states]
    latent = target.choice_latent(name).latent
    coming = {"K": ("Z", "Y", "W"), "Y": ("W",)}[name]
    law = np.exp(target.choice_log_probs(name, states))
    level = np.array([chain_state.level(beta) for chain_state in chain_states])

    def kept(state):
        return repr([(key, value) for key, value in state.items() if key not in (name, *coming)])

    def there(state, key):
        return not target.latent(key).is_absent(state[key])

    pairs = []
    for i, j in itertools.product(range(len(states)), repeat=2):
        alike = [key for key in coming if there(states[i], key) and there(states[j], key)]
        same = kept(states[i]) == kept(states[j]) and all(states[i][key] == states[j][key] for key in alike)
        if same and there(states[i], name) and there(states[j], name) and states[i][name] != states[j][name]:
            pairs.append((i, j))

    forced = []  # the state that the chain is to come to

    def draw_latent(target, key, some, *how):
        return LatentDraws([forced[0][key] for _ in some], [], [])

    monkeypatch.setattr("lmppl.engines.mcmc_kernel.branch_moves.draw_latent", draw_latent)
    flow = {}
    for i, j in pairs:
        forced[:] = [states[j]]
        uniform = law[i, : states[j][name]].sum() + law[i, states[j][name]] / 2
        stub = replace(kernel, randomness=Fixed(iter([uniform])))
        ((candidate, log_ratio),) = stub._choices([chain_states[i]], [Move("choice", 0.0, latent)], [(0, 0)], [beta])
        assert candidate.state == states[j]
        assert candidate.log_density == pytest.approx(chain_states[j].log_density, abs=1e-9)
        came = [key for key in coming if there(states[j], key) and not there(states[i], key)]
        chance = law[i, states[j][name]]
        for key in came:
            scores = chain_states[j].log_proposal.get(key)
            chance *= np.exp(chain_states[j].factors[key] if scores is None else mixture(scores))
        flow[i, j] = np.exp(level[i]) * chance * min(1.0, np.exp(candidate.level(beta) - level[i] + log_ratio))
    assert pairs
    for i, j in pairs:
        assert flow[i, j] == pytest.approx(flow[j, i], rel=1e-8)


class Fixed:
    """Uniforms that were chosen beforehand."""

    def __init__(self, values):
        self.values = values

    def uniforms(self, *key):
        return np.array([next(self.values)])


@pytest.mark.parametrize("name", marked("tempered", *REST, slow=REST))
def test_early_rejection_changes_no_chain_and_saves_tokens(name):
    chains, spent = [], []
    for early in (False, True):
        kernel, _, _ = setting(name)
        kernel = replace(kernel, target=kernel.target._target, early=early)
        drawn = [0]
        plain = type(kernel.target.models["LM"].stream((0,), [()])).push

        def counted(stream, tokens, plain=plain, drawn=drawn):
            drawn[0] += len(tokens)
            plain(stream, tokens)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lmppl.lm.base.BaseStream.push", counted)
            chain_states = [w for w in kernel.start([(c, 10**6) for c in range(60)]) if np.isfinite(w.log_density)][:20]
            for step in range(40):
                chain_states = kernel.step(
                    chain_states, [(c, step) for c in range(len(chain_states))], [1.0] * len(chain_states)
                ).chain_states
        chains.append([chain_state.state for chain_state in chain_states])
        spent.append(drawn[0])
    assert chains[0] == chains[1]
    assert spent[1] <= spent[0]
    if name == "tempered":
        assert spent[1] < 0.97 * spent[0]


def paths(kernel, chain_states, total, refill):
    """The state of every chain after each of its steps, its accepted moves, and rounds taken."""
    now, at, rounds = list(chain_states), [0] * len(chain_states), 0
    states, accepted = [[] for _ in now], [0] * len(now)
    while running := [c for c in range(len(now)) if at[c] < total]:
        keys, ends = [(c, at[c]) for c in running], [total] * len(running)
        before = [now[c] for c in running]
        step = kernel.step(before, keys, [1.0] * len(running), ends if refill else None)
        for i, c in enumerate(running):
            states[c] += [before[i].state] * (step.counts[i] - 1) + [step.chain_states[i].state]
            accepted[c] += step.accepted[i]
            now[c], at[c] = step.chain_states[i], at[c] + step.counts[i]
        rounds += 1
    return states, accepted, rounds


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("name", PROGRAMS)
def test_chains_that_do_not_wait_for_one_another_go_the_same_way(name, batch_size):
    kernel, forced, _ = setting(name)
    forced._target.batch_size = batch_size
    plain = replace(kernel, target=forced._target)
    chain_states = [w for w in plain.start([(c, 10**6) for c in range(60)]) if np.isfinite(w.log_density)][:11]
    expected = paths(plain, chain_states, 40, refill=False)
    for early, refill, remember in itertools.product((False, True), repeat=3):
        moving = replace(plain, early=early, remember=remember)
        states, accepted, rounds = paths(moving, chain_states, 40, refill)
        assert states == expected[0]
        assert accepted == expected[1]
        assert rounds <= 40
    if name == "tempered":
        assert paths(replace(plain, early=True), chain_states, 40, True)[2] < 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["two texts", "observed"])
def test_what_was_run_of_another_text_is_caught(name, monkeypatch):
    """A bug, planted: what was run of a text is gone on from after the text, or the context, has changed."""
    kernel, forced, _ = setting(name)
    plain = replace(kernel, target=forced._target, early=True)
    chain_states = [w for w in plain.start([(c, 10**6) for c in range(60)]) if np.isfinite(w.log_density)][:11]
    expected = paths(plain, chain_states, 60, refill=True)[:2]
    moving = replace(plain, remember=True)
    assert paths(moving, chain_states, 60, refill=True)[:2] == expected

    def by_length(self, row, own):
        pasts = self.pasts[row]
        return pasts is not None and all(own) and all(
            len(past.tokens) >= len(tokens) - 1 for past, tokens in zip(pasts, own, strict=True)
        )  # fmt: skip

    def stale(chain_state, name, pasts, keep=remembering):
        return keep(chain_state, name, chain_state.pasts.get(name, pasts))

    monkeypatch.setattr(Beginnings, "_resumes", by_length)
    monkeypatch.setattr("lmppl.engines.mcmc_kernel.text_moves.remembering", stale)
    assert paths(moving, chain_states, 60, refill=True)[:2] != expected
    monkeypatch.undo()
    monkeypatch.setattr("lmppl.engines.mcmc_kernel.text_moves.remembering", stale)  # alone it costs time only
    assert paths(moving, chain_states, 60, refill=True)[:2] == expected
