"""Binding: program + models + one data row → Target. All that can be known before drawing is
checked here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.data import Row
from lmppl.density.binder import Binder
from lmppl.density.branches import decided, judged_by
from lmppl.density.chat import rendered_context
from lmppl.density.context import BoundContext, BoundPart, Fixed, Outline, outline
from lmppl.density.kinds import BINDERS, SETTLERS, BoundLatent, BoundScoredText
from lmppl.density.target import Target
from lmppl.density.terms import BoundTerm
from lmppl.errors import Diagnostic, LmpplError, at, raise_errors
from lmppl.expressions import Helper, never_equal, whole_texts_only
from lmppl.findings import program as static_findings
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Tokens, untruncated


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


@dataclass(frozen=True)
class Binding:
    """A program on its models, to be bound to rows of data. What no row changes is made once."""

    program: ir.Program
    models: Mapping[str, LanguageModel]
    helpers: Mapping[str, Helper]
    batch_size: int
    outlines: Mapping[tuple[str, ir.Context], Outline]
    settled: Mapping[str, Any]
    findings: Sequence[Diagnostic]  # of every row

    @classmethod
    def of(
        cls,
        program: ir.Program,
        models: Mapping[str, LanguageModel],
        helpers: Mapping[str, Helper] | None = None,
        batch_size: int = 64,
    ) -> Binding:
        """Raises LmpplError where what no row changes cannot be bound: a text that a model cannot
        write.
        """
        helpers = load_helpers(program) if helpers is None else helpers
        outlines: dict[tuple[str, ir.Context], Outline] = {}
        findings = list(_uncached(program, models))
        settled: dict[str, Any] = {}
        for part in (*program.latents, *program.scored_texts):
            with at(program.source, part.span):
                for term in part.terms:
                    key = term.model, term.context
                    outlines[key] = _outlined(program, models[term.model], term.context, findings)
                if settle := SETTLERS.get(type(part)):
                    settled[part.name] = settle(part, models, program.source)
        for guide in program.guides:
            model = _guided_by(program, guide)
            with at(program.source, guide.span):
                key = model, guide.context
                outlines[key] = _outlined(program, models[model], guide.context, findings)
        return cls(program, models, helpers, batch_size, outlines, settled, findings)

    def bind(
        self, row: Row, tokens: Mapping[str, Tokens] | None = None
    ) -> tuple[Target, tuple[Diagnostic, ...]]:
        """The target of one row, and warnings. Raises LmpplError with every error that binding
        finds.

        tokens: of observed givens and observed text latents, by name; they are scored as they are,
        where the row's text would be tokenised. Contexts and expressions read a given as the row's
        text all the same.
        """
        program = decided(self.program, row, self.helpers)
        binder = Binder(
            program, self.models, row, tokens or {}, self.helpers, self.outlines, self.settled
        )
        latents: list[BoundLatent] = [_bound(binder, latent) for latent in program.latents]
        scored: list[BoundScoredText] = [_bound(binder, factor) for factor in program.scored_texts]
        expressions = [_bound(binder, factor) for factor in program.expressions]
        guides = {guide.latent: _guide(binder, guide) for guide in program.guides}
        observed = {name: value for name, (_, value) in binder.observed.items()}
        findings = (
            *binder.findings,
            *_never_equal(binder),
            *_unguided(binder),
            *self.findings,
            *_length_findings(program, latents, scored, observed),
        )
        raise_errors(findings)
        target = Target(
            program,
            latents,
            scored,
            expressions,
            models=self.models,
            guides=guides,
            givens=row.givens,
            observed=observed,
            helpers=self.helpers,
            batch_size=self.batch_size,
        )
        return target, findings


def bind(
    program: ir.Program,
    models: Mapping[str, LanguageModel],
    row: Row,
    helpers: Mapping[str, Helper] | None = None,
    batch_size: int = 64,
    tokens: Mapping[str, Tokens] | None = None,
) -> tuple[Target, tuple[Diagnostic, ...]]:
    """The target of one row alone, and warnings: see `Binding.bind`. Raises LmpplError."""
    return Binding.of(program, models, helpers, batch_size).bind(row, tokens)


def _outlined(
    program: ir.Program, model: LanguageModel, context: ir.Context, findings: list[Diagnostic]
) -> Outline:
    """What no row changes of a context; warnings of what a chat template makes of it are added."""
    worked = {examples.name: examples for examples in program.examples}
    with at(program.source, context.span):
        plain, warnings, trimmed = rendered_context(context, model, worked)
        found = outline(plain, model, trimmed)
    findings += [replace(one, source=program.source, span=context.span) for one in warnings]
    return found


def _bound(binder: Binder, part: ir.Latent | ir.Factor) -> Any:
    """A latent or factor, bound in the room of its kind; findings point at it."""
    with at(binder.program.source, part.span):
        return BINDERS[type(part)](binder, part)


def _guide(binder: Binder, guide: ir.Guide) -> BoundTerm:
    """What a latent may be drawn by: a law without holes, since those of other contexts lie
    elsewhere.
    """
    model = _guided_by(binder.program, guide)
    with at(binder.program.source, guide.span):
        context = binder.context(guide.context, model)
        return BoundTerm(untruncated(binder.models[model]), context, 1.0)


def _guided_by(program: ir.Program, guide: ir.Guide) -> str:
    """Name of the model that draws a latent by its guide."""
    return program.latent(guide.latent).terms[0].model


def _never_equal(binder: Binder) -> Iterator[Diagnostic]:
    """Comparisons of what no value makes equal."""
    program = binder.program
    for found in never_equal(program, binder.row.givens):
        yield static_findings.never_equal(program.source, found.comparison, found.sides)


def _uncached(program: ir.Program, models: Mapping[str, LanguageModel]) -> Iterator[Diagnostic]:
    """Models that run everything anew."""
    for declared in program.models:
        if not models[declared.name].caches:
            yield run_findings.uncached(declared, program.source)


def _unguided(binder: Binder) -> Iterator[Diagnostic]:
    """Constraints, or parts of them, that no mask guides a text to."""
    program = binder.program
    for constraint in program.constraints:
        drawn = sorted(judged_by(program, constraint) - {*binder.observed})
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
    tail = sum(_most_tokens(part, longest, term.context) for part in term.context.tail)
    needed = len(term.context.prompt) + tail + length
    if needed > term.model.window:
        yield run_findings.context_too_long(
            what, needed, term.model.window, term.model.name, program.source, span
        )


def _most_tokens(part: BoundPart, longest: Mapping[str, int], context: BoundContext) -> int:
    """Most tokens of a part of a context; of a derived text about those that it is read from."""
    if isinstance(part, ir.LatentText):
        return longest[part.name]
    if isinstance(part, ir.DerivedText):
        return sum(longest[name] for name in part.latents)
    return len(part.tokens if isinstance(part, Fixed) else context.space)
