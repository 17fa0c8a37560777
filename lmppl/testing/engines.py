"""Laws of engines: draws follow the posterior, on tiny tables whose posterior is listed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmppl.compile import compile
from lmppl.decoding import Randomness
from lmppl.density import State, Target
from lmppl.engines import Engine, Outcome, Settings, effective_sample_size, engine
from lmppl.lm import TableModel
from lmppl.screen import quiet
from lmppl.testing.chance import require_near

TABLE = {
    "vocabulary": [" a", " b", "."],
    "laws": {
        "": {" a": 0.4, " b": 0.3, ".": 0.1, "<end>": 0.2},
        " a": {" b": 0.6, ".": 0.2, "<end>": 0.2},
        " b b": {" a": 0.5, "<end>": 0.5},
    },
}
PROGRAMS = (
    'lm LM = "a table"\nZ ~ LM(" a") max 2\nobserve "." ~ LM(" b{Z}")\n',
    'lm LM = "a table"\nZ ~ LM(" b")^1.5 until "." max 3\nfactor -0.7 * count(Z, "a")\n',
    'lm LM = "a table"\nZ ~ LM(" a") in [" b", "."]\nobserve " b" ~ LM("{Z}")\n',
)
# as many chains as draws: what an engine draws in one chain may hang together
SETTINGS = Settings(chains=300, num_samples=1, num_warmup=30)


def draws_follow_the_posterior(
    tested: Engine, options: Any = None, settings: Settings = SETTINGS
) -> None:
    """Total variation between draws and posterior is what so many draws have by chance."""
    for target in _targets(tested):
        outcome = _run(tested, target, options, settings, 0)
        law = _law(target)
        found = _found(outcome)
        size = int(effective_sample_size(_log_weights(outcome)))
        require_near(law, found, size, target.program.source.text)


def densities_are_those_of_the_target(
    tested: Engine, options: Any = None, settings: Settings = SETTINGS
) -> None:
    """What an engine says of a draw's log density is what the target says of its state."""
    for target in _targets(tested):
        outcome = _run(tested, target, options, settings, 0)
        expected = target.log_density(_states(outcome)).total
        found = [sample.log_density for sample in outcome.samples]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def a_seed_is_all_that_draws_hang_on(
    tested: Engine, options: Any = None, settings: Settings = SETTINGS
) -> None:
    """Run again, an engine draws the same; under another seed, something else."""
    target = _targets(tested)[0]
    runs = [_run(tested, target, options, settings, seed) for seed in (3, 3, 4)]
    first, again, other = map(_states, runs)
    assert first == again
    assert first != other


def _states(outcome: Outcome) -> list[State]:
    return [sample.state for sample in outcome.samples]


def evidence_is_right(tested: Engine, options: Any = None, settings: Settings = SETTINGS) -> None:
    """Where an engine estimates the evidence, it is within five of its standard errors."""
    for target in _targets(tested):
        outcome = _run(tested, target, options, settings, 0)
        if outcome.log_evidence is not None:
            exact = _exact(target).log_evidence
            near = 5 * (outcome.log_evidence_se or 0.0) + 1e-6
            assert exact is not None
            assert abs(outcome.log_evidence - exact) <= near


engine_laws: Sequence[Callable[..., None]] = (
    draws_follow_the_posterior,
    densities_are_those_of_the_target,
    a_seed_is_all_that_draws_hang_on,
    evidence_is_right,
)


def _targets(tested: Engine) -> list[Target]:
    """Of the programs that the engine can run."""
    programs = [compile(text) for text in PROGRAMS]
    reasons = [tested.cannot(program.program) for program in programs]
    assert not all(reasons), reasons
    able = [program for program, reason in zip(programs, reasons, strict=True) if not reason]
    return [program.bind(lms={"LM": TableModel(TABLE)}) for program in able]


def _run(tested: Engine, target: Target, options: Any, settings: Settings, seed: int) -> Outcome:
    chosen = tested.options() if options is None else options
    return tested.run(target, settings, chosen, Randomness(seed, 0), quiet)


def _exact(target: Target) -> Outcome:
    exact = engine("exact")
    once = Settings(chains=1, num_samples=1)
    return exact.run(target, once, exact.options(), Randomness(0, 0), quiet)


def _law(target: Target) -> dict[str, float]:
    """Probabilities of all states."""
    support = _exact(target).support
    assert support is not None
    return {repr(state): probability for state, probability in support}


def _found(outcome: Outcome) -> dict[str, float]:
    """The share of each state in the draws, by weight; states of weight 0 are no draws."""
    weights = np.exp(_log_weights(outcome))
    found: dict[str, float] = {}
    for sample, weight in zip(outcome.samples, weights / weights.sum(), strict=True):
        if weight:
            key = repr(sample.state)
            found[key] = found.get(key, 0.0) + float(weight)
    return found


def _log_weights(outcome: Outcome) -> np.ndarray:
    return np.array([sample.log_weight for sample in outcome.samples])
