"""Beam search: it goes on from what is cached, and finds the most probable texts."""

import itertools

import numpy as np
import pytest

from lmppl.compile import compile as compile_program
from lmppl.engines.beams import beam_search, growing_laws

TEXT = 'lm LM = "{model}"\nZ ~ LM(" b a b") max {most} tokens\n'


def target_of(folder, most):
    return compile_program(TEXT.format(model=folder, most=most)).bind()


def test_laws_of_growing_prefixes_are_those_from_the_start_at_a_token_each(tiny_folder):
    target = target_of(tiny_folder, 6)
    (model,) = target.models.values()
    laws = growing_laws(target.guided_stream("Z", {}), target.text_latent("Z").stopping)
    model.cost.tokens_decoded = 0
    for prefixes in ([()], [(0,), (2,), (1,)], [(2, 1), (0, 0), (2, 0)], [(2, 0, 1)]):
        whole = target.next_log_probs("Z", [{}] * len(prefixes), prefixes)
        grown = laws(prefixes)
        assert grown == pytest.approx(whole, abs=1e-5)
    assert model.cost.tokens_decoded == 3 + 3 + 1


@pytest.mark.parametrize("groups", [1, 2])
def test_wide_beams_find_the_most_probable_texts(tiny_folder, groups):
    most = 3
    target = target_of(tiny_folder, most)
    bound = target.text_latent("Z")
    laws = growing_laws(target.guided_stream("Z", {}), bound.stopping)
    found = beam_search(laws, bound.stopping, 80 * groups, groups, 0.0)
    texts = [text for n in range(most + 1) for text in itertools.product(range(3), repeat=n)]
    density = target.log_density([{"Z": text} for text in texts]).total
    best = [texts[i] for i in np.argsort(-density)]
    assert found[:5] == best[:5]
