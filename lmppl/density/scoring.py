"""What models are asked for a density, and two ways to ask: row by row, and prefixes as a tree.

Questions are gathered first and asked together, so that what they have in common is run once. A
context that another one goes on from, as that of an observation behind a text goes on from the
text's own, needs no pass of its own. Knows token ids and models, and nothing of what the answers
are for. A third way, with gradients, is in gradients.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl.density.folding import ARRAYS, Folding
from lmppl.lm import LanguageModel, Row, Tokens

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """log p(scored tokens | what is before them) of R rows behind one prompt, under one model."""

    model: LanguageModel
    prompt: Tokens
    rows: Sequence[Row]  # (R,) what follows the prompt, and how many of its tokens are not scored
    owners: Sequence[int]  # (R,) which of the N states each belongs to, in ascending order


@dataclass(frozen=True)
class Entry:
    """What models are asked of N states, and the value that follows from their answers.

    fold: of (R,) log probabilities for each of `scored`, and of what adds them up: arrays, or
    tensors where gradients are wanted. Its value is (N,), in nats.
    """

    scored: Sequence[Scored]
    fold: Callable[[Sequence[Any], Folding], Any]


def evaluated(entries: Sequence[Entry]) -> list[Floats]:
    """(N,) of every entry; all of their questions are asked at once."""
    return _folded(entries, ask([scored for entry in entries for scored in entry.scored]))


def evaluated_along(entries: Sequence[Entry], trees: Sequence[int]) -> list[Floats]:
    """(N,) of every entry, whose states are prefixes of few texts.

    trees: (N,) which text each state is a prefix of. What rows of one tree begin with is run once.
    """
    return _folded(entries, [_climb(s, trees) for entry in entries for s in entry.scored])


def _folded(entries: Sequence[Entry], answers: Sequence[Floats]) -> list[Floats]:
    following = iter(answers)
    values = []
    for entry in entries:
        own = islice(following, len(entry.scored))
        values.append(entry.fold([*own], ARRAYS))
    return values


def ask(questions: Sequence[Scored]) -> list[Floats]:
    """(R,) answers to each question. Rows of models that share weights are scored together, equal
    ones behind one prompt once.
    """
    alike: dict[int, list[int]] = {}
    for i, question in enumerate(questions):
        alike.setdefault(id(question.model.root), []).append(i)
    answers: dict[int, Floats] = {}
    for own in alike.values():
        answers |= zip(own, _ask_one([questions[i] for i in own]), strict=True)
    return [answers[i] for i in range(len(questions))]


def _ask_one(questions: Sequence[Scored]) -> list[Floats]:
    """(R,) answers to each question, to models that share weights."""
    rows: dict[Tokens, dict[Row, None]] = {}
    for question in questions:
        rows.setdefault(question.prompt, {}).update(dict.fromkeys(question.rows))
    models = list({id(question.model): question.model for question in questions}.values())
    asked = [(prompt, list(some)) for prompt, some in rows.items()]
    known: dict[tuple[int, Tokens], dict[Row, float]] = {}
    if len(models) == 1:
        every = [models[0].score_all(asked)]
    else:
        every = models[0].score_all_by(models, asked)
    for model, found in zip(models, every, strict=True):
        for (prompt, some), scores in zip(asked, found, strict=True):
            totals = [float(score.sum()) for score in scores]
            known[id(model), prompt] = dict(zip(some, totals, strict=True))
    answers = []
    for question in questions:
        own = known[id(question.model), question.prompt]
        answers.append(np.array([own[row] for row in question.rows], dtype=np.float64))
    return answers


def _climb(question: Scored, trees: Sequence[int]) -> Floats:
    """(R,) answers; the rows of one tree share what they begin with, equal trees are run once."""
    if not question.rows:
        return np.zeros(0)
    groups: dict[int, list[Row]] = {}
    for row, owner in zip(question.rows, question.owners, strict=True):
        groups.setdefault(trees[owner], []).append(row)
    rows = [tuple(group) for group in groups.values()]
    unique = list(dict.fromkeys(rows))
    scores = question.model.score_trees(question.prompt, unique)
    known = dict(zip(unique, scores, strict=True))
    return np.concatenate([known[group] for group in rows])
