"""What one would do by hand: prompt the model and take what it writes, by sampling or by a decoding
search.

Draws come from the `guide` context where there is one, else from the prior's own. They are no
posterior draws and are reported as they come, with mass of their own (log_weight 0); where the
sampler's density is known, log_proposal carries it and the evidence is estimated by importance
weighting. This is the only engine that may cut the next-token law (nucleus, beams).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

import numpy as np

from lmppl import ir
from lmppl.decoding import Randomness
from lmppl.density import BoundChoice, BoundText, Floats, Manner, State, Target, joined
from lmppl.diagnosis import Diagnostics
from lmppl.engines.beams import beam_search, growing_laws
from lmppl.engines.contract import Engine, Outcome, Sample, Settings
from lmppl.engines.table import needs
from lmppl.engines.weights import log_mean_weight, require_support, weight_diagnostics
from lmppl.lm import BY_LAWS, Capabilities, Tokens
from lmppl.screen import Progress
from lmppl.settings import NotNegative, OneOf, Size, SomeShare, Temperature

Method = Literal["sample", "greedy", "beam", "diverse_beam", "nucleus"]


@dataclass(frozen=True)
class Options:
    """Options of `prompting`."""

    method: Annotated[str, OneOf(get_args(Method))] = "sample"  # how texts are made
    temperature: Temperature = 1.0  # of sample and nucleus, token by token
    top_p: SomeShare = 0.95  # nucleus: share of the next-token law that is kept
    beams: Size = 8  # beam and diverse_beam: texts kept
    groups: Size = 4  # diverse_beam: groups of beams that avoid each other's tokens
    # diverse_beam: nats a token is lowered by for each earlier group that took it
    diversity: NotNegative = 1.0
    filter: bool = False  # drop texts that the program makes impossible

    def needs(self) -> Capabilities:
        """What models have to do besides drawing: all but plain samples are made from laws."""
        plain = self.method == "sample" and self.temperature == 1
        return frozenset() if plain else BY_LAWS

    def conflict(self) -> tuple[str, str] | None:
        """An option that does not go with the others, and what does."""
        if self.method == "diverse_beam" and self.groups > self.beams:
            return "groups", f"at most as many as `beams`, {self.beams}"
        return None


def cannot(program: ir.Program) -> str | None:
    """Every program can be run."""
    return None


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """chains × num_samples draws for the sampling methods; one text, or `beams` of them, for the
    searches.
    """
    if options.method in ("sample", "nucleus"):
        return _sampled(target, settings, options, randomness, progress)
    states = _searched(target, options, progress)
    keys = [(0, draw) for draw in range(len(states))]
    return _outcome(target, options, keys, states, None, settings)


# --- sampling -------------------------------------------------------------------------------------


def _sampled(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    keys = [
        (chain, draw) for chain in range(settings.chains) for draw in range(settings.num_samples)
    ]
    states: list[State] = []
    log_proposal: list[Floats] = []
    for start in range(0, len(keys), target.batch_size):
        progress("drawing", start, len(keys))
        drawn, log_q = _draw(target, keys[start : start + target.batch_size], options, randomness)
        states += drawn
        log_proposal.append(log_q)
        progress("drawing", len(states), len(keys))
    known = options.method == "sample" and not options.filter
    return _outcome(
        target, options, keys, states, np.concatenate(log_proposal) if known else None, settings
    )


def _draw(
    target: Target, keys: Sequence[tuple[int, int]], options: Options, randomness: Randomness
) -> tuple[list[State], Floats]:
    """One state a key, and its log density under the sampler. (N,)"""
    states: list[dict] = [{} for _ in keys]
    log_proposal = np.zeros(len(keys))
    top_p = options.top_p if options.method == "nucleus" else 1.0
    for purpose, latent in enumerate(target.latents):
        bound = target.latent(latent.name)
        uniforms = np.stack(
            [randomness.uniforms(*key, purpose, bound.num_decisions) for key in keys]
        )
        manner = Manner(
            (options.temperature,), by=target.guide(latent.name), masked=False, top_p=top_p
        )
        draws = target.draw(latent.name, states, uniforms, manner)
        log_proposal += [row.sum() for row in draws.log_q]
        for state, value in zip(states, draws.values, strict=True):
            state[latent.name] = value
    return list(states), log_proposal


# --- searching ------------------------------------------------------------------------------------


def _searched(target: Target, options: Options, progress: Progress) -> list[State]:
    """Texts by greedy decoding, or by (diverse) beam search over the first text latent, the others
    greedily.
    """
    states: list[State] = [{}]
    beams = 1 if options.method == "greedy" else options.beams
    groups = options.groups if options.method == "diverse_beam" else 1
    for done, latent in enumerate(target.latents):
        search = _Search(target, states, beams, groups, options.diversity)
        values = target.latent(latent.name).by_kind(text=search.texts, choice=search.options)
        states = [
            {**state, latent.name: value}
            for state, some in zip(states, values, strict=True)
            for value in some
        ]
        if latent in target.texts:
            beams, groups = 1, 1
        progress("searching", done + 1, len(target.latents))
    return states


@dataclass(frozen=True)
class _Search:
    """What is found for the next latent of each of N states."""

    target: Target
    states: Sequence[State]
    beams: int
    groups: int
    diversity: float

    def texts(self, text: BoundText) -> list[list[Tokens]]:
        """Per state, the texts that a beam search keeps."""
        found = []
        for state in self.states:
            if text.stopping.closes(begun := self.target.beginning(text.name, state)):
                found.append([begun])  # it is not there
                continue
            next_law = growing_laws(self.target.guided_stream(text.name, state), text.stopping)
            found.append(
                beam_search(next_law, text.stopping, self.beams, self.groups, self.diversity)
            )
        return found

    def options(self, choice: BoundChoice) -> list[list[int]]:
        """Per state, the most probable option."""
        law = self.target.choice_log_probs(choice.name, self.states)
        return [[int(option)] for option in law.argmax(1)]


# --- results --------------------------------------------------------------------------------------


def _outcome(
    target: Target,
    options: Options,
    keys: Sequence[tuple[int, int]],
    states: Sequence[State],
    log_proposal: Floats | None,
    settings: Settings,
) -> Outcome:
    blocks = [states[i : i + target.batch_size] for i in range(0, len(states), target.batch_size)]
    density = joined([target.log_density(block) for block in blocks])
    if options.filter:
        require_support(target, list(states), density)
    kept = [i for i in range(len(states)) if not options.filter or np.isfinite(density.total[i])]
    samples = [
        Sample(
            *keys[i],
            states[i],
            float(density.total[i]),
            density.parts(i),
            0.0,
            None if log_proposal is None else float(log_proposal[i]),
        )
        for i in kept
    ]
    impossible = int(np.isneginf(density.total).sum())
    diagnostics = Diagnostics(method=options.method, impossible_draws=impossible)
    warnings = []
    if impossible and not options.filter:
        warnings.append(
            f"{impossible} of {len(states)} texts are impossible under the program. "
            "Drop them with -o filter=true, or use an engine that draws from the posterior."
        )
    if log_proposal is None or not np.isfinite(density.total).any():
        return Outcome(samples, diagnostics=diagnostics, warnings=warnings)
    log_weights = density.total - log_proposal
    diagnostics = replace(diagnostics, importance=weight_diagnostics(log_weights))
    return Outcome(
        samples, *log_mean_weight(log_weights), diagnostics=diagnostics, warnings=warnings
    )


ENGINE = Engine(
    "prompting",
    "what the model writes when prompted: sampling, greedy, beams, nucleus",
    Options,
    cannot,
    run,
    needs=needs("prompting"),
)
