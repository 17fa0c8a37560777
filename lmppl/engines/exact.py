"""Exact inference: enumeration of small finite supports, and best-first search with a certificate.

Enumeration lists every state and scores it. Search goes over prefixes of one text latent: where all powers
are at least 0 and add up to A ≥ 1, Σₛ Πᵢ pᵢ(s | u)^aᵢ ≤ 1 (Hölder), so the mass below a prefix u is at most its
running density times the other factors' upper bound. What is left unexplored bounds the total variation.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmppl import ir, run_findings
from lmppl.engines.contract import Engine, Outcome, Progress, Sample, Settings
from lmppl.engines.weights import require_support
from lmppl.errors import LmpplError
from lmppl.lm.protocol import Tokens
from lmppl.randomness import Randomness
from lmppl.target import Density, Floats, State, Target, joined


@dataclass(frozen=True)
class Options:
    """Options of `exact`."""

    max_states: int = 200_000  # largest support that is enumerated
    tolerance: float = 0.01  # search stops when the total variation is certified to be below this
    max_evaluations: int = 20_000  # prefixes that the search may evaluate
    branches: int = 1024  # children kept a prefix; the mass of the others stays in the bound


def cannot(program: ir.Program) -> str | None:
    """Static reasons only: whether a support is small enough depends on the model's vocabulary."""
    return None


def run(target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress) -> Outcome:
    """The whole posterior, and chains × num_samples draws from it. Raises LmpplError where it is out of reach."""
    if support_size(target) <= options.max_states:
        states, density = _enumerate(target, progress)
        residual = -np.inf
        diagnostics: dict = {"method": "enumeration", "states": len(states)}
    else:
        states, density, residual, diagnostics = _search(target, options, progress)
    return _outcome(target, settings, options, randomness, states, density, residual, diagnostics)


# --- enumeration ----------------------------------------------------------------------------------


def support_size(target: Target) -> float:
    """Number of states, illegal ones included: an upper bound, cheap to compute."""
    size = 1.0
    for latent in target.latents:
        if isinstance(latent, ir.ChoiceLatent):
            size *= len(latent.options)
        else:
            vocabulary = float(target.text_latent(latent.name).terms[0].model.vocabulary_size)
            size *= sum(vocabulary**length for length in range(latent.maximum + 1)) if latent.maximum < 60 else np.inf
    return size


def enumerate_states(target: Target, latents: Sequence[ir.Latent], state: State) -> Iterator[State]:
    """Every way to complete a state with values of these latents."""
    if not latents:
        yield state
        return
    first, rest = latents[0], latents[1:]
    values = range(len(first.options)) if isinstance(first, ir.ChoiceLatent) else _texts(target, first.name)
    for value in values:
        yield from enumerate_states(target, rest, {**state, first.name: value})


def _texts(target: Target, name: str) -> Iterator[Tokens]:
    """Every legal text of a latent."""
    bound = target.text_latent(name)
    vocabulary = [t for t in range(bound.terms[0].model.vocabulary_size) if t != bound.stopping.end]
    growing: list[Tokens] = [()]
    while growing:
        for tokens in growing:
            if bound.stopping.legal(tokens):
                yield tokens
        growing = [(*t, token) for t in growing if not bound.stopping.closes(t) for token in vocabulary]


def _enumerate(target: Target, progress: Progress) -> tuple[list[State], Density]:
    states = list(enumerate_states(target, target.latents, {}))
    if not states:
        latent = next(latent for latent in target.latents if isinstance(latent, ir.TextLatent))
        detail = f"`until {latent.until!r}` was not reached within {latent.maximum} tokens"
        finding = run_findings.no_support(0, latent.name, 1.0, target.program.source, latent.span, detail)
        raise LmpplError(finding)
    block = 16 * target.batch_size
    parts = []
    for start in range(0, len(states), block):
        parts.append(target.log_density(states[start : start + block]))
        progress("scoring states", min(start + block, len(states)), len(states))
    density = joined(parts)
    require_support(target, states, density)
    return states, density


# --- certified best-first search ------------------------------------------------------------------


@dataclass(order=True)
class _Node:
    negative_bound: float  # minus the log of an upper bound on the mass below: the heap's order
    number: int  # breaks ties in order of creation
    tokens: Tokens = field(compare=False)
    state: State = field(compare=False)  # values of the latents before the text
    over: bool = field(compare=False)


def _search_reason(target: Target) -> str | None:
    """Why the search does not apply; None where it does."""
    texts = [latent for latent in target.latents if isinstance(latent, ir.TextLatent)]
    if len(texts) != 1:
        return f"its support is too large to enumerate, and search needs one text latent, not {len(texts)}"
    if any(term.power < 0 for term in texts[0].terms):
        return "its support is too large to enumerate, and a negative power leaves search without a bound"
    if texts[0].total_power < 1 - 1e-9:
        return (
            "its support is too large to enumerate, and powers that add up to less than 1 leave search without a bound"
        )
    if np.isinf(target.factor_upper_bound):
        return "its support is too large to enumerate, and a factor without an upper bound leaves search without one"
    return None


def _search(target: Target, options: Options, progress: Progress) -> tuple[list[State], Density, float, dict]:
    """States found, their densities, the log of an upper bound on all other mass, and diagnostics."""
    if reason := _search_reason(target):
        raise LmpplError(run_findings.engine_cannot("exact", reason, target.program.source))
    search = _Search(target, options)
    while search.heap and search.evaluations < options.max_evaluations:
        search.step()
        progress("searching prefixes", search.evaluations, options.max_evaluations)
        if search.total_variation() <= options.tolerance:
            break
    if not np.isfinite(search.found):
        reason = f"search found no complete text within {search.evaluations} prefixes; the law is too spread out"
        help = "lower `max` or raise the power, or use another engine"
        raise LmpplError(run_findings.engine_cannot("exact", reason, target.program.source, None, help))
    diagnostics = {
        "method": "best-first search",
        "prefix_evaluations": search.evaluations,
        "tolerance": options.tolerance,
    }
    return search.states, joined(search.densities), search.residual(), diagnostics


class _Search:
    """State of one search. Masses are logs."""

    def __init__(self, target: Target, options: Options) -> None:
        self.target, self.options = target, options
        position = next(i for i, latent in enumerate(target.latents) if isinstance(latent, ir.TextLatent))
        self.name = target.latents[position].name
        self.later = target.latents[position + 1 :]
        self.stopping = target.text_latent(self.name).stopping
        self.bound = target.factor_upper_bound
        self.heap: list[_Node] = []
        self.states: list[State] = []
        self.densities: list[Density] = []
        self.found, self.pruned = -np.inf, -np.inf
        self.evaluations = 0
        self._created = 0
        for state in enumerate_states(target, target.latents[:position], {}):
            self._push(self.bound, (), state, over=self.stopping.closes(()))

    def residual(self) -> float:
        """Upper bound on the log of all mass that is not in a state found."""
        return float(np.logaddexp.reduce([self.pruned, *(-node.negative_bound for node in self.heap)]))

    def total_variation(self) -> float:
        residual = self.residual()
        return float(np.exp(residual - np.logaddexp(residual, self.found)))

    def step(self) -> None:
        """Take the nodes with the most mass: score the texts that are over, extend the others."""
        count = min(len(self.heap), self.target.batch_size)
        nodes = [heapq.heappop(self.heap) for _ in range(count)]
        if over := [node for node in nodes if node.over]:
            self._score(over)
        if growing := [node for node in nodes if not node.over]:
            self._extend(growing)

    def _score(self, nodes: Sequence[_Node]) -> None:
        states = [
            state
            for node in nodes
            for state in enumerate_states(self.target, self.later, {**node.state, self.name: node.tokens})
        ]
        density = self.target.log_density(states)
        self.states += states
        self.densities.append(density)
        self.found = float(np.logaddexp.reduce([self.found, *density.total]))

    def _extend(self, nodes: Sequence[_Node]) -> None:
        laws = self.target.next_log_probs(self.name, [n.state for n in nodes], [n.tokens for n in nodes])
        self.evaluations += len(nodes)
        for node, law in zip(nodes, laws, strict=True):
            if not self.stopping.end_allowed:
                law[self.stopping.end] = -np.inf
            self._branch(node, law - node.negative_bound)

    def _branch(self, node: _Node, bounds: Floats) -> None:
        """Children of a node by the bound on their mass. (V,)"""
        kept = np.argsort(-bounds)[: self.options.branches]
        others = np.delete(bounds, kept)
        self.pruned = float(np.logaddexp.reduce([self.pruned, *others])) if len(others) else self.pruned
        for token in kept[np.isfinite(bounds[kept])]:
            if token == self.stopping.end:
                self._push(float(bounds[token]), node.tokens, node.state, over=True)
                continue
            tokens = (*node.tokens, int(token))
            over = self.stopping.closes(tokens)
            if not over or self.stopping.legal(tokens):
                self._push(float(bounds[token]), tokens, node.state, over)

    def _push(self, bound: float, tokens: Tokens, state: State, over: bool) -> None:
        heapq.heappush(self.heap, _Node(-bound, self._created, tokens, state, over))
        self._created += 1


# --- results --------------------------------------------------------------------------------------


def _outcome(
    target: Target,
    settings: Settings,
    options: Options,
    randomness: Randomness,
    states: Sequence[State],
    density: Density,
    residual: float,
    diagnostics: dict,
) -> Outcome:
    found = float(np.logaddexp.reduce(density.total))
    probabilities = np.exp(density.total - found)
    total_variation = float(np.exp(residual - np.logaddexp(residual, found)))
    upper = float(np.logaddexp(found, residual))
    order = np.argsort(-probabilities, kind="stable")
    return Outcome(
        _draws(settings, randomness, states, density, probabilities),
        found,
        upper - found,
        [(states[i], float(probabilities[i])) for i in order if probabilities[i] > 0],
        {**diagnostics, "total_variation_bound": total_variation, "log_evidence_interval": [found, upper]},
    )


def _draws(
    settings: Settings, randomness: Randomness, states: Sequence[State], density: Density, probabilities: Floats
) -> list[Sample]:
    cumulative = probabilities.cumsum()
    samples = []
    for chain in range(settings.chains):
        for draw in range(settings.num_samples):
            level = randomness.uniforms(chain, draw, 0, 1)[0] * cumulative[-1]
            i = int(np.searchsorted(cumulative, level, side="right"))
            factors = {name: float(values[i]) for name, values in density.factors.items()}
            samples.append(Sample(chain, draw, states[i], float(density.total[i]), factors))
    return samples


ENGINE = Engine("exact", "the whole posterior, by enumeration or certified search", Options, cannot, run)
