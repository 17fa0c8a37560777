"""What latents and factors add to the log density, written as people write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lmppl import ir


def latent_formula(latent: ir.Latent) -> list[str]:
    """What a latent adds to the log density, and how it ends: lines of text."""
    return [*_LATENTS[type(latent)](latent), *_there(latent)]


def factor_formula(factor: ir.Factor) -> str:
    """What a factor adds to the log density."""
    formula = _FACTORS[type(factor)](factor)
    if factor.guard is None:
        return formula
    return f"[{formula} when {factor.guard.written}, else 0]"


def _there(latent: ir.Latent) -> list[str]:
    return (
        [] if latent.guard is None else [f"  ({latent.name} is there when {latent.guard.written})"]
    )


def _text(latent: ir.TextLatent) -> list[str]:
    lines = [f"+ {_term(term, latent.name)}" for term in latent.terms]
    ending = f"{latent.name} ends with the end token, or is cut at {latent.maximum} tokens"
    if latent.until is not None:
        first = f"the first {latent.until!r}, within {latent.maximum} tokens"
        ending = f"{latent.name} ends with {first}"
    written = [
        f"  ({t.name} writes behind {t.trigger!r}, which is not scored)" for t in latent.tools
    ]
    return [*lines, f"  ({ending})", *written]


def _choice(latent: ir.ChoiceLatent) -> list[str]:
    options = ", ".join(map(repr, latent.options))
    return [f"+ {_term(latent.term, latent.name)}, renormalised over {options}"]


def _product(factor: ir.Observation) -> str:
    return " + ".join(_term(term, _target(factor)) for term in factor.terms)


def _mixture(factor: ir.Mixture) -> str:
    parts = [
        f"{weight:g} · p_{term.model}({_target(factor)} | {context_formula(term.context)})"
        for weight, term in zip(factor.weights, factor.terms, strict=True)
    ]
    return f"log ({' + '.join(parts)})"


def _constraint(factor: ir.Constraint) -> str:
    return f"(0 if {_written(factor, 'constrain ')} else -inf)"


def _score(factor: ir.Score) -> str:
    return _written(factor, "factor ")


def _written(factor: ir.Constraint | ir.Score, statement: str) -> str:
    """The expression of a factor, whose name is the statement as it was written."""
    return factor.name.removeprefix(statement)


_LATENTS: dict[type, Callable[[Any], list[str]]] = {
    ir.TextLatent: _text,
    ir.ChoiceLatent: _choice,
}
_FACTORS: dict[type, Callable[[Any], str]] = {
    ir.Observation: _product,
    ir.Mixture: _mixture,
    ir.Constraint: _constraint,
    ir.Score: _score,
}


def _target(factor: ir.ScoredText) -> str:
    return factor.target.name if isinstance(factor.target, ir.Given) else repr(factor.target.text)


def _term(term: ir.LanguageTerm, target: str) -> str:
    power = f"{term.power:g} · " if term.power != 1 else ""
    return f"{power}log p_{term.model}({target} | {context_formula(term.context)})"


def context_formula(context: ir.Context) -> str:
    """A context's parts in order; `⎵` is a space where the texts around it have none."""
    if context.turns:
        return ", ".join(map(_turn, context.turns))
    return _parts(context.parts)


def _turn(turn: ir.Turn | ir.WorkedRows) -> str:
    return f"{turn.role} {_parts(turn.parts)}" if isinstance(turn, ir.Turn) else turn.name


def _parts(parts: Sequence[ir.Part]) -> str:
    return " ".join(map(_part, parts)) or "nothing"


def _part(part: ir.Part) -> str:
    if isinstance(part, ir.Join):
        return "⎵"
    if isinstance(part, ir.Spaced):
        return part.value.name
    return repr(part.text) if isinstance(part, ir.Literal) else part.name
