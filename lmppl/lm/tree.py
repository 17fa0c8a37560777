"""Rows that begin alike as one tree of tokens, so that what they share is run once.

A node is a token after the tokens that lead to it. Laid out in one row, parents first, it sees its
ancestors and itself and nothing else, at the position that its depth gives: the model computes what
it would for each row alone. Knows tokens and masks, and nothing of models beyond their `score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmppl.lm.protocol import Row, Scorer, Tokens

ROOT = -1  # the prompt's last token, before every node
MOST_NODES = 768  # of one tree: every node's query meets every node's key, seen or not


@dataclass
class Tree:
    """Q nodes, and which tokens are scored: each after one node, for one of the rows."""

    tokens: list[int] = field(default_factory=list)  # (Q,)
    parents: list[int] = field(default_factory=list)  # (Q,)
    depths: list[int] = field(default_factory=list)  # (Q,) tokens before, the prompt's left out
    rows: list[int] = field(default_factory=list)  # (R,) by number
    nodes: list[int] = field(default_factory=list)  # (R,) after which the token is scored
    targets: list[int] = field(default_factory=list)  # (R,)
    _children: dict[tuple[int, int], int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.tokens)

    def path(self, tokens: Sequence[int]) -> list[int]:
        """Nodes of these tokens in order, (len(tokens),), added where they are new."""
        nodes = []
        parent = ROOT
        for depth, token in enumerate(tokens):
            if (parent, token) not in self._children:
                self._children[parent, token] = len(self.tokens)
                self.tokens.append(token)
                self.parents.append(parent)
                self.depths.append(depth)
            parent = self._children[parent, token]
            nodes.append(parent)
        return nodes

    def num_new(self, tokens: Sequence[int]) -> int:
        """Nodes that `path` would add."""
        parent = ROOT
        for i, token in enumerate(tokens):
            if (parent, token) not in self._children:
                return len(tokens) - i
            parent = self._children[parent, token]
        return 0

    def add(self, number: int, row: Row) -> None:
        """Take a row in. Its last token is scored and need not be run."""
        tokens, start = row
        if start == len(tokens):
            return
        nodes = [ROOT, *self.path(tokens[:-1])]
        self.rows += [number] * (len(tokens) - start)
        self.nodes += nodes[start : len(tokens)]
        self.targets += tokens[start:]


def grow(rows: Sequence[Row]) -> list[Tree]:
    """The rows, in order, as few trees as keep to MOST_NODES; a longer row has a tree of its
    own.
    """
    trees = [Tree()]
    for number, row in enumerate(rows):
        if len(trees[-1]) and len(trees[-1]) + trees[-1].num_new(row[0][:-1]) > MOST_NODES:
            trees.append(Tree())
        trees[-1].add(number, row)
    return trees


@dataclass(frozen=True)
class Carrier:
    """A row that is run, and the rows that can be read from its pass because it begins with them:
    itself, at least.
    """

    inputs: Tokens
    start: int  # the first position that one of them asks for
    guests: Sequence[int]  # by number


def carriers(rows: Sequence[Tokens], starts: Sequence[int]) -> list[Carrier]:
    """As few as serve all rows, each of them asked for from its start on."""
    guests: list[list[int]] = []
    # a row follows those that begin with it
    for i in sorted(range(len(rows)), key=lambda i: rows[i], reverse=True):
        if not guests or rows[guests[-1][0]][: len(rows[i])] != rows[i]:
            guests.append([])
        guests[-1].append(i)
    found = []
    for some in guests:
        first = min(starts[i] for i in some)
        found.append(Carrier(rows[some[0]], first, some))
    return found


def ancestry(tree: Tree, width: int) -> NDArray[np.bool_]:
    """(width, width) which columns a node sees: its ancestors and itself. Padding sees itself."""
    seen = np.eye(width, dtype=bool)
    for node, parent in enumerate(tree.parents):
        if parent != ROOT:
            seen[node] |= seen[parent]
    return seen


def score_one_by_one(
    model: Scorer, prompt: Tokens, groups: Sequence[Sequence[Row]]
) -> list[NDArray[np.float64]]:
    """`LanguageModel.score_trees` of a model that sees rows only."""
    # equal rows are scored once
    rows = list(dict.fromkeys(row for group in groups for row in group))
    scores = model.score(prompt, [tokens for tokens, _ in rows], [start for _, start in rows])
    totals = {row: float(score.sum()) for row, score in zip(rows, scores, strict=True)}
    return [np.fromiter(map(totals.__getitem__, group), np.float64) for group in groups]
