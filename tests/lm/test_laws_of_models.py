"""The laws that ship with lmppl, on models and engines of our own; and that they bite."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from lmppl.engines import engine
from lmppl.errors import LmpplError
from lmppl.lm import TableModel
from lmppl.lm.transformers.uncached import UncachedModel
from lmppl.testing import engine_laws, language_model_laws
from lmppl.testing.engines import TABLE

MODELS = {
    "transformers": tiny.model,
    "several ends, a beginning": lambda: tiny.model(ends=("<end>", "<stop>"), bos=True),
    "without a cache": lambda: UncachedModel(*tiny.build()),
    "a table": lambda: TableModel(TABLE),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.mark.parametrize("law", language_model_laws, ids=lambda law: law.__name__)
def test_models_keep_the_laws(law, model):
    law(model)


class Broken(TableModel):
    """A table with something wrong."""

    def __init__(self, what):
        super().__init__(TABLE)
        self.what = what

    def next_laws(self, rows):
        laws = super().next_laws(rows)
        if self.what == "laws that do not add up":
            return [law + 0.1 for law in laws]
        if self.what == "rows that hang together" and len(rows) > 1:
            return [np.log(0.5 * np.exp(law) + 0.5 / law.shape[1]) for law in laws]
        if self.what == "work that is not counted":
            self.cost.forward_passes -= 1
        return laws

    def score_prefixes(self, prompt, continuations, starts, closing=None):
        found = super().score_prefixes(prompt, continuations, starts, closing)
        if self.what == "prefixes that close one token late":
            return [(own, np.roll(closed, 1)) for own, closed in found]
        return found

    def score_trees(self, prompt, groups):
        found = super().score_trees(prompt, groups)
        return [np.abs(scores) for scores in found] if self.what == "trees of another sign" else found

    def sample(self, prompt, suffixes, seeds, maximum, until=None):
        if self.what == "draws of a colder model":
            seeds = [min((seed, seed + 1), key=lambda s: -self._first(prompt, s)) for seed in seeds]
        found = super().sample(prompt, suffixes, seeds, maximum, until)
        if self.what == "draws that are scored at another temperature":
            return [replace(one, log_probs=2 * one.log_probs) for one in found]
        return found

    def _first(self, prompt, seed):
        """How probable the first token of a seed's text is."""
        return super().sample(prompt, [()], [seed], 1)[0].log_probs[0]

    def decode(self, tokens):
        text = super().decode(tokens)
        return text.strip() if self.what == "texts that lose a space" else text


@pytest.mark.parametrize(
    "what",
    [
        "laws that do not add up", "rows that hang together", "work that is not counted",
        "prefixes that close one token late", "trees of another sign", "texts that lose a space",
        "draws of a colder model", "draws that are scored at another temperature",
    ],
)  # fmt: skip
def test_the_laws_bite(what):
    broken = []
    for law in language_model_laws:
        try:
            law(Broken(what))
        except (AssertionError, LmpplError):
            broken.append(law.__name__)
    assert broken


@pytest.mark.parametrize("law", engine_laws, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", ["importance", "exact"])
def test_engines_keep_the_laws(law, name):
    law(engine(name))


def blind(target, settings, options, randomness, progress):
    """Importance sampling that forgets its weights."""
    outcome = engine("importance").run(target, settings, options, randomness, progress)
    return replace(outcome, samples=[replace(sample, log_weight=0.0) for sample in outcome.samples], log_evidence=0.0)


def test_the_laws_of_engines_bite():
    broken = replace(engine("importance"), run=blind)
    for law in (engine_laws[0], engine_laws[3]):
        with pytest.raises(AssertionError):
            law(broken)


def test_another_end_is_the_same_event(model):
    prompt = model.begin((0,))
    before = model.laws(prompt, [(0,)], [0])[0][0].double().exp()
    model.end_also(1)
    model.end_also(1)  # once is enough
    model.forget_prompts()
    law = model.laws(prompt, [(0,)], [0])[0][0].double().exp()
    assert law[1] == 0
    assert abs(law[model.end] - before[model.end] - before[1]) < 1e-6
    grown = model.stream(prompt, [()]).log_probs()[0].double().exp()
    assert abs(grown - law).max() < 1e-5
    (score,) = model.score(prompt, [(model.end,)], [0])
    assert abs(np.exp(score[0]) - float(law[model.end])) < 1e-5
