"""Beam search over one text latent, plain or diverse (Vijayakumar et al. 2018: groups with a
Hamming penalty).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lmppl.decoding import Stopping, settled
from lmppl.density import Floats
from lmppl.lm import Stream, Tokens

Beam = tuple[float, Tokens, bool]  # log probability, tokens, whether the text is over
NextLaw = Callable[[Sequence[Tokens]], Floats]  # (N, V) log probabilities of the next token


def beam_search(
    next_law: NextLaw, stopping: Stopping, beams: int, groups: int, diversity: float
) -> list[Tokens]:
    """Texts of high probability, best first, `beams` of them where there are so many. Greedy for
    one beam.

    Scores are log probabilities of whole texts: no length penalty. diversity: nats by which a token
    is lowered for every beam of an earlier group that has just taken it.
    """
    sizes = [beams // groups + (i < beams % groups) for i in range(groups)]
    states: list[list[Beam]] = [[(0.0, (), stopping.closes(()))] for _ in sizes]
    while any(not over for group in states for _, _, over in group):
        growing = list(
            dict.fromkeys(tokens for group in states for _, tokens, over in group if not over)
        )
        laws = dict(zip(growing, next_law(growing), strict=True))
        taken = np.zeros(len(next(iter(laws.values()))))
        for g, size in enumerate(sizes):
            states[g] = _extend(states[g], laws, stopping, size, diversity * taken)
            for _, tokens, over in states[g]:
                if tokens and not over:
                    taken[tokens[-1]] += 1
    ranked = sorted((beam for group in states for beam in group), key=lambda beam: -beam[0])
    return list(dict.fromkeys(tokens for _, tokens, _ in ranked))


def growing_laws(stream: Stream, stopping: Stopping) -> NextLaw:
    """Laws after different prefixes: at first the empty one, then each a token longer than one of
    the call before.

    stream: one row, which the empty prefix follows. A step costs a token a prefix.
    """
    places: dict[Tokens, int] = {}

    def laws(prefixes: Sequence[Tokens]) -> Floats:
        if places:
            stream.keep(np.array([places[prefix[:-1]] for prefix in prefixes]))
            stream.push(np.array([prefix[-1] for prefix in prefixes]))
        places.clear()
        places.update({prefix: row for row, prefix in enumerate(prefixes)})
        return settled(stream.log_probs().double().cpu(), stopping.dues(prefixes)).numpy()

    return laws


def _extend(
    group: list[Beam], laws: dict[Tokens, Floats], stopping: Stopping, size: int, penalty: Floats
) -> list[Beam]:
    """The best `size` one-token extensions of a group's beams; finished ones compete as they
    are.
    """
    candidates = [(score, (score, tokens, True)) for score, tokens, over in group if over]
    for score, tokens, over in group:
        if over:
            continue
        law = laws[tokens].copy()
        if not stopping.end_allowed:
            law[stopping.end] = -np.inf
        for token in np.argsort(-(law - penalty), kind="stable")[: 2 * size]:
            if np.isfinite(law[token]):
                extended = _append(tokens, int(token), score + float(law[token]), stopping)
                candidates.append((extended[0] - float(penalty[token]), extended))
    candidates.sort(key=lambda candidate: -candidate[0])
    return [beam for _, beam in candidates[:size]]


def _append(tokens: Tokens, token: int, score: float, stopping: Stopping) -> Beam:
    if token == stopping.end:
        return score, tokens, True
    return score, (*tokens, token), stopping.closes((*tokens, token))
