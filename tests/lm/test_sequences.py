"""What llama.cpp is given to run: every text whole, and nothing twice. Needs no llama.cpp."""

import numpy as np
import pytest

from lmppl.lm.llama_cpp.sequences import Sequences


class Memory:
    """Texts by sequence, as they come about where plans are carried out."""

    def __init__(self):
        self.texts = {}
        self.run = 0

    def carry_out(self, plan):
        for place in plan.places:  # copies first, then cuts: see Context.settle
            if place.home != place.source:
                self.texts[place.home] = self.texts[place.source][: place.length]
        for place in plan.places:
            self.texts[place.home] = self.texts.get(place.home, ())[: place.length]
        for node in plan.nodes:
            for sequence in node.sequences:
                assert node.position == len(self.texts[sequence]), "behind what it follows"
                self.texts[sequence] += (node.token,)
        self.run += len(plan.nodes)
        return plan.nodes


@pytest.mark.parametrize("seed", range(20))
def test_every_row_stands_in_a_sequence_of_its_own(seed):
    rng = np.random.default_rng(seed)
    sequences, memory = Sequences(4), Memory()
    for _ in range(30):
        texts = {tuple(map(int, rng.integers(2, size=rng.integers(1, 8)))) for _ in range(rng.integers(1, 5))}
        rows = [(text, int(rng.integers(1, len(text) + 1))) for text in texts]
        plan = sequences.plan(rows)
        memory.carry_out(plan)
        homes = [place.home for place in plan.places]
        assert len({*homes}) == len(rows)
        assert [memory.texts[home] for home in homes] == [text for text, _ in rows]
        for (text, first), path in zip(rows, plan.paths, strict=True):
            asked = path[first - 1 - len(text) :]
            assert [node.token for node in asked] == list(text[first - 1 :])
            assert all(node.asked for node in asked)
        assert {n: tokens for n, tokens in sequences.held.items() if tokens} == memory.texts


def test_texts_that_grow_by_a_token_are_run_by_that_token():
    sequences, memory = Sequences(4), Memory()
    prompt = (9,) * 50
    rows = [(*prompt, token) for token in range(4)]
    memory.carry_out(sequences.plan([(row, len(row)) for row in rows]))
    assert memory.run == 50 + 4  # the prompt once
    grown = [(*row, 5) for row in rows]
    memory.carry_out(sequences.plan([(row, len(row)) for row in grown]))
    assert memory.run == 50 + 4 + 4
    resampled = [(*grown[0], token) for token in range(4)]
    memory.carry_out(sequences.plan([(row, len(row)) for row in resampled]))
    assert memory.run == 50 + 4 + 4 + 4


def test_the_text_that_was_used_longest_ago_gives_way():
    sequences, memory = Sequences(2), Memory()
    for row in [(1, 1, 1), (2, 2), (1, 1, 1, 1), (3,)]:
        memory.carry_out(sequences.plan([(row, len(row))]))
    assert {*memory.texts.values()} == {(1, 1, 1, 1), (3,)}
    assert memory.run == 3 + 2 + 1 + 1


def test_what_is_asked_for_is_run_again_though_it_is_held():
    sequences, memory = Sequences(2), Memory()
    memory.carry_out(sequences.plan([((1, 2, 3), 3)]))
    nodes = memory.carry_out(sequences.plan([((1, 2, 3), 2)]))
    assert [node.token for node in nodes] == [2, 3]
