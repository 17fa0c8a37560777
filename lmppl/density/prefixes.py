"""The density of a program at every prefix of one text, each stopped there: rewards along a
trajectory.

A text stops by its end token, which is scored, or by being cut. Where it ends with an `until` text,
a prefix is closed by one canonical end token, which becomes part of it; the text itself is taken as
it is. Every language model's factor that reads the text is scored at all prefixes together, what
they share being run once (lm/tree.py); those that do not read it are scored once a state. All
numbers are in nats, in float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmppl.decoding import FREE, Stopping
from lmppl.density.kinds import BoundText
from lmppl.density.scoring import Floats, evaluated_along
from lmppl.density.target import Target
from lmppl.density.terms import BoundTerm
from lmppl.density.values import Density, State
from lmppl.density.views import View
from lmppl.lm import LanguageModel, Row, Tokens

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PrefixRewards:
    """What a program says of one text of T tokens at its prefixes of 0..T tokens."""

    # (T + 1,) log density of the program, the text stopped there; -inf where it is impossible
    total: Floats
    # (T + 1,) log prior of the first t tokens, the prior's powers applied, nothing said about
    # stopping
    prior: Floats
    # the canonical end token; None where the end token ends a text, or no one token can
    closing: int | None


@dataclass(frozen=True)
class _Stopped:
    """One prefix that stops: a state of the program, spelled out for contexts."""

    owner: int  # which of the given states it is a prefix of
    length: int  # t, the canonical end token not counted
    value: Tokens  # of the text
    state: State
    view: View


def prefix_log_density(
    target: Target,
    name: str,
    states: Sequence[State],
    marginal: Sequence[str] = (),
    lengths: Sequence[Collection[int]] | None = None,
) -> list[PrefixRewards]:
    """Rewards of a text latent's prefixes, one entry a state; other latents keep the state's
    values.

    marginal: choice latents that are summed out of the total, so that the state's values of them do
    not matter; the text's own contexts may not read them. lengths: per state, of the prefixes to
    score; the others' total is -inf.
    """
    if marginal:
        return _summed_out(target, name, states, marginal, lengths)
    bound = target.text_latent(name)
    closing = closing_token(bound.stopping, bound.terms[0].model)
    priors = _priors(target, bound, states, closing)
    stopped = [
        s
        for i, state in enumerate(states)
        for s in _stop_everywhere(target, bound, i, state, closing)
    ]
    if lengths is not None:
        stopped = [s for s in stopped if s.length in lengths[s.owner]]
    totals = [np.full(len(running), -np.inf) for running, _ in priors]
    own = np.array([_own_prior(bound.stopping, s, *priors[s.owner]) for s in stopped])
    for s, value in zip(stopped, _log_density(target, name, states, stopped, own), strict=True):
        totals[s.owner][s.length] = value
    return [
        PrefixRewards(total, running, closing)
        for total, (running, _) in zip(totals, priors, strict=True)
    ]


def _summed_out(
    target: Target,
    name: str,
    states: Sequence[State],
    marginal: Sequence[str],
    lengths: Sequence[Collection[int]] | None,
) -> list[PrefixRewards]:
    """Every combination of options as a state of its own, and the log of the sum."""
    assert not target.text_latent(name).reads & set(marginal)
    options = [target.choice_latent(choice).alternatives for choice in marginal]
    values = [
        dict(zip(marginal, combination, strict=True)) for combination in itertools.product(*options)
    ]
    whole = [{**state, **value} for state in states for value in values]
    some = None if lengths is None else [own for own in lengths for _ in values]
    rewards = prefix_log_density(target, name, whole, lengths=some)
    results = []
    for start in range(0, len(rewards), len(values)):
        some = rewards[start : start + len(values)]
        total = np.logaddexp.reduce([one.total for one in some], axis=0)
        results.append(PrefixRewards(total, some[0].prior, some[0].closing))
    return results


# --- where a text stops ---------------------------------------------------------------------------


def closing_token(stopping: Stopping, model: LanguageModel) -> int | None:
    """The token that is the `until` text, else the shortest that holds it. None where there is
    none, or no `until`.
    """
    if stopping.until is None:
        return None
    holding = [
        int(t) for t in np.flatnonzero(stopping.closing(model.vocabulary_size)) if t != stopping.end
    ]
    return min(holding, key=lambda token: (len(stopping.decode([token])), token), default=None)


def _stop_everywhere(
    target: Target, bound: BoundText, owner: int, state: State, closing: int | None
) -> list[_Stopped]:
    """The prefixes of a state's text that can stop, shortest first."""
    name, value = bound.latent.name, state[bound.latent.name]
    whole = target.tokens(name, value)
    closed = () if closing is None else (closing,)
    values: list[Any] = [(*whole[:length], *closed) for length in range(len(whole))] + [value]
    kept = [length for length, value in enumerate(values) if bound.stopping.legal(value)]
    views = target.spelling.views_along(name, state, [values[length] for length in kept])
    return [
        _Stopped(owner, length, values[length], {**state, name: values[length]}, view)
        for length, view in zip(kept, views, strict=True)
    ]


# --- the text's own prior -------------------------------------------------------------------------


def _priors(
    target: Target, bound: BoundText, states: Sequence[State], closing: int | None
) -> list[tuple[Floats, Floats]]:
    """Per state: Σ a log p of the first t tokens, and of the closing or end token after them. (T +
    1,) each.
    """
    name = bound.latent.name
    whole = [target.tokens(name, state[name]) for state in states]
    running = [np.zeros(len(tokens) + 1) for tokens in whole]
    closed = [np.zeros(len(tokens) + 1) for tokens in whole]
    free = [bound.stopping.due(tokens) == FREE for tokens in whole]
    there = [i for i, state in enumerate(states) if not bound.is_absent(state[name])]
    for term in bound.terms:
        rows = [_row(target, term, states[i], whole[i]) for i in there]
        unique = list(dict.fromkeys(rows))
        prefixes, starts = [row for row, _ in unique], [start for _, start in unique]
        scores = term.model.score_prefixes(term.context.prompt, prefixes, starts, closing)
        known = dict(zip(unique, scores, strict=True))
        for i, row in zip(there, rows, strict=True):
            tokens, ends = known[row]
            running[i][1:] += term.power * np.cumsum(np.where(free[i][:-1], tokens, 0.0))
            closed[i] += term.power * np.where(free[i], ends, 0.0)
    return list(zip(running, closed, strict=True))


def _row(target: Target, term: BoundTerm, state: State, tokens: Tokens) -> Row:
    """What a term's model sees after its prompt: the context's latents, all before the text, and
    the text.
    """
    before = {name: state[name] for name in term.reads if name in state}
    (suffix,) = term.suffixes([target.spelling.view(before)])
    return suffix + tokens, len(suffix)


def _own_prior(stopping: Stopping, stopped: _Stopped, running: Floats, closed: Floats) -> float:
    """Log prior of a text as it stopped: one token more than its prefix is scored where one ended
    it.
    """
    t = stopped.length
    return running[t] + (closed[t] if len(stopping.scored(stopped.value)) > t else 0.0)


# --- everything else ------------------------------------------------------------------------------


def _log_density(
    target: Target, name: str, states: Sequence[State], stopped: Sequence[_Stopped], own: Floats
) -> Floats:
    """(M,) log density of the program at stopped prefixes, whose own log priors are known."""
    if not stopped:
        return own
    affected = target.affected_by(name)
    owners = np.array([s.owner for s in stopped])
    expressions = [factor.name for factor in target.program.expressions]
    asked = [entry for entry in target.factor_names if entry not in expressions]
    views = [s.view for s in stopped]
    along = [entry for entry in asked if entry in affected - {name}]
    values = evaluated_along([target.entry(entry, views) for entry in along], owners.tolist())
    known = {name: own, **dict(zip(along, values, strict=True))}
    nothing = {entry: np.zeros(len(states)) for entry in {*affected, *expressions}}
    once = target.log_density(states, nothing).factors
    known |= {entry: once[entry][owners] for entry in asked if entry not in affected}
    return _with_expressions(
        target, stopped, owners, known, [e for e in expressions if e not in affected]
    )


def _with_expressions(
    target: Target,
    stopped: Sequence[_Stopped],
    owners: Integers,
    known: Mapping[str, Floats],
    others: Sequence[str],
) -> Floats:
    """(M,) log density, the language models' part being known.

    others: expressions that do not read the text. A failed constraint leaves them without a value,
    so that only those of a possible state can be taken over by the state's other prefixes.
    """
    total = np.full(len(stopped), -np.inf)

    def evaluate(index: Integers, known: Mapping[str, Floats]) -> Density:
        density = target.log_density([stopped[i].state for i in index], known)
        total[index] = density.total
        return density

    if not others:
        return evaluate(np.arange(len(stopped)), known).total
    last = np.flatnonzero(np.diff(owners, append=-1))
    density = evaluate(last, {entry: values[last] for entry, values in known.items()})
    place = np.searchsorted(owners[last], owners)
    rest = np.setdiff1d(np.arange(len(stopped)), last)
    possible = density.total[place[rest]] > -np.inf
    taken = {entry: density.factors[entry][place] for entry in others}
    for index, entries in ((rest[possible], {**known, **taken}), (rest[~possible], known)):
        if len(index):
            evaluate(index, {entry: values[index] for entry, values in entries.items()})
    return total
