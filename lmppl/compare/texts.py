"""The texts that a page shows: of each engine the heaviest ones a row, with log probabilities token
by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmppl.diagnosis import Draw
from lmppl.posterior import RowPosterior

if TYPE_CHECKING:
    from lmppl.density import Target

MOST = 20  # texts an engine and row
END = "⟨end⟩"

Key = tuple[str | None, ...]


def chosen(rows: Mapping[str, RowPosterior]) -> dict[Key, Draw]:
    """The heaviest texts of every engine, by strings; of several tokenisations the heaviest."""
    found: dict[Key, Draw] = {}
    for row in rows.values():
        keys = list(row.joint())[:MOST]
        by_key: dict[Key, Draw] = {}
        for i in np.argsort(-row.weights, kind="stable"):
            draw = row.draws[int(i)]
            by_key.setdefault(tuple(draw.values.values()), draw)
        for key in keys:
            if key in by_key:
                found.setdefault(key, by_key[key])
    return found


def per_token(target: Target, draws: Sequence[Draw]) -> list[dict[str, list[list[Any]]]]:
    """[piece, log prior] of every token of every text latent, a draw; the end token last where it
    was drawn.
    """
    found: list[dict[str, list[list[Any]]]] = [{} for _ in draws]
    states = [target.state_of(draw.values, draw.tokens) for draw in draws]
    for latent in target.texts if draws else ():
        bound = target.text_latent(latent.name)
        for number, (draw, prefixes) in enumerate(
            zip(draws, target.prefixes(latent.name, states), strict=True)
        ):
            if not target.is_there(latent.name, [states[number]])[0]:
                found[number].setdefault(latent.shown, [])
                continue
            tokens = tuple(draw.tokens[latent.shown])
            pieces = bound.terms[0].model.pieces(tokens)
            pairs = list(zip(pieces, np.diff(prefixes.running).tolist(), strict=True))
            if target.num_scored(latent.name, tokens) > len(tokens):
                pairs.append((END, float(prefixes.stop[-1])))
            found[number][latent.shown] = [[piece, value] for piece, value in pairs]
    return found
