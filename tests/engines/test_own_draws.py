"""Models that score and draw, and tell no laws, as servers do: which engines can use them, and what these find."""

import numpy as np
import pytest

import lmppl
from lmppl.decoding import Randomness
from lmppl.engines import Settings, engine
from lmppl.errors import LmpplError
from lmppl.lm import BaseScorer, Capability, TableModel
from lmppl.screen import quiet

TABLE = {
    "vocabulary": [" a", " b", "."],
    "laws": {
        "": {" a": 0.4, " b": 0.3, ".": 0.1, "<end>": 0.2},
        " a": {" b": 0.6, ".": 0.2, "<end>": 0.2},
        " b b": {" a": 0.5, "<end>": 0.5},
    },
}
PROGRAMS = {
    "evidence": 'Z ~ LM(" a") max 2\nobserve "." ~ LM(" b{Z}")\n',
    "until": 'Z ~ LM(" b") until "." max 3\n',
    "power": 'Z ~ LM(" b")^1.5 max 3\nfactor -0.7 * count(Z, "a")\n',
    "constraint": 'Z ~ LM(" a") max 2\nconstrain matches(Z, / [ab].*/)\n',
    "choice": 'Y ~ LM(" a") in [" b", "."]\nZ ~ LM("{Y}") max 2\nobserve " b" ~ LM("{Y}{Z}")\n',
}


class Server(BaseScorer):
    """A table behind a counter: it scores texts and draws them, and tells nothing else."""

    capabilities = frozenset({Capability.DRAWS})

    def __init__(self):
        self.table = TableModel(TABLE)
        super().__init__(self.table.tokenizer)

    def score(self, prompt, continuations, starts):
        return self.table.score(prompt, continuations, starts)

    def sample(self, prompt, suffixes, seeds, maximum, until=None):
        return self.table.sample(prompt, suffixes, seeds, maximum, until)


def compiled(body):
    return lmppl.compile(f'lm LM = "a server"\n{body}')


def run(name, target, num_samples=150):
    chosen = engine(name)
    settings = Settings(chains=4, num_samples=num_samples)
    return chosen.run(target, settings, chosen.options(), Randomness(0, 0), quiet)


@pytest.mark.parametrize("name", ["importance", "prompting"])
@pytest.mark.parametrize("body", PROGRAMS.values(), ids=PROGRAMS)
def test_what_draws_and_scores_is_inferred_by_weights(body, name):
    target = compiled(body).bind(lms={"LM": TableModel(TABLE)})
    exact = run("exact", target).log_evidence
    found = run(name, compiled(body).bind(lms={"LM": Server()}))
    assert abs(found.log_evidence - exact) < 5 * found.log_evidence_se + 1e-9
    states = [sample.state for sample in found.samples]
    assert len({str(state) for state in states}) > 3
    expected = target.log_density(states).total
    np.testing.assert_allclose([sample.log_density for sample in found.samples], expected)


def test_draws_do_not_depend_on_their_batch():
    program = compiled(PROGRAMS["evidence"])
    targets = [program.bind(lms={"LM": Server()}, batch_size=size) for size in (64, 3)]
    runs = [run("importance", target, 10).samples for target in targets]
    assert [sample.state for sample in runs[0]] == [sample.state for sample in runs[1]]


@pytest.mark.parametrize(
    ("body", "name", "options"),
    [
        (PROGRAMS["evidence"], "mcmc", {}),
        (PROGRAMS["evidence"], "exact", {}),
        (PROGRAMS["evidence"], "importance", {"temperatures": (1.0, 0.5)}),
        (PROGRAMS["evidence"], "prompting", {"method": "greedy"}),
        (PROGRAMS["evidence"], "prompting", {"temperature": 0.5}),
        ('Z ~ LM(" a")^0.5 * LM(" b")^0.5 max 2\n', "importance", {}),
        ('Z ~ LM(" a") with calculator max 2\n', "importance", {}),
    ],
)
def test_what_needs_laws_is_said_before_anything_is_run(body, name, options):
    model = Server()
    with pytest.raises(LmpplError, match="it has no probabilities of every next token") as raised:
        compiled(body).infer(name, lms={"LM": model}, options=options)
    assert raised.value.diagnostics[0].code == "model-cannot"
    assert model.table.cost.forward_passes == 0


def test_that_nothing_guides_such_draws_is_said():
    row = compiled(PROGRAMS["constraint"]).infer("importance", lms={"LM": Server()}, num_samples=10).rows[0]
    assert any("the model draws texts by itself" in warning for warning in row.warnings)
