"""Binding: program + models + one data row → Target. All that can be known before drawing is
checked here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.data import Row
from lmppl.density.binder import Binder
from lmppl.density.context import BoundContext, Fixed
from lmppl.density.kinds import BINDERS, BoundLatent, BoundScoredText
from lmppl.density.target import Target
from lmppl.density.terms import BoundTerm
from lmppl.errors import Diagnostic, LmpplError, at, raise_errors
from lmppl.expressions import Helper, never_equal, whole_texts_only
from lmppl.findings import program as static_findings
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Tokens


def load_helpers(program: ir.Program) -> dict[str, Helper]:
    """Import the Python files that `use` statements name, and return their functions."""
    modules: dict[str, Any] = {}
    helpers = {}
    for helper in program.helpers:
        try:
            if helper.path not in modules:
                modules[helper.path] = _import(helper.path)
            helpers[helper.name] = modules[helper.path][helper.name]
        except Exception as reason:  # whatever the user's file raises when it is run
            detail = f"{type(reason).__name__}: {reason}"
            raise LmpplError(run_findings.helper_failed(helper, detail, program.source)) from None
    return helpers


def _import(path: str) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location(f"lmppl_helper_{Path(path).stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def bind(
    program: ir.Program,
    models: Mapping[str, LanguageModel],
    row: Row,
    helpers: Mapping[str, Helper] | None = None,
    batch_size: int = 64,
    tokens: Mapping[str, Tokens] | None = None,
) -> tuple[Target, tuple[Diagnostic, ...]]:
    """The target of one row, and warnings. Raises LmpplError with every error that binding finds.

    tokens: of observed givens and observed text latents, by name; they are scored as they are,
    where the row's text would be tokenised. Contexts and expressions read a given as the row's text
    all the same.
    """
    helpers = load_helpers(program) if helpers is None else helpers
    binder = Binder(program, models, row, tokens or {}, helpers)
    latents: list[BoundLatent] = [_bound(binder, latent) for latent in program.latents]
    scored: list[BoundScoredText] = [_bound(binder, factor) for factor in program.scored_texts]
    expressions = [_bound(binder, factor) for factor in program.expressions]
    guides = {guide.latent: _guide(binder, guide) for guide in program.guides}
    observed = {name: value for name, (_, value) in binder.observed.items()}
    findings = (
        *binder.findings,
        *_never_equal(binder),
        *_unguided(binder),
        *_uncached(binder),
        *_length_findings(program, latents, scored, observed),
    )
    raise_errors(findings)
    target = Target(
        program,
        latents,
        scored,
        expressions,
        models=models,
        guides=guides,
        givens=row.givens,
        observed=observed,
        helpers=helpers,
        batch_size=batch_size,
    )
    return target, findings


def _bound(binder: Binder, part: ir.Latent | ir.Factor) -> Any:
    """A latent or factor, bound in the room of its kind; findings point at it."""
    with at(binder.program.source, part.span):
        return BINDERS[type(part)](binder, part)


def _guide(binder: Binder, guide: ir.Guide) -> BoundTerm:
    model = binder.models[binder.program.latent(guide.latent).terms[0].model]
    with at(binder.program.source, guide.span):
        return BoundTerm(model, binder.context(guide.context, model), 1.0)


def _never_equal(binder: Binder) -> Iterator[Diagnostic]:
    """Comparisons of what no value makes equal."""
    program = binder.program
    for found in never_equal(program, binder.row.givens):
        yield static_findings.never_equal(program.source, found.comparison, found.sides)


def _uncached(binder: Binder) -> Iterator[Diagnostic]:
    """Models that run everything anew."""
    for declared in binder.program.models:
        if not binder.models[declared.name].caches:
            yield run_findings.uncached(declared, binder.program.source)


def _unguided(binder: Binder) -> Iterator[Diagnostic]:
    """Constraints, or parts of them, that no mask guides a text to."""
    program = binder.program
    for constraint in program.constraints:
        drawn = sorted(program.scope(constraint) - {*binder.row.observed})
        readings = [binder.reading(name) for name in drawn]
        for why in whole_texts_only(program, constraint, readings):
            yield run_findings.unguided(constraint, why, program.source)


def _length_findings(
    program: ir.Program,
    latents: Sequence[BoundLatent],
    factors: Sequence[BoundScoredText],
    observed: Mapping[str, Tokens | int],
) -> Iterator[Diagnostic]:
    """Contexts that can outgrow a model's window."""
    longest = {bound.name: _longest(bound, observed) for bound in latents}
    for bound in latents:
        for term in bound.terms:
            name = bound.name
            yield from _fits(f"`{name}`", term, longest[name], longest, program, bound.latent.span)
    for factor in factors:
        for term, length in factor.lengths:
            name = f"`{factor.name}`"
            yield from _fits(name, term, length, longest, program, factor.factor.span)


def _longest(bound: BoundLatent, observed: Mapping[str, Tokens | int]) -> int:
    """Most tokens of a latent's value, or those of the value that the row has."""
    value = observed.get(bound.name)
    return len(value) if isinstance(value, tuple) else bound.longest


def _fits(
    what: str,
    term: BoundTerm,
    length: int,
    longest: Mapping[str, int],
    program: ir.Program,
    span: Any,
) -> Iterator[Diagnostic]:
    tail = sum(
        longest[part.name]
        if isinstance(part, ir.LatentText)
        else len(_tokens_of(part, term.context))
        for part in term.context.tail
    )
    needed = len(term.context.prompt) + tail + length
    if needed > term.model.window:
        yield run_findings.context_too_long(
            what, needed, term.model.window, term.model.name, program.source, span
        )


def _tokens_of(part: Fixed | ir.Join, context: BoundContext) -> Tokens:
    return part.tokens if isinstance(part, Fixed) else context.space
