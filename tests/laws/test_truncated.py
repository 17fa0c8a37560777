"""Programs on models under local laws: densities by brute force, and what every engine makes of them."""

import itertools
import math

import numpy as np
import pytest
import tiny

from lmppl.compile import compile
from lmppl.decoding import Randomness
from lmppl.engines import Settings, effective_sample_size, engine
from lmppl.errors import LmpplError
from lmppl.screen import quiet
from lmppl.testing.chance import require_near

LAWS = {
    "temperature": {"temperature": 0.7},
    "top_p": {"top_p": 0.8},
    "top_k": {"top_k": 2},
    "min_p": {"min_p": 0.1},
    "all": {"temperature": 1.5, "top_k": 3, "top_p": 0.95, "min_p": 0.05},
}
PROGRAMS = {
    "prior": 'Z ~ LM(" a b") max 3 tokens',
    "power": 'Z ~ LM(" a b")^2.5 max 3 tokens',
    "hard": 'Z ~ LM(" a b") max 3 tokens\nconstrain not contains(Z, "a b") and tokens(Z) >= 1',
    "until": 'Z ~ LM(" a b") until "." max 3 tokens',
    "observe": 'Z ~ LM(" a b") max 3 tokens\nobserve " b" ~ PLAIN(" a{Z}")',
    "observed by it": 'Z ~ LM(" a b") max 3 tokens\nobserve " b" ~ LM("{Z}")^0.7',
    "product": 'Z ~ LM(" a b")^1.4 * PLAIN(" b")^0.5 max 3 tokens',
    "choice": 'Z ~ LM(" a b") max 2 tokens\nY ~ LM(" b{Z}") in [" a", " b a", "."]',
}
END = 3
ENGINES = {
    "exact": ({"num_samples": 1}, {}),
    "importance": ({"num_samples": 150}, {}),
    "rejection": ({"num_samples": 60}, {}),
    "mcmc": ({"chains": 60, "num_warmup": 12}, {}),
    "annealed": ({"chains": 40}, {"particles": 8, "search": 0}),
    "smc": ({"chains": 30}, {"particles": 12}),
}


@pytest.fixture(scope="module")
def model():
    return tiny.model(seed=6)


@pytest.fixture(scope="module")
def laws_of(model):
    """What the model makes of all sequences that are asked for, from passes without a cache."""
    known = {}

    def ask(sequence):
        if sequence not in known:
            known[sequence] = np.exp(tiny.reference_law(model, sequence).numpy())
        return known[sequence]

    return ask


def changed(p, temperature=1.0, top_k=10, top_p=1.0, min_p=0.0):
    """A law (V,) of probabilities, changed token by token: written from the page, not from the code."""
    p = p ** (1 / temperature)
    p = p * (p >= sorted(p)[-min(top_k, len(p))])
    p /= p.sum()
    kept, held = np.zeros(len(p), bool), 0.0
    for token in np.argsort(-p):
        if held < top_p:
            kept[token] = True
        held += p[token]
    p = p * kept
    p = p * (p >= min_p * p.max())
    return p / p.sum()


def written(options, program):
    told = ", ".join(f"{name} = {value}" for name, value in options.items())
    plain = 'lm PLAIN = "tiny"\n' if "PLAIN" in PROGRAMS[program] else ""
    return f'lm LM = "tiny" ({told})\n{plain}{PROGRAMS[program]}\n'


def bound(model, options, program):
    return compile(written(options, program)).bind(
        lms={"LM": model, **({"PLAIN": model} if "PLAIN" in PROGRAMS[program] else {})}
    )


class Truth:
    """The density of a program's states, token by token."""

    def __init__(self, laws_of, options, program):
        self.laws_of, self.options, self.program = laws_of, options, program

    def log_prob(self, context, tokens, plain=False):
        total, sequence = 0.0, tuple(context)
        for token in tokens:
            p = self.laws_of(sequence)
            p = p if plain else changed(p, **self.options)
            total += math.log(p[token]) if p[token] > 0 else -math.inf
            sequence = (*sequence, token)
        return total

    def states(self):
        maximum = 2 if self.program == "choice" else 3
        for length in range(maximum + 1):
            for tokens in itertools.product(range(3), repeat=length):
                if self.program == "until" and (2 not in tokens or tokens.index(2) != length - 1):
                    continue
                if self.program == "choice":
                    yield from ({"Z": tokens, "Y": option} for option in range(3))
                else:
                    yield {"Z": tokens}

    def __call__(self, state):
        z, program = state["Z"], self.program
        a, b, stop = 0, 1, 2
        whole = len(z) == (2 if program == "choice" else 3) or program == "until"
        scored = z if whole else (*z, END)
        prior = self.log_prob([a, b], scored)
        if program == "power":
            return 2.5 * prior
        if program == "hard":
            pairs = list(itertools.pairwise(z))
            return prior if z and (a, b) not in pairs else -math.inf
        if program == "observe":
            return prior + self.log_prob([a, *z], [b], plain=True)
        if program == "observed by it":
            return prior + 0.7 * self.log_prob([END, *z], [b])
        if program == "product":
            return 1.4 * prior + 0.5 * self.log_prob([b], scored, plain=True)
        if program == "choice":
            scores = [self.log_prob([b, *z], tokens) for tokens in ([a], [b, a], [stop])]
            total = np.logaddexp.reduce(scores)
            return prior + (scores[state["Y"]] - total if total > -math.inf else -math.inf)
        return prior


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("law", LAWS)
def test_densities_are_those_of_brute_force(law, program, model, laws_of):
    target, truth = bound(model, LAWS[law], program), Truth(laws_of, LAWS[law], program)
    states = list(truth.states())
    expected = np.array([truth(state) for state in states])
    np.testing.assert_allclose(target.log_density(states).total, expected, atol=2e-5)
    if program == "prior":
        np.testing.assert_allclose(np.exp(expected).sum(), 1)


QUICK = ("exact", "importance", "rejection")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("engine_name", QUICK)
def test_engines_draw_from_the_posterior(engine_name, program, model, laws_of):
    law = list(LAWS)[list(PROGRAMS).index(program) % len(LAWS)]
    follows(engine_name, law, [program], model, laws_of)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("engine_name", [name for name in ENGINES if name not in QUICK])
def test_engines_that_move_draw_from_the_posterior(engine_name, law, model, laws_of):
    follows(engine_name, law, ["power", "observed by it", "choice"], model, laws_of)


def follows(engine_name, law, programs, model, laws_of):
    for program in programs:
        truth = Truth(laws_of, LAWS[law], program)
        states = list(truth.states())
        density = np.array([truth(state) for state in states])
        evidence = np.logaddexp.reduce(density)
        if np.isneginf(evidence):  # nothing of the program is left by this law
            continue
        expected = {repr(s): p for s, p in zip(states, np.exp(density - evidence), strict=True) if p > 0}
        outcome = run(bound(model, LAWS[law], program), engine_name)
        if outcome is None:
            continue
        weights = np.exp(np.array([sample.log_weight for sample in outcome.samples]))
        found = {}
        for sample, weight in zip(outcome.samples, weights / weights.sum(), strict=True):
            if weight > 0:
                key = repr({name: sample.state[name] for name in ("Z", "Y") if name in sample.state})
                found[key] = found.get(key, 0.0) + weight
        assert set(found) <= set(expected)
        size = int(effective_sample_size(np.log(weights[weights > 0])))
        if outcome.support is not None:
            found, size = {repr(s): p for s, p in outcome.support if p > 0}, 10**9
        require_near(expected, found, size, f"{program} by {engine_name}")
        if outcome.log_evidence is not None:
            assert abs(outcome.log_evidence - evidence) < 5 * (outcome.log_evidence_se or 0) + 1e-4


def run(target, name):
    """None where the engine cannot."""
    chosen, (settings, options) = engine(name), ENGINES[name]
    if chosen.cannot(target.program):
        return None
    settings = Settings(**{"chains": 1, "num_samples": 1, "num_warmup": 0, **settings})
    return chosen.run(target, settings, chosen.options(**options), Randomness(3, 0), quiet)


def refused(program, model):
    """What a run says where nothing is possible."""
    target, chosen = compile(program).bind(lms={"LM": model}), engine("importance")
    with pytest.raises(LmpplError) as caught:
        chosen.run(target, Settings(num_samples=20), chosen.options(), Randomness(0, 0), quiet)
    return caught.value.diagnostics[0]


def test_an_impossible_observation_is_named_with_its_token_and_line(model, laws_of):
    first = int(laws_of((0,)).argmax())
    z = () if first == END else (first,)
    word = (" a", " b", ".")[int(laws_of((1, *z))[:3].argmin())]
    head = 'lm LM = "tiny" (top_k = 1)\nZ ~ LM(" a") max 1 tokens\n'
    found = refused(f'{head}observe "{word}" ~ LM(" b{{Z}}")\n', model)
    assert found.code == "no-support"
    assert found.found == f"`LM`, with top_k = 1, never writes {word!r} there"
    assert found.source.slice(found.span).startswith(f'observe "{word}"')


def test_what_constraints_and_a_local_law_leave_nothing_of_is_named(model, laws_of):
    """Masks lead where the law does not go: the texts are forbidden by the constraint."""
    first = int(laws_of((0,)).argmax())
    other = next(word for i, word in enumerate((" a", " b", ".")) if i != first)
    head = 'lm LM = "tiny" (top_k = 1)\nZ ~ LM(" a") max 1 tokens\n'
    found = refused(f'{head}constrain Z == "{other}"\n', model)
    assert found.code == "no-support"
    assert "constrain" in found.message


def test_two_names_of_one_file_share_a_pass(model):
    """An observation scored under two laws costs what one does: each text is run once."""
    both = 'lm LM = "tiny" (top_k = 3)\nlm PLAIN = "tiny"\nZ ~ LM(" a b") max 3 tokens\n'
    one = 'observe " b" ~ PLAIN(" a{Z}")'
    two = 'observe " b" ~ mix(0.5 * PLAIN(" a{Z}"), 0.5 * LM(" a{Z}"))'
    spent = []
    for observed in (one, two):
        target = compile(f"{both}{observed}\n").bind(lms={"LM": model, "PLAIN": model})
        states = [{"Z": (0,)}, {"Z": (1, 1)}, {"Z": (0, 1, 2)}]
        target.log_density(states)
        before = (model.cost.tokens_scored, model.cost.forward_passes)
        target.log_density(states)
        spent.append((model.cost.tokens_scored - before[0], model.cost.forward_passes - before[1]))
    assert spent[0] == spent[1]


@pytest.mark.parametrize("context", [" b", " b{Z}"])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_options_that_a_local_law_makes_impossible_are_said(top_k, context, model, laws_of):
    """Those that it cuts away behind every text of Z, of which all are drawn; none that it keeps behind some."""
    program = f'lm LM = "tiny" (top_k = {top_k})\nlm PLAIN = "tiny"\nZ ~ PLAIN(" a") max 1 tokens\n'
    program += f'Y ~ LM("{context}") in [" a", " b", "."]\n'
    behind = [(1, *z) for z in ((), (0,), (1,), (2,))] if "Z" in context else [(1,)]
    kept = {token for one in behind for token in np.argsort(-laws_of(one))[:top_k].tolist()}
    never = [word for token, word in enumerate((" a", " b", ".")) if token not in kept]
    for engine_name in ("exact", "importance"):
        row = compile(program).infer(engine_name, lms={"LM": model, "PLAIN": model}, num_samples=100).rows[0]
        said = [one for one in row.warnings if "impossible behind every draw" in one]
        rest = f"of `Y` (line 4) is impossible behind every draw: `LM`, with top_k = {top_k}, never writes it"
        assert said == [f"option {word!r} {rest}" for word in never]
    assert never or top_k == 3 or "Z" in context
