"""Sequential Monte Carlo by genlm-control, a library that is not of lmppl, to compare with.

It runs in a Python of its own and loads the model by itself, so that this engine, unlike others,
looks at the model that a target is bound to. Its particles come back as token ids with their
weights. They are resampled to draws, replicates pooled by their Ẑ, as `smc` does; densities of
draws are the target's. What the model is charged with is what the library has asked of it: one
token for every law of a next token, though it runs a text's earlier tokens again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch

from lmppl.decoding import Purpose, Randomness
from lmppl.density import Floats, State, Target
from lmppl.engines.contract import Engine, Outcome, Sample, Settings
from lmppl.engines.genlm_control.process import LIBRARY, VARIABLE, ask, interpreter
from lmppl.engines.genlm_control.programs import cannot, pattern_of
from lmppl.engines.genlm_control.side import fingerprint
from lmppl.engines.resampling import replicate_evidence, resample_apart
from lmppl.engines.table import needs
from lmppl.engines.weights import effective_share, weight_diagnostics
from lmppl.errors import LmpplError
from lmppl.findings import run as run_findings
from lmppl.lm import Tokens
from lmppl.lm.transformers import HuggingFaceModel
from lmppl.screen import Progress
from lmppl.settings import OneOf, Share, Whole

SAMPLERS = ("sets", "awrs", "direct")
RESAMPLING = ("multinomial", "systematic", "stratified", "residual")


@dataclass(frozen=True)
class Options:
    """Options of `genlm-control`."""

    python: str = ""  # the Python that has it; empty: LMPPL_GENLM_PYTHON of the environment
    particles: Whole = 0  # texts a replicate; 0: as many as the draws asked for
    # sets or direct: exact masks; awrs: adaptive weighted rejection
    sampler: Annotated[str, OneOf(SAMPLERS)] = "sets"
    # or systematic, stratified, residual
    resampling: Annotated[str, OneOf(RESAMPLING)] = "multinomial"
    ess: Share = 0.5  # particles are resampled below this share of them


@dataclass(frozen=True)
class Population:
    """What the library found under one seed: N weighted particles, and how it came to them."""

    texts: Sequence[Tokens]
    log_weights: Floats  # (N,)
    ess_shares: Sequence[
        float
    ]  # effective sample size as a share of the particles, before each resampling
    lineages: Sequence[int]  # of the first particles, how many have descendants after each
    ancestors: int  # and at the end, of positive weight
    tokens: int  # laws of a next token that the model worked out
    passes: int
    seconds: float  # of sampling alone

    @property
    def log_evidence(self) -> float:
        """log Ẑ."""
        return float(np.logaddexp.reduce(self.log_weights) - np.log(len(self.log_weights)))


def run(
    target: Target, settings: Settings, options: Options, randomness: Randomness, progress: Progress
) -> Outcome:
    """chains replicates, num_samples draws each. Raises LmpplError, also where every particle has
    weight 0.
    """
    python, model = interpreter(options.python), _model_of(target)
    request = _request(target, model, settings, options, randomness)
    progress("starting genlm-control", 0, settings.chains)
    populations = []
    for population in _populations(python, request, model):
        populations.append(population)
        progress("replicates", len(populations), settings.chains)
    model.cost.tokens_scored += len(request["prompt"])
    model.cost.tokens_decoded += sum(population.tokens for population in populations)
    model.cost.forward_passes += sum(population.passes for population in populations)
    if not any(np.isfinite(population.log_evidence) for population in populations):
        count, (constraint,) = settings.chains * request["particles"], target.program.factors
        source = target.program.source
        raise LmpplError(
            run_findings.no_support(count, constraint.name, 1.0, source, constraint.span, None)
        )
    return _outcome(target, model, populations, settings, randomness)


# --- what is asked --------------------------------------------------------------------------------


def _model_of(target: Target) -> HuggingFaceModel:
    """The model of the only text. Raises LmpplError where the library cannot load the same one."""
    model = target.text_latent(target.latents[0].name).terms[0].model
    if not isinstance(model, HuggingFaceModel) or not model.model.name_or_path:
        raise LmpplError(run_findings.other_model(LIBRARY, "it is no folder, nor on the hub"))
    if not model.token_bytes or not all(model.token_bytes):
        raise LmpplError(
            run_findings.other_model(LIBRARY, "some of its tokens have no text of their own")
        )
    return model


def _request(
    target: Target,
    model: HuggingFaceModel,
    settings: Settings,
    options: Options,
    randomness: Randomness,
) -> dict[str, Any]:
    (latent,) = target.texts
    uniforms = [
        randomness.uniforms(chain, 0, Purpose.ENGINE_SEED, 1)[0] for chain in range(settings.chains)
    ]
    return {
        "model": model.model.name_or_path,
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "prompt": list(target.text_latent(latent.name).terms[0].context.prompt),
        "ends": list(model.ends),
        "regex": pattern_of(target.program),
        "until": latent.until,
        "tokens": latent.maximum,
        "sampler": options.sampler,
        "resampling": options.resampling,
        "ess": options.ess,
        "particles": options.particles or settings.num_samples,
        "seeds": [int(uniform * 2**32) for uniform in uniforms],
    }


def _populations(
    python: str, request: Mapping[str, Any], model: HuggingFaceModel
) -> Iterator[Population]:
    """One a seed, each as soon as it is there."""
    assert model.token_bytes is not None
    with closing(ask(python, request, 1 + len(request["seeds"]))) as answers:
        if next(answers).get("vocabulary") != fingerprint(model.token_bytes):
            raise LmpplError(
                run_findings.other_model(
                    LIBRARY, "its tokens do not stand for the same bytes there"
                )
            )
        for answer in answers:
            yield _population(python, answer, request["particles"])


def _population(python: str, answer: Mapping[str, Any], count: int) -> Population:
    try:
        found = Population(**{name: answer[name] for name in Population.__annotations__})
        texts = [tuple(int(token) for token in text) for text in found.texts]
        log_weights = np.array(found.log_weights, dtype=np.float64)
        if len(texts) != count or log_weights.shape != (count,) or np.isnan(log_weights).any():
            raise ValueError("particles")
    except (KeyError, TypeError, ValueError) as reason:
        problem = f"`{python}` does not answer as it should"
        raise LmpplError(
            run_findings.other_python_fails(LIBRARY, problem, VARIABLE, str(reason))
        ) from None
    return Population(**{**vars(found), "texts": texts, "log_weights": log_weights})


# --- results --------------------------------------------------------------------------------------


def _outcome(
    target: Target,
    model: HuggingFaceModel,
    populations: Sequence[Population],
    settings: Settings,
    randomness: Randomness,
) -> Outcome:
    logs = [population.log_evidence for population in populations]
    log_evidence, error, interval = replicate_evidence(logs)
    drawn = [
        draw
        for number in range(len(logs))
        for draw in _draws(number, populations[number], settings, randomness)
    ]
    states: list[State] = [{target.latents[0].name: text} for _, _, text in drawn]
    spent = dict(vars(model.cost))
    density = target.log_density(states)
    vars(model.cost).update(spent)  # to judge its draws is no work of the library's
    samples = [
        Sample(
            chain,
            draw,
            states[i],
            float(density.total[i]),
            density.parts(i),
            logs[chain],
        )
        for i, (chain, draw, _) in enumerate(drawn)
    ]
    everything = np.concatenate([population.log_weights for population in populations])
    diagnostics = replace(
        weight_diagnostics(everything),
        log_evidence_by_replicate=logs,
        log_evidence_interval=interval,
        particles=len(populations[0].texts),
        resamplings=[len(population.ess_shares) for population in populations],
        min_ess_fraction=min(
            min([*p.ess_shares, effective_share(p.log_weights)]) for p in populations
        ),
        surviving_ancestors=[population.ancestors for population in populations],
        lineages=[[len(population.texts), *population.lineages] for population in populations],
        sampling_seconds=[population.seconds for population in populations],
    )
    return Outcome(samples, log_evidence, error, diagnostics=diagnostics)


def _draws(
    number: int, population: Population, settings: Settings, randomness: Randomness
) -> Iterator[tuple[int, int, Tokens]]:
    """(chain, draw, text) of one replicate; none where all its particles have weight 0."""
    if np.isneginf(population.log_evidence):
        return
    uniforms = randomness.uniforms(number, 0, Purpose.FINAL, 1 + settings.num_samples)
    for draw, i in enumerate(resample_apart(population.log_weights, uniforms)):
        yield number, draw, population.texts[i]


ENGINE = Engine(
    LIBRARY,
    "a rival: SMC by the library of that name, in a Python of its own",
    Options,
    cannot,
    run,
    needs=needs(LIBRARY),
)
