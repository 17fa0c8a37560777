"""Which token a local law cuts away, where that makes a state impossible."""

from __future__ import annotations

import numpy as np

from lmppl.density.target import Target
from lmppl.density.values import State


def cut_away(target: Target, name: str, state: State) -> str | None:
    """The token that the law of a model keeps not, where a latent or a factor goes by this name and
    is scored, in words; None where nothing of it is cut away.
    """
    if name not in {one.name for one in (*target.program.latents, *target.program.scored_texts)}:
        return None
    names = {id(model): called for called, model in target.models.items()}
    (view,) = views = target.spelling.views([state])
    for asked in target.entry(name, views).scored:
        law = asked.model.local_law
        if law is None or not law.truncates:
            continue
        chosen = view.choices.get(name)  # of a choice, all options are asked about
        rows = asked.rows if chosen is None else [asked.rows[chosen]]
        texts, starts = zip(*rows, strict=True)
        scores = asked.model.score(asked.prompt, texts, starts)
        for text, start, own in zip(texts, starts, scores, strict=True):
            for place in np.flatnonzero(np.isneginf(own)):
                (piece,) = asked.model.pieces([text[start + int(place)]])
                return f"`{names[id(asked.model)]}`, with {law}, never writes {piece!r} there"
    return None
