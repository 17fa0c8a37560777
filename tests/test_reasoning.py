"""Word problems and how answers to them are judged: what benchmarks/reasoning.py counts."""

import random
import sys
from pathlib import Path

import pytest

import lmppl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import reasoning
import word_problems


def test_problems_are_the_same_under_a_seed_and_have_whole_answers():
    rows = word_problems.problems()
    assert rows == word_problems.problems()
    assert rows[0]["X"].startswith("Ben buys 7 notebooks. Each notebook costs 3 dollars. Ben pays with a 50-dollar")
    assert rows[0]["answer"] == 50 - 7 * 3
    assert len(rows) == len({row["X"] for row in rows}) == 40
    assert [sum(row["steps"] == steps for row in rows) for steps in (2, 3)] == [20, 20]
    assert all(isinstance(row["answer"], int) and row["answer"] > 0 for row in rows)
    assert word_problems.problems(seed=1) != rows


def test_shares_are_whole_whatever_the_seed():
    """Division is the one step that could leave a rest."""
    for seed in range(200):
        question, answer = word_problems.sharing(random.Random(seed).randint, "Anna", "Ben")
        trays, each, friends = (int(word) for word in question.split() if word.isdigit())
        assert answer * friends == trays * each


def test_what_is_believed_is_p_of_the_numbers_tokens_and_of_their_end():
    pieces, scores = (
        ["It is", " 7", ".\n", "Answer:", " ", "2", "9", "<|im_end|>"],
        [-9, -9, -9, -9, -8, -0.1, -0.2, -0.3],
    )
    assert reasoning.answered(pieces, scores) == (29, pytest.approx(2.718281828**-0.6))
    assert reasoning.answered(["1", ",", "200", "<|im_end|>"], [-1, -1, -1, 0])[0] == 1200
    assert reasoning.answered(["7", " and", " 8"], [-1, -1, -1], 0)[0] == 7
    assert reasoning.answered(["none"], [0.0]) == (None, 0.0)


def test_scores_by_hand():
    accuracy, brier, ece = reasoning.errors([0.95, 0.95, 0.55, 0.55], [True, False, True, False])
    assert accuracy == 0.5
    assert brier == pytest.approx((0.05**2 + 0.95**2 + 0.45**2 + 0.55**2) / 4)
    assert ece == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)


def test_the_programs_of_the_benchmark_check():
    for text in (reasoning.VOTE, reasoning.read([1, 29])):
        assert all(finding.code == "unused-name" for finding in lmppl.compile(text).analysis.findings)
