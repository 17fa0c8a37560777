"""Simulated states and texts follow the program's joint law, and condition the target by their tokens."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import simulated
import tiny

from lmppl.data.rows import Row
from lmppl.decoding.randomness import Randomness
from lmppl.errors import LmpplError
from lmppl.validation.simulate import Simulator


@pytest.fixture(scope="module")
def models():
    return simulated.models()


def simulator(models, text=simulated.TEXT, row=simulated.ROW):
    return Simulator(simulated.program(text), models, row)


def draws(simulator, count):
    return [simulator.draw(Randomness(0, n)) for n in range(count)]


def close(counts, law, count):
    """Raises where Pearson's statistic is far above its degrees of freedom."""
    expected = np.array([law[key] * count for key in law])
    found = np.array([counts[key] for key in law])
    assert abs(sum(law.values()) - 1) < 1e-4
    assert ((found - expected) ** 2 / expected).sum() < len(law) + 5 * np.sqrt(2 * len(law))


@pytest.mark.slow
def test_joint_law_is_the_models_own(models):
    """Z may end by itself; Y is one token, the end token among them, of the law that follows Z."""
    text = simulated.TEXT.replace("max 3", "max 1")
    found = draws(simulator(models, text, Row({"X": " a b", "Y": "."}, {})), 400)
    counts = Counter((s.state["Z"], s.target.scored_text("observe Y").tokens[0]) for s in found)
    words = models["LM"].tokenizer.get_vocab()
    end = words[tiny.END]
    law = {}
    for z, y in itertools.product(words.values(), words.values()):
        prior = tiny.reference_log_prob(models["LM"], [words[" a"], words[" b"]], [z])
        kept = () if z == end else (z,)
        likelihood = tiny.reference_log_prob(models["LM"], [words[" a"], *kept], [y])
        law[kept, (y,)] = np.exp(prior + likelihood)
    close(counts, law, 400)


@pytest.mark.slow
def test_constraints_and_ends_are_met_by_rejection(models):
    """The prior under them, by brute force; its masks and its forbidden end token are no part of it."""
    text = 'lm LM = "tiny"\nZ ~ LM(" a b") until "." max 3 tokens\nconstrain not contains(Z, "a b")\n'
    made = simulator(models, text, Row({}, {}))
    found = draws(made, 150)
    words = models["LM"].tokenizer.get_vocab()
    a, b, dot = words[" a"], words[" b"], words["."]
    texts = [(*start, dot) for n in range(3) for start in itertools.product([a, b], repeat=n) if start != (a, b)]
    joint = [np.exp(tiny.reference_log_prob(models["LM"], [a, b], tokens)) for tokens in texts]
    close(Counter(s.state["Z"] for s in found), dict(zip(texts, np.array(joint) / sum(joint), strict=True)), 150)


def test_tokens_condition_the_target_not_their_text(models):
    """Decoding and encoding would give the end token's name as text; the target scores the tokens themselves."""
    found = draws(simulator(models), 30)
    end = models["LM"].end
    lengths = {len(s.target.scored_text("observe Y").tokens[0]) for s in found}
    assert lengths == {len(models["LM"].encode(simulated.ROW.givens["Y"], markers=False))}
    with_end = next(s for s in found if end in s.target.scored_text("observe Y").tokens[0])
    words = models["LM"].tokenizer.get_vocab()
    tokens = with_end.target.scored_text("observe Y").tokens[0]
    expected = tiny.reference_log_prob(models["LM"], [words[" a"], *with_end.state["Z"]], tokens)
    assert abs(with_end.target.log_density([with_end.state]).factors["observe Y"][0] - expected) < 1e-4


def test_observed_latents_are_simulated(models):
    text = 'lm LM = "tiny"\nZ ~ LM(" a") max 2\nY ~ LM(" b{Z}") in [" a", " b a", "."]\npredict Y\n'
    found = draws(simulator(models, text, Row({}, {"Y": "."})), 40)
    assert len({s.target.observed["Y"] for s in found}) > 1
    assert all(set(s.state) == {"Z"} for s in found)


def test_one_randomness_gives_one_simulation(models):
    first, second = (simulator(models).draw(Randomness(3, 5)) for _ in range(2))
    assert first.state == second.state
    assert first.target.scored_text("observe Y").tokens == second.target.scored_text("observe Y").tokens


HEAD = 'lm LM = "tiny"\ngiven X, Y\nZ ~ LM(X) max 3\n'
OBSTACLES = {
    "power": ('lm LM = "tiny"\nZ ~ LM(" a")^2 max 3\n', 2, "power or a product"),
    "product": ('lm LM = "tiny"\nZ ~ LM(" a")^0.5 * LM(" b")^0.5 max 3\n', 2, "power or a product"),
    "factor": (f"{HEAD}observe Y | Z\nfactor -1 * words(Z)\n", 5, "weight"),
    "literal": (f'{HEAD}observe " a" | X, Y, Z\n', 4, "part of the program"),
    "tempered observation": (f"{HEAD}observe Y ~ LM(X, Z)^2\n", 4, "power or a product"),
    "observed twice": (f"{HEAD}observe Y | Z\nobserve Y | X, Z\n", 4, "elsewhere"),
    "read by the prior": ('lm LM = "tiny"\ngiven Y\nZ ~ LM(Y) max 3\nobserve Y | Z\n', 4, "elsewhere"),
    "read through a derived value": (f'{HEAD}derive A = lower(Y)\nobserve Y ~ LM("{{X}}{{Z}}{{A}}")\n', 5, "elsewhere"),
    "read by a constraint": (f"{HEAD}observe Y | X, Z\nconstrain not contains(Y, Z)\n", 4, "elsewhere"),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_cannot_be_simulated_is_said_with_its_line(name, models):
    text, line, part = OBSTACLES[name]
    with pytest.raises(LmpplError, match=part) as caught:
        simulator(models, text)
    first = caught.value.diagnostics[0]
    assert first.code == "cannot-simulate"
    assert first.source.position(first.span.start)[0] == line


def test_nothing_to_infer_and_hopeless_constraints_are_errors(models):
    with pytest.raises(LmpplError, match="observes every latent"):
        simulator(models, row=Row(simulated.ROW.givens, {"Z": " a"}))
    never = 'lm LM = "tiny"\nZ ~ LM(" a") max 1\nconstrain chars(Z) * 2 == 1\n'
    with pytest.raises(LmpplError, match=r"all .* draws have probability 0"):
        replace(simulator(models, never, Row({}, {})), most_attempts=300).draw(Randomness(0, 0))


def test_guides_may_read_what_is_observed(models):
    made = simulator(models, f'{simulated.TEXT}guide Z | " a{{Y}}"\n').draw(Randomness(0, 1))
    assert made.target.guide("Z").context.prompt_text.startswith(" a")
