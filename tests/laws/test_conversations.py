"""Laws of conversations, against brute force: the end of a turn and the end of the text are one event."""

import itertools
import math

import numpy as np
import pytest
import tiny
from test_samplers import ENGINES, SMALL, THREE_SIGMA, histogram, largest_by_chance, total_variation
from transformers import AddedToken

from lmppl.compile import analyse
from lmppl.data.rows import Row
from lmppl.errors import raise_errors
from lmppl.lm import ChatTemplate, talk
from lmppl.run import Request, run
from lmppl.source import Source

MARKERS = ("<user>", "<bot>", "<turn>")
TEMPLATE = (
    "{% for message in messages %}{{ '<bot>' if message['role'] == 'assistant' else '<user>' }}"
    "{{ message['content'] }}<turn>{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)
POWERS = {"plain": 1.0, "tempered": 1.7}
OPTIONS = (" a", " b.")
EXTRAS = {
    "nothing": "",
    "hard": 'constrain not contains(Z, "a b") and tokens(Z) >= 1',
    "observe": 'observe " b" ~ LM(user " a", assistant Z, user " b.")^0.7',
    "choice": 'Y ~ LM(user " a", assistant Z, user ".", assistant " b") in [" a", " b."]\npredict Y',
    "branch": (  # a turn that need not be there, and an arm of it
        'K ~ LM(user " a") in [" a", " b."]\nW ~ LM(user X, assistant Z, user "{K}") max 1 tokens when K == " a"\n'
        'observe " b" ~ LM(user "{W}.", assistant " a") when K == " a"\nobserve " a" ~ LM(user W, assistant K)'
    ),
    "beginning": 'W ~ LM(user "{Z}", assistant " b")^1.2 max 1 tokens',
}
CELLS = list(itertools.product(POWERS, EXTRAS))
GUIDED = "guide Z | user X\n"


@pytest.fixture(scope="module")
def model():
    chosen = tiny.tokenizer()
    chosen.add_tokens([AddedToken(marker, special=True) for marker in MARKERS])
    found = tiny.model(chosen=chosen, seed=6)
    found.chat = ChatTemplate(TEMPLATE)
    return found


def program(cell, model, rest=""):
    power, extra = cell
    text = (
        f'lm LM = "tiny"\ngiven X\nZ ~ LM(system " b", user X)^{POWERS[power]:g} max 2 tokens\n{EXTRAS[extra]}\n{rest}'
    )
    analysis = analyse(Source("-".join(cell), text), ".")
    raise_errors(one for one in analysis.findings if one.severity == "error")
    talk(model, analysis.program.models[0], ".")
    return analysis.program


ROW = Row({"X": " a."}, {})


class Reference:
    """The density, token by token, with what the template writes spelled out by hand."""

    def __init__(self, cell, model):
        self.cell, self.model = cell, model
        self.ids = model.tokenizer.get_vocab()
        self.names = {token: name for name, token in self.ids.items()}
        self.ends = [self.ids[tiny.END], self.ids["<turn>"]]

    def tokens(self, text):
        result = []
        while text:
            name = max((n for n in self.ids if text.startswith(n)), key=len)
            result.append(self.ids[name])
            text = text[len(name) :]
        return result

    def log_prob(self, context, tokens):
        total, sequence = 0.0, list(context)
        for token in tokens:
            law = tiny.reference_law(self.model, sequence)
            total += float(law[self.ends].logsumexp(0) if token in self.ends else law[token])
            sequence.append(token)
        return total

    def texts(self, most):
        ordinary = [token for token in self.ids.values() if token not in self.ends]
        return [t for n in range(most + 1) for t in itertools.product(ordinary, repeat=n)]

    def text(self, context, tokens, most):
        return self.log_prob(context, tokens if len(tokens) == most else [*tokens, self.ends[0]])

    def law(self):
        """Values → probability, and the log evidence."""
        power, extra = POWERS[self.cell[0]], self.cell[1]
        opened = self.tokens("<user> b<turn><user> a.<turn><bot>")
        found = {}
        for z in self.texts(2):
            prior, string = power * self.text(opened, z, 2), "".join(self.names[token] for token in z)
            for more, value in self.rest(extra, z, string):
                found[(string, *more)] = prior + value
        evidence = np.logaddexp.reduce(list(found.values()))
        return {key: math.exp(value - evidence) for key, value in found.items()}, float(evidence)

    def rest(self, extra, z, string):
        if extra == "hard" and ("a b" in string or not z):
            return
        said = [*self.tokens("<user> a<turn><bot>"), *z, *self.tokens("<turn>")]
        if extra == "observe":
            yield (), 0.7 * self.log_prob([*said, *self.tokens("<user> b.<turn><bot>")], self.tokens(" b"))
        elif extra == "choice":
            context = [*said, *self.tokens("<user>.<turn><bot> b")]
            scores = [self.log_prob(context, self.tokens(option)) for option in OPTIONS]
            for option, score in zip(OPTIONS, scores, strict=True):
                yield (option,), score - np.logaddexp.reduce(scores)
        elif extra == "branch":
            yield from self.branches(said)
        elif extra == "beginning":
            context = [*self.tokens("<user>"), *z, *self.tokens("<turn><bot> b")]
            for w in self.texts(1):
                yield ("".join(self.names[token] for token in w),), 1.2 * self.text(context, w, 1)
        else:
            yield (), 0.0

    def branches(self, said):
        """The last turn of `said` is where W's turn goes on behind Z."""
        scores = [self.log_prob(self.tokens("<user> a<turn><bot>"), self.tokens(option)) for option in OPTIONS]
        said = [*self.tokens("<user> a.<turn><bot>"), *said[len(self.tokens("<user> a<turn><bot>")) :]]
        for option, score in zip(OPTIONS, scores, strict=True):
            prior = score - np.logaddexp.reduce(scores)
            opened = [*said, *self.tokens(f"<user>{option}<turn><bot>")]
            for w in self.texts(1) if option == " a" else [None]:
                last = [*self.tokens("<user>"), *(w or ()), *self.tokens(f"<turn><bot>{option}")]
                value = prior + self.log_prob(last, self.tokens(" a"))
                if w is not None:
                    before = [*self.tokens("<user>"), *w, *self.tokens(".<turn><bot> a")]
                    value += self.text(opened, w, 1) + self.log_prob(before, self.tokens(" b"))
                yield (option, None if w is None else "".join(self.names[token] for token in w)), value


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_densities_are_those_of_brute_force(cell, model):
    law, evidence = Reference(cell, model).law()
    row = run(program(cell, model), [ROW], {"LM": model}, Request("exact", {"chains": 1, "num_samples": 5})).rows[0]
    assert abs(row.log_evidence - evidence) < 1e-4
    found = {tuple(state.values.values()): state.probability for state in row.support}
    assert total_variation(law, found) < 1e-4


def test_probabilities_of_a_turn_add_up_to_one(model):
    _, evidence = Reference(("plain", "nothing"), model).law()
    assert abs(evidence) < 1e-4


ENGINE_CELLS = [
    pytest.param(engine, cell, id="-".join((engine, *cell)), marks=() if quick else pytest.mark.slow)
    for engine in ENGINES
    if engine != "exact"
    for cell in CELLS
    if cell[1] != "branch" or (cell[0] == "plain" and engine != "rejection")  # which accepts one in a thousand
    for quick in [engine == "importance" and cell == ("plain", "beginning")]
]


@pytest.mark.parametrize(("engine", "cell"), ENGINE_CELLS)
def test_draws_follow_the_posterior(engine, cell, model):
    law, evidence = Reference(cell, model).law()
    options = {
        **SMALL.get(engine, {}),
        **({"temperature": 0.6} if (engine, cell[0]) == ("rejection", "tempered") else {}),
    }
    for seed in (CELLS.index(cell), 1000 + CELLS.index(cell)):  # an error is missed twice
        slow = {"num_warmup": 200} if (engine, cell[1]) == ("mcmc", "branch") else {}  # few moves leave an arm
        request = Request(engine, ENGINES[engine] | slow, options, seed, batch_size=512)
        row = run(program(cell, model), [ROW], {"LM": model}, request).rows[0]
        size = 1 / (row.weights**2).sum() if engine == "importance" else len(row.draws)
        most = largest_by_chance(law, size, np.random.default_rng(0), THREE_SIGMA) + 1e-3
        near = total_variation(law, histogram(row)) < most
        if near and (row.log_evidence is None or abs(row.log_evidence - evidence) < 4 * row.log_evidence_se + 1e-3):
            return
    pytest.fail("draws are too far from the posterior, twice")


@pytest.mark.slow
def test_a_policy_is_trained_behind_turns(model):
    cell = ("tempered", "observe")
    law, _ = Reference(cell, model).law()
    options = {"steps": 60, "learning_rate": 0.02, "rank": 8}
    request = Request("gflownet", {"chains": 4, "num_samples": 250}, options, 0)
    row = run(program(cell, model, GUIDED), [ROW], {"LM": model}, request).rows[0]
    assert total_variation(law, histogram(row)) < 0.15
