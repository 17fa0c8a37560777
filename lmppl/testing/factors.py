"""Laws of factors: what a factor is worth, whichever way it is asked, on all states of tiny tables.

A law is given lines of a program that read the text `Z` and the choice `Y`, and what they are worth
in nats: a function of (score, texts), where texts has the texts of a state by name, and
`score(model, context, text)` is the log probability of a text's tokens behind a context. The models
are `LM` and `OTHER`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from lmppl.compile import compile
from lmppl.density import ARRAYS, TENSORS, Entry, Floats, State, Target, ask, prefix_log_density
from lmppl.lm import TableModel
from lmppl.testing.engines import TABLE

Score = Callable[[str, str, str], float]  # of (model, context, text), in nats
Worth = Callable[[Score, Mapping[str, str]], float]  # of (score, texts of a state), in nats

OTHER = {
    "vocabulary": [" a", " b", "."],
    "laws": {
        "": {" a": 0.2, " b": 0.2, ".": 0.5, "<end>": 0.1},
        " b": {" a": 0.6, " b": 0.1, ".": 0.1, "<end>": 0.2},
    },
}
HEAD = """lm LM = "a table"
lm OTHER = "another table"
Y ~ LM(" a") in [" b", "."]
Z ~ LM("{Y} a") max 3
"""
NEAR = 1e-6  # nats by which two ways to the same value may differ
STEP = 1e-5  # of differences that gradients are held against


def values_are_what_the_formula_says(lines: str, worth: Worth, near: float = NEAR) -> None:
    """Of every state, by brute force."""
    target, states = _target(lines)
    score = partial(_score, target)
    expected = [worth(score, view.texts) for view in target.spelling.views(states)]
    np.testing.assert_allclose(_values(target, states), expected, atol=near)


def states_do_not_hang_on_their_neighbours(lines: str, worth: Worth, near: float = NEAR) -> None:
    """What is asked together is what is asked alone."""
    target, states = _target(lines)
    alone = np.concatenate([_values(target, [state]) for state in states])
    np.testing.assert_allclose(_values(target, states), alone, atol=near)


def prefixes_are_worth_what_their_texts_are(lines: str, worth: Worth, near: float = NEAR) -> None:
    """Stopped after each of its tokens, along a tree, a text is worth what it is as a text."""
    target, states = _target(lines)
    for state, found in zip(states, prefix_log_density(target, "Z", states), strict=True):
        tokens = target.tokens("Z", state["Z"])
        stopped = [{**state, "Z": tokens[:length]} for length in range(len(tokens) + 1)]
        np.testing.assert_allclose(found.total, target.log_density(stopped).total, atol=near)


def gradients_are_differences(lines: str, worth: Worth, near: float = NEAR) -> None:
    """With gradients, the value is the same, and it changes with what models say as they tell."""
    target, states = _target(lines)
    for factor in target.program.scored_texts:
        values = target.log_density(states).factors[factor.name]
        possible = [state for state, value in zip(states, values, strict=True) if value > -np.inf]
        entry = target.entry(factor.name, target.spelling.views(possible))
        answers = ask(entry.scored)
        leaves = [torch.tensor(answer, requires_grad=True) for answer in answers]
        found = entry.fold(leaves, TENSORS)
        np.testing.assert_allclose(found.detach(), entry.fold(answers, ARRAYS), atol=near)
        found.sum().backward()
        for i, leaf in enumerate(leaves):
            assert leaf.grad is not None
            slopes = (_moved(entry, answers, i, STEP) - _moved(entry, answers, i, -STEP)) / STEP / 2
            by_owner = np.bincount(entry.scored[i].owners, leaf.grad.numpy(), len(possible))
            np.testing.assert_allclose(by_owner, slopes, atol=1e-4)


def no_value_is_above_the_bound(lines: str, worth: Worth, near: float = NEAR) -> None:
    """Rejection and search rely on it."""
    target, states = _target(lines)
    density = target.log_density(states)
    for factor in target.program.factors:
        highest, bound = density.factors[factor.name].max(), target.upper_bound_of(factor.name)
        assert highest <= bound + near, (factor.name, highest, bound)


def work_of_factors_is_counted(lines: str, worth: Worth, near: float = NEAR) -> None:
    """What asks models costs tokens, the same ones each time; what asks none costs none."""
    target, states = _target(lines)
    views = target.spelling.views(states)
    for factor in target.program.scored_texts:
        entry = target.entry(factor.name, views)
        asked = sum(len(scored.rows) for scored in entry.scored)
        spent = [_cost(target, entry) for _ in range(2)]
        assert spent[0] == spent[1], "the same work costs the same"
        assert (spent[0] > 0) == (asked > 0)


factor_laws: Sequence[Callable[..., None]] = (
    values_are_what_the_formula_says,
    states_do_not_hang_on_their_neighbours,
    prefixes_are_worth_what_their_texts_are,
    gradients_are_differences,
    no_value_is_above_the_bound,
    work_of_factors_is_counted,
)


def _target(lines: str) -> tuple[Target, list[State]]:
    """The program with these lines, and all its states that the priors leave possible."""
    models = {"LM": TableModel(TABLE), "OTHER": TableModel(OTHER, name="OTHER")}
    target = compile(f"{HEAD}{lines.strip()}\n").bind(lms=models)
    assert target.program.factors, "these lines have no factor"
    every: list[State] = [
        {"Y": choice, "Z": text}
        for choice in target.latent("Y").every_value()
        for text in target.latent("Z").every_value()
    ]
    prior = target.log_prior("Z", every)
    return target, [state for state, value in zip(every, prior, strict=True) if value > -np.inf]


def _values(target: Target, states: Sequence[State]) -> Floats:
    """(N,) of all factors together."""
    factors = target.log_density(states).factors
    return np.sum([factors[factor.name] for factor in target.program.factors], axis=0)


def _score(target: Target, name: str, context: str, text: str) -> float:
    model = target.models[name]
    prompt = model.begin(model.encode(context, markers=True, opening=True))
    return float(model.score(prompt, [model.encode(text, markers=False)], [0])[0].sum())


def _moved(entry: Entry, answers: Sequence[Floats], i: int, step: float) -> Floats:
    """(N,) values, where all answers to one question are moved by a step."""
    moved = [answer + step if j == i else answer for j, answer in enumerate(answers)]
    return entry.fold(moved, ARRAYS)


def _cost(target: Target, entry: Entry) -> int:
    """Tokens that its questions cost."""
    before = sum(model.cost.tokens_scored for model in target.models.values())
    for model in target.models.values():
        model.forget_prompts()
    ask(entry.scored)
    return sum(model.cost.tokens_scored for model in target.models.values()) - before
