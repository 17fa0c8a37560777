"""What is said of options of a choice that a local law makes impossible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lmppl import ir
from lmppl.density import State, Target
from lmppl.engines import Sample
from lmppl.screen import quoted

MOST_STATES = 256  # that are looked at: each is scored with every option


def cut_options(target: Target, samples: Sequence[Sample]) -> list[str]:
    """One line an option that is impossible behind all possible draws, by what the local law of its
    model cuts away.
    """
    choices = [(latent, _law(target, latent)) for latent in target.choices]
    cut = [(latent, law) for latent, law in choices if law is not None]
    if not cut:
        return []
    possible = {id(one.state): one.state for one in samples if np.isfinite(one.log_density)}
    states = [*possible.values()][:MOST_STATES]
    return [line for latent, law in cut for line in _never(target, latent, law, states)]


def _law(target: Target, latent: ir.Latent) -> ir.LocalLaw | None:
    """The local law that a choice is drawn by, if it cuts anything away."""
    law = target.latent(latent.name).terms[0].model.local_law
    return law if law is not None and law.truncates else None


def _never(
    target: Target, latent: ir.Latent, law: ir.LocalLaw, states: Sequence[State]
) -> Iterator[str]:
    bound = target.latent(latent.name)
    there = target.is_there(latent.name, states)
    asked = [state for state, has in zip(states, there, strict=True) if has]
    if not asked:
        return
    scores = target.choice_log_probs(latent.name, asked)
    line, _ = target.program.source.position(latent.span.start)
    for value in bound.every_value():
        if np.isneginf(scores[:, value]).all():
            told = f"option {quoted(bound.text(value)):.60} of `{latent.shown}` (line {line})"
            never = f"`{latent.terms[0].model}`, with {law}, never writes it"
            yield f"{told} is impossible behind every draw: {never}"
