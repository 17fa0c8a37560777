"""Exact joint draws of a program's latents and of the texts that it observes, and the posterior
that they pin.

Where a program is the product of conditional laws, each of one language model at power 1, its
latents and its observed texts can be drawn together: first the latents, in program order,
constraints being met by rejection; then every observed given, token by token under the
observation's context, as many tokens as the row's value has. The latents are then one exact draw
from the posterior given the simulated texts. It knows no inference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from lmppl import ir
from lmppl.data import Row
from lmppl.decoding import Purpose, Randomness
from lmppl.density import Density, State, Target, bind, joined
from lmppl.engines import draw_prior, require_support
from lmppl.errors import Diagnostic, LmpplError, raise_errors
from lmppl.expressions import Helper
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Tokens
from lmppl.run import Session
from lmppl.screen import quoted

# attempts at once, after the first: fixed, so that a draw does not depend on the batch size
BLOCK = 16
MOST_ATTEMPTS = 20_000


@dataclass(frozen=True)
class Simulation:
    """One joint draw: a state that is an exact posterior draw of the target, which fixes the
    simulated texts.
    """

    state: State
    target: Target


@dataclass(frozen=True)
class Simulator:
    """Draws from one program under one row's givens and lengths. Raises LmpplError where it cannot
    be simulated.
    """

    program: ir.Program
    models: Mapping[str, LanguageModel]
    row: Row
    helpers: Mapping[str, Helper] | None = None
    batch_size: int = 64
    most_attempts: int = MOST_ATTEMPTS  # at a draw that meets the constraints

    def __post_init__(self) -> None:
        require_simulation(self.program)
        if all(name in self.row.observed for name in self.program.names):
            reason = "the row observes every latent, so there is nothing to infer"
            raise LmpplError(run_findings.cannot_simulate(reason, self.program.source))

    def draw(self, randomness: Randomness) -> Simulation:
        """One joint draw. The same randomness gives the same one. Raises LmpplError where
        constraints are hopeless.
        """
        prior = self._bind(replace(self.row, observed={}), {})
        state = _draw_latents(prior, randomness, self.most_attempts)
        givens, tokens = dict(self.row.givens), dict[str, Tokens]()
        for number, name, factor in self._active(prior, state):
            model, drawn = _draw_text(
                prior, factor, state, randomness, Purpose.OBSERVATIONS + number
            )
            tokens[name], givens[name] = drawn, self.models[model].decode(drawn)
        texts, drawn = prior.texts_of(state), prior.tokens_of(state)
        observed = {name: text for name in self.row.observed if (text := texts[name]) is not None}
        if missing := [name for name in self.row.observed if name not in observed]:
            reason = f"the row observes `{missing[0]}`, which is not there in a draw"
            raise LmpplError(run_findings.cannot_simulate(reason, self.program.source))
        tokens |= {name: tuple(drawn[name]) for name in observed}
        target = self._bind(replace(self.row, givens=givens, observed=observed), tokens)
        return Simulation({latent.name: state[latent.name] for latent in target.latents}, target)

    def _active(
        self, prior: Target, state: State
    ) -> Iterator[tuple[int, str, ir.Observation | ir.Mixture]]:
        """Observations that a state has, numbered as the program has them, with the given that each
        observes. Raises LmpplError where a given has none or several: it has no law then.
        """
        names = {factor.name for factor in prior.program.scored_texts}
        active: dict[str, list[tuple[int, ir.Observation | ir.Mixture]]] = {}
        for number, factor in enumerate(self.program.scored_texts):
            assert isinstance(factor.target, ir.Given)
            one = active.setdefault(factor.target.name, [])
            if factor.name in names and prior.is_there(factor.name, [state])[0]:
                one.append((number, factor))
        for given, found in active.items():
            if len(found) != 1:
                shown = ", ".join(f"{k} = {quoted(v)}" for k, v in prior.texts_of(state).items())
                reason = f"`{given}` is observed {len(found)} times where {shown}, not once"
                raise LmpplError(run_findings.cannot_simulate(reason, self.program.source))
            yield found[0][0], given, found[0][1]

    def _bind(self, row: Row, tokens: Mapping[str, Tokens]) -> Target:
        return bind(self.program, self.models, row, self.helpers, self.batch_size, tokens)[0]


def simulators_of(session: Session, most_attempts: int = MOST_ATTEMPTS) -> list[Simulator]:
    """One for each of a session's rows, which lend givens and lengths of texts. Raises LmpplError
    where the program cannot be simulated.
    """
    program, models, helpers = session.program, session.models, session.binding.helpers
    size = session.request.batch_size
    return [Simulator(program, models, row, helpers, size, most_attempts) for row in session.rows]


# --- what can be simulated ------------------------------------------------------------------------


def require_simulation(program: ir.Program) -> None:
    """Raise LmpplError with every part of a program that has no law to draw from."""
    raise_errors(_obstacles(program))


def _obstacles(program: ir.Program) -> Iterator[Diagnostic]:
    for latent in program.texts:
        if latent.weights is None:
            reason = (
                f"the prior of `{latent.name}` is a power or a product, from which no text "
                f"can be drawn directly"
            )
            yield run_findings.cannot_simulate(
                reason, program.source, latent.span, "use one model at power 1"
            )
    scored = {factor.name: factor for factor in program.scored_texts}
    hard = {constraint.name for constraint in program.constraints}
    for factor in program.factors:
        if factor.name in hard:
            continue
        reason = "a `factor` is a weight, not a law that something is drawn from"
        if factor.name in scored:
            reason = _reason(scored[factor.name], program)
        if reason:
            yield run_findings.cannot_simulate(reason, program.source, factor.span)


def _reason(factor: ir.Observation | ir.Mixture, program: ir.Program) -> str | None:
    """Why the text that a factor scores cannot be drawn; None where it can."""
    if isinstance(factor.target, ir.Literal):
        return "the text that is observed here is part of the program; observe a `given` instead"
    if factor.weights is None:
        return "the observation is a power or a product, from which no text can be drawn directly"
    others = [part for part in (*program.latents, *program.factors) if part is not factor]
    read = _shown(factor)
    for part in others:
        read += _shown(part) if _is_rival(part, factor) else part.reads
    if factor.target.name in program.sources(read):
        return f"`{factor.target.name}` is observed here, and read or observed elsewhere as well"
    return None


def _shown(factor: ir.ScoredText) -> tuple[str, ...]:
    """Names that the contexts of a factor show, and its guard reads."""
    shown = tuple(name for term in factor.terms for name in term.context.reads)
    return (*shown, *ir.guarded(factor.guard))


def _is_rival(part: ir.Latent | ir.Factor, factor: ir.ScoredText) -> TypeGuard[ir.ScoredText]:
    """Whether a part observes the same text, and guards tell which of them does."""
    same = isinstance(part, ir.ScoredText) and part.target == factor.target
    return same and part.guard is not None and factor.guard is not None


# --- drawing --------------------------------------------------------------------------------------


def _draw_latents(prior: Target, randomness: Randomness, most_attempts: int) -> State:
    """The first accepted draw from the prior under the constraints.

    A proposal that masks tokens is larger than the prior by what it masks, hence never smaller than
    it: accepting with probability prior / proposal is exact (von Neumann 1951).
    """
    states: list[State] = []
    densities: list[Density] = []
    while len(states) < most_attempts:
        attempts = range(len(states), len(states) + (BLOCK if states else 1))
        drawn = draw_prior(prior, [(0, attempt) for attempt in attempts], randomness, (1.0,))
        nothing = np.zeros(len(drawn.states))
        unscored = {factor.name: nothing for factor in prior.program.scored_texts}
        density = prior.log_density(drawn.states, {**drawn.known, **unscored})
        uniforms = [
            randomness.uniforms(0, attempt, Purpose.ACCEPTANCE, 1)[0] for attempt in attempts
        ]
        accepted = np.log1p(-np.array(uniforms)) <= density.total - drawn.log_proposal
        if accepted.any():
            return drawn.states[int(np.argmax(accepted))]
        states += drawn.states
        densities.append(density)
    require_support(prior, states, joined(densities))
    raise LmpplError(run_findings.hopeless_simulation(len(states), prior.program.source))


def _draw_text(
    prior: Target,
    factor: ir.Observation | ir.Mixture,
    state: State,
    randomness: Randomness,
    purpose: int,
) -> tuple[str, Tokens]:
    """The model that writes the text of a factor, and its tokens, as many as the row's text has.

    Of several, one is drawn by the weights; a last uniform is for that.
    """
    assert factor.weights is not None
    lengths = [length for _, length in prior.scored_text(factor.name).lengths]
    uniforms = randomness.uniforms(0, 0, purpose, max(lengths) + (len(lengths) > 1))
    chosen = 0
    if len(lengths) > 1:
        shares = np.cumsum(factor.weights)
        chosen = min(int(np.searchsorted(shares, uniforms[-1], "right")), len(lengths) - 1)
    tokens = prior.roll_out_scored(factor.name, chosen, [state], uniforms[None, : lengths[chosen]])
    return factor.terms[chosen].model, tokens[0]
