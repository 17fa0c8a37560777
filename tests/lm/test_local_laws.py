"""Local laws: what they keep, as transformers' own processors do, and what every model makes of them."""

import numpy as np
import pytest
import tiny
import torch
from test_laws_of_models import MODELS
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lmppl import ir
from lmppl.lm import Rows, summed
from lmppl.lm.local_law import FEW, shaped
from lmppl.lm.transformers.laws import log_law
from lmppl.testing import language_model_laws

LAWS = {
    "temperature": ir.LocalLaw(temperature=0.7),
    "top_k": ir.LocalLaw(top_k=2),
    "top_p": ir.LocalLaw(top_p=0.8),
    "min_p": ir.LocalLaw(min_p=0.1),
    "all": ir.LocalLaw(temperature=1.6, top_k=3, top_p=0.9, min_p=0.05),
}


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


def processed(scores, law):
    """What transformers makes of logits (B, V), in the order that it has."""
    processors = [TemperatureLogitsWarper(law.temperature), TopKLogitsWarper(law.top_k)]
    processors += [TopPLogitsWarper(law.top_p)] * (law.top_p < 1) + [MinPLogitsWarper(law.min_p)]
    for processor in processors:
        scores = processor(None, scores)
    return torch.log_softmax(scores, -1)


@pytest.mark.parametrize("size", [4, 50, 3 * FEW])
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_laws_are_what_transformers_makes_of_logits(law, size, spread):
    """Flat laws have more than FEW tokens inside top_p, so that these are looked for among more."""
    scores = torch.randn(64, size, generator=torch.Generator().manual_seed(size)) * spread
    torch.testing.assert_close(torch.log_softmax(shaped(scores, law), -1), processed(scores, law))


def test_tokens_of_one_score_are_kept_together():
    scores = torch.tensor([[3.0, 1.0, 1.0, 0.0, -2.0]])
    for law in (ir.LocalLaw(top_k=2), ir.LocalLaw(top_p=0.8), ir.LocalLaw(min_p=float(np.exp(-2.0)))):
        assert torch.isfinite(shaped(scores, law)).tolist() == [[True, True, True, False, False]]


def test_the_token_that_reaches_top_p_is_kept():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2]]))
    kept = {top_p: int(torch.isfinite(shaped(scores, ir.LocalLaw(top_p=top_p))).sum()) for top_p in (0.1, 0.6, 0.81)}
    assert kept == {0.1: 1, 0.6: 2, 0.81: 3}


def test_end_tokens_are_cut_away_one_by_one_before_they_are_one_event():
    logits = torch.log(torch.tensor([[0.4, 0.25, 0.2, 0.15]]))
    law = log_law(logits, [1, 3], ir.LocalLaw(top_k=3)).exp()
    torch.testing.assert_close(law, torch.tensor([[0.4, 0.25, 0.2, 0.0]]) / 0.85)


def test_gradients_go_through_what_is_left():
    scores = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    law = torch.log_softmax(shaped(scores, ir.LocalLaw(temperature=0.5, top_k=2)), -1)
    law[0, 1].backward()
    first = 1 / (1 + np.exp(-2.0))
    torch.testing.assert_close(scores.grad, torch.tensor([[-2 * first, 2 * first, 0.0]]).float())


@pytest.mark.parametrize("made", MODELS)
@pytest.mark.parametrize("promise", language_model_laws, ids=lambda promise: promise.__name__)
def test_models_under_local_laws_keep_the_laws_of_models(made, promise):
    model = MODELS[made]()
    for law in (LAWS["top_k"], LAWS["all"]):
        promise(model.under(law))


@pytest.mark.parametrize("made", MODELS)
def test_a_model_under_a_local_law_is_its_law_changed(made, law):
    """Where one token ends texts, it is what the law makes of whole laws; weights and work are shared."""
    model = MODELS[made]()
    other = model.under(law)
    prompt = model.begin(())
    plain = model.stream(prompt, [(), (0, 1)]).log_probs()
    if made != "several ends, a beginning":
        expected = torch.log_softmax(shaped(plain, law), -1)
        torch.testing.assert_close(other.stream(prompt, [(), (0, 1)]).log_probs(), expected)
    assert other.root is model.root is model
    assert other.cost is model.cost
    assert other.under(law) is other
    torch.testing.assert_close(model.stream(prompt, [(), (0, 1)]).log_probs(), plain)


def test_laws_with_gradients_are_those_that_are_scored(law):
    model = tiny.model(ends=("<end>", "<stop>")).under(law)
    prompt, texts = model.begin(()), [(0, 1, 2), (1,), (2, 2, 0)]
    opened = model.open_prompts([prompt])
    rows = Rows(prompt, texts, [0] * len(texts))
    found = summed(opened.laws([rows])[0], rows)
    expected = [float(score.sum()) for score in model.score(prompt, texts, [0] * len(texts))]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-4)
