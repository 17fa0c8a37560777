"""Questions to language models, gathered first and asked together, so that what they have in common
is run once.

A context that another one goes on from, as that of an observation behind a text goes on from the
text's own, needs no pass of its own. Knows token ids and models, and nothing of what the answers
are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmppl.lm import LanguageModel, Row, Tokens

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """log p(scored tokens | what is before them) of N rows behind one prompt, under one model."""

    model: LanguageModel
    prompt: Tokens
    rows: Sequence[Row]  # (N,)


@dataclass(frozen=True)
class Entry:
    """What N states are asked for, and the value that follows from the answers, (N,) a question."""

    questions: Sequence[Question]
    value: Callable[[Sequence[Floats]], Floats]


def evaluated(entries: Sequence[Entry]) -> list[Floats]:
    """(N,) of every entry; all of their questions are asked at once."""
    answers = iter(ask([question for entry in entries for question in entry.questions]))
    return [entry.value([next(answers) for _ in entry.questions]) for entry in entries]


def ask(questions: Sequence[Question]) -> list[Floats]:
    """(N,) answers to each question. Rows of one model are scored together, equal ones behind one
    prompt once.
    """
    rows: dict[tuple[int, Tokens], dict[Row, float]] = {}
    models = {id(question.model): question.model for question in questions}
    for question in questions:
        rows.setdefault((id(question.model), question.prompt), {}).update(
            dict.fromkeys(question.rows, 0.0)
        )
    for key, model in models.items():
        behind = {prompt: list(some) for (owner, prompt), some in rows.items() if owner == key}
        for (prompt, some), scores in zip(
            behind.items(), model.score_all(list(behind.items())), strict=True
        ):
            rows[key, prompt] = {
                row: float(score.sum()) for row, score in zip(some, scores, strict=True)
            }
    return [
        np.array(
            [rows[id(question.model), question.prompt][row] for row in question.rows],
            dtype=np.float64,
        )
        for question in questions
    ]
