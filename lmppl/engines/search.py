"""Best-first search over the prefixes of one text, with an upper bound on the mass that it has not
reached.

Where all powers are at least 0 and add up to A ≥ 1, Σₛ Πᵢ pᵢ(s | u)^aᵢ ≤ 1 (Hölder), so the mass
below a prefix u is at most its running density times the other factors' upper bound. `exact`
reports with its certificate what the search finds; other engines draw from it as one proposal among
others.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lmppl import ir
from lmppl.density import Density, Floats, State, Target, joined
from lmppl.engines.room import require_room_to_search
from lmppl.lm import Tokens

# prefixes that are evaluated at once, whatever the batch size: what is found must not depend on it
BLOCK = 64
BRANCHES = 1024  # children kept a prefix; the mass of the others stays in the bound


def cannot_search(target: Target) -> str | None:
    """Why the search does not apply; None where it does."""
    texts = target.texts
    if len(texts) != 1:
        return (
            f"its support is too large to enumerate, and search needs one text latent, not "
            f"{len(texts)}"
        )
    if any(term.power < 0 for term in texts[0].terms):
        return (
            "its support is too large to enumerate, and a negative power leaves search "
            "without a bound"
        )
    if texts[0].total_power < 1 - 1e-9:
        return (
            "its support is too large to enumerate, and powers that add up to less than 1 "
            "leave search without a bound"
        )
    if np.isinf(target.factor_upper_bound):
        return (
            "its support is too large to enumerate, and a factor without an upper bound "
            "leaves search without one"
        )
    return None


def enumerate_states(target: Target, latents: Sequence[ir.Latent], state: State) -> Iterator[State]:
    """Every way to complete a state with values of these latents."""
    if not latents:
        yield state
        return
    first, rest = latents[0], latents[1:]
    for value in target.every_value(first.name, state):
        yield from enumerate_states(target, rest, {**state, first.name: value})


@dataclass(order=True, slots=True)
class _Node:
    negative_bound: float  # minus the log of an upper bound on the mass below: the heap's order
    number: int  # breaks ties in order of creation
    tokens: Tokens = field(compare=False)
    state: State = field(compare=False)  # values of the latents before the text
    over: bool = field(compare=False)


class Search:
    """State of one search. Masses are logs."""

    def __init__(self, target: Target, branches: int = BRANCHES, masked: bool = False) -> None:
        """masked: leave out tokens after which no text could meet the constraints; the bound is the
        lower for it.
        """
        self.target, self.branches = target, branches
        position = target.latents.index(target.texts[0])
        self.name = target.latents[position].name
        self.later = target.latents[position + 1 :]
        text = target.text_latent(self.name)
        self.stopping, self.masks = text.stopping, text.masks if masked else None
        self.widest = min(branches, text.terms[0].model.vocabulary_size)  # children of a prefix
        self.bound = target.factor_upper_bound
        self.heap: list[_Node] = []
        self.states: list[State] = []
        self.densities: list[Density] = []
        self.found, self.pruned = -np.inf, -np.inf
        self.evaluations = 0
        self._created = 0
        for state in enumerate_states(target, target.latents[:position], {}):
            text = target.beginning(self.name, state)
            self._push(self.bound, text, state, over=self.stopping.closes(text))

    def residual(self) -> float:
        """Upper bound on the log of all mass that is not in a state found."""
        return float(
            np.logaddexp.reduce([self.pruned, *(-node.negative_bound for node in self.heap)])
        )

    def density(self) -> Density:
        """Densities of the states found, in their order."""
        return joined(self.densities)

    def total_variation(self) -> float:
        residual = self.residual()
        return float(np.exp(residual - np.logaddexp(residual, self.found)))

    def step(self) -> None:
        """Take the nodes with the most mass: score the texts that are over, extend the others."""
        require_room_to_search(len(self.heap), BLOCK * self.widest)
        count = min(len(self.heap), BLOCK)
        nodes = [heapq.heappop(self.heap) for _ in range(count)]
        if over := [node for node in nodes if node.over]:
            self._score(over)
        if growing := [node for node in nodes if not node.over]:
            self._extend(growing)

    def _score(self, nodes: Sequence[_Node]) -> None:
        states = [
            state
            for node in nodes
            for state in enumerate_states(
                self.target, self.later, {**node.state, self.name: node.tokens}
            )
        ]
        density = self.target.log_density(states)
        self.states += states
        self.densities.append(density)
        self.found = float(np.logaddexp.reduce([self.found, *density.total]))

    def _extend(self, nodes: Sequence[_Node]) -> None:
        laws = self.target.next_log_probs(
            self.name, [n.state for n in nodes], [n.tokens for n in nodes]
        )
        if self.masks is not None:
            allowed = self.masks.start([node.tokens for node in nodes]).allowed().numpy()
            laws = np.where(allowed, laws, -np.inf)
        self.evaluations += len(nodes)
        for node, law in zip(nodes, laws, strict=True):
            if not self.stopping.end_allowed:
                law[self.stopping.end] = -np.inf
            self._branch(node, law - node.negative_bound)

    def _branch(self, node: _Node, bounds: Floats) -> None:
        """Children of a node by the bound on their mass. (V,)"""
        kept = np.argsort(-bounds)[: self.branches]
        others = np.delete(bounds, kept)
        self.pruned = (
            float(np.logaddexp.reduce([self.pruned, *others])) if len(others) else self.pruned
        )
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
