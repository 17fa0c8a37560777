"""Binding: program + models + one data row → Target. All that can be known before drawing is
checked here.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.data import Row
from lmppl.decoding import Masks, Stopping, tools_of
from lmppl.density.bound import (
    BoundChoice,
    BoundFactor,
    BoundLatent,
    BoundObservation,
    BoundTerm,
    BoundText,
)
from lmppl.density.context import BoundContext, Fixed, Piece, bind_context, encode, worked_pieces
from lmppl.density.target import Target
from lmppl.errors import Diagnostic, LmpplError, at, raise_errors
from lmppl.expressions import Reading, necessary, never_equal, whole_texts_only
from lmppl.findings import program as static_findings
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Tokens
from lmppl.source import Span

NO_BYTES = "the text of a token of this tokenizer depends on the tokens beside it"


def load_helpers(program: ir.Program) -> dict[str, Callable[..., Any]]:
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
    helpers: Mapping[str, Callable[..., Any]] | None = None,
    batch_size: int = 64,
    tokens: Mapping[str, Tokens] | None = None,
) -> tuple[Target, tuple[Diagnostic, ...]]:
    """The target of one row, and warnings. Raises LmpplError with every error that binding finds.

    tokens: of observed givens and observed text latents, by name; they are scored as they are,
    where the row's text would be tokenised. Contexts and expressions read a given as the row's text
    all the same.
    """
    helpers = load_helpers(program) if helpers is None else helpers
    binder = _Binder(program, models, row, tokens or {}, helpers)
    latents = [binder.latent(latent) for latent in program.latents]
    factors = [binder.factor(factor) for factor in program.factors]
    guides = {guide.latent: binder.guide(guide) for guide in program.guides}
    observed = {name: value for name, (_, value) in binder.observed.items()}
    unequal = never_equal(program, row.givens)
    binder.findings += [
        static_findings.never_equal(program.source, n.comparison, n.sides) for n in unequal
    ]
    slow = [
        run_findings.uncached(d, program.source)
        for d in program.models
        if not models[d.name].caches
    ]
    findings = (
        *binder.findings,
        *binder.unguided(),
        *slow,
        *_length_findings(program, latents, factors, observed),
    )
    raise_errors(findings)
    target = Target(
        program,
        latents,
        factors,
        models=models,
        guides=guides,
        givens=row.givens,
        observed=observed,
        helpers=helpers,
        batch_size=batch_size,
    )
    return target, tuple(findings)


@dataclass
class _Binder:
    """Collects findings while the parts of one program are bound to one row."""

    program: ir.Program
    models: Mapping[str, LanguageModel]
    row: Row
    tokens: Mapping[str, Tokens]  # that stand for the row's texts where they are scored
    helpers: Mapping[str, Callable[..., Any]]
    findings: list[Diagnostic] = field(default_factory=list)
    observed: dict[str, tuple[Fixed, Tokens | int]] = field(default_factory=dict)

    def term(self, term: ir.LanguageTerm) -> BoundTerm:
        return BoundTerm(
            self.models[term.model], self.context(term.context, self.models[term.model]), term.power
        )

    def context(self, context: ir.Context, model: LanguageModel) -> BoundContext:
        fixed = {name: fixed for name, (fixed, _) in self.observed.items()}
        return bind_context(context, model, self.row.givens, fixed, self._worked(context))

    def _worked(self, context: ir.Context) -> dict[str, list[Piece]]:
        shown = [examples for examples in self.program.examples if examples.name in context.worked]
        return {
            examples.name: worked_pieces(examples, self.row.worked[examples.name])
            for examples in shown
        }

    def guide(self, guide: ir.Guide) -> BoundTerm:
        latent = self.program.latent(guide.latent)
        name = latent.terms[0].model if isinstance(latent, ir.TextLatent) else latent.term.model
        with at(self.program.source, guide.span):
            return BoundTerm(self.models[name], self.context(guide.context, self.models[name]), 1.0)

    def latent(self, latent: ir.Latent) -> BoundLatent:
        with at(self.program.source, latent.span):
            return self._text(latent) if isinstance(latent, ir.TextLatent) else self._choice(latent)

    def _text(self, latent: ir.TextLatent) -> BoundText:
        terms = tuple(self.term(term) for term in latent.terms)
        model = terms[0].model
        if len({term.model.tokenizer_fingerprint for term in terms}) > 1:
            names = [term.model for term in latent.terms]
            self.findings.append(
                run_findings.different_tokenizers(latent, names, self.program.source)
            )
        if latent.until is not None and model.end in model.encode(latent.until, markers=True):
            self.findings.append(run_findings.until_end_token(latent, self.program.source))
        elif latent.until is not None and not _can_complete(latent.until, model):
            self.findings.append(run_findings.until_unreachable(latent, self.program.source))
        for tool in latent.tools:
            if not _can_complete(tool.trigger, model):
                self.findings.append(
                    run_findings.trigger_unreachable(latent, tool, self.program.source)
                )
        tools = tools_of(
            latent,
            self.helpers,
            self.program.source,
            partial(model.encode, markers=False),
            model.decode,
        )
        stopping = Stopping(latent.until, latent.maximum, model.end, model.decode, tools)
        if latent.name in self.row.observed:
            self._observe_text(latent, model, stopping, self.row.observed[latent.name])
        return BoundText(latent, terms, stopping, self._masks(latent, model))

    def _masks(self, latent: ir.TextLatent, model: LanguageModel) -> Masks | None:
        """What the constraints on this text alone say of its next token; a finding where no text
        meets them.
        """
        reading = self._reading(latent.name)
        constraints = [
            factor for factor in self.program.factors if isinstance(factor, ir.Constraint)
        ]
        own = [
            c for c in constraints if self.program.scope(c) - {*self.row.observed} == {latent.name}
        ]
        condition = necessary([c.expression for c in own], reading, latent.until)
        if condition is None or latent.name in self.row.observed:
            return None
        if model.token_bytes is None:
            blind = [c for c in own if necessary([c.expression], reading) is not None]
            self.findings += [
                run_findings.unguided(c, NO_BYTES, self.program.source) for c in blind
            ]
            return None
        masks = Masks(condition, model, latent.maximum)
        if masks.impossible:
            self.findings.append(
                run_findings.unsatisfiable(
                    _culprits(own, reading, latent, model), self.program.source
                )
            )
        return masks

    def _reading(self, latent: str) -> Reading:
        values = {
            **self.row.givens,
            **{name: fixed.text for name, (fixed, _) in self.observed.items()},
        }
        return Reading(latent, values, self.program.folder)

    def unguided(self) -> Iterator[Diagnostic]:
        """Constraints, or parts of them, that no mask guides a text to."""
        for constraint in self.program.factors:
            if isinstance(constraint, ir.Constraint):
                drawn = self.program.scope(constraint) - {*self.row.observed}
                for why in whole_texts_only(
                    self.program, constraint, [self._reading(name) for name in sorted(drawn)]
                ):
                    yield run_findings.unguided(constraint, why, self.program.source)

    def _observe_text(
        self, latent: ir.TextLatent, model: LanguageModel, stopping: Stopping, value: str
    ) -> None:
        if stopping.tools is None or latent.name in self.tokens:
            tokens = self._encode(latent.name, value, model)
        else:
            tokens = stopping.tools.tokens_of(value)
        if not stopping.legal(tokens):
            finding = run_findings.observed_impossible(
                latent, value, len(tokens), self.program.source
            )
            self.findings.append(finding)
        if latent.name not in self.tokens:
            self._read_back(f"`{latent.name}`", value, tokens, model, latent.span)
        self.observed[latent.name] = Fixed(value, tokens), tokens

    def _read_back(
        self, name: str, text: str, tokens: Tokens, model: LanguageModel, span: Span
    ) -> None:
        """A finding where the tokens of an observed text are those of another one, but for a space
        in front.
        """
        read = model.decode(tokens)
        if read not in (text, " " + text):
            self.findings.append(
                run_findings.altered_text(name, text, read, model.name, self.program.source, span)
            )

    def _encode(self, name: str, text: str, model: LanguageModel, opening: bool = False) -> Tokens:
        """Tokens of a value of the row. opening: it is what a prompt begins with."""
        return (
            self.tokens[name]
            if name in self.tokens
            else encode(text, model, markers=False, opening=opening)
        )

    def _choice(self, latent: ir.ChoiceLatent) -> BoundChoice:
        model = self.models[latent.term.model]
        options = tuple(encode(option, model, markers=True) for option in latent.options)
        self.findings.extend(_option_findings(latent, options, self.program))
        if latent.name in self.row.observed:
            self._observe_choice(latent, options, self.row.observed[latent.name])
        return BoundChoice(latent, self.term(latent.term), options)

    def _observe_choice(
        self, latent: ir.ChoiceLatent, options: Sequence[Tokens], value: str
    ) -> None:
        if value not in latent.options:
            self.findings.append(
                run_findings.observed_not_an_option(latent, value, self.program.source)
            )
            return
        index = latent.options.index(value)
        self.observed[latent.name] = Fixed(value, options[index]), index

    def factor(self, factor: ir.Factor) -> BoundFactor:
        if not isinstance(factor, ir.Observation):
            return factor
        with at(self.program.source, factor.span):
            return self._observation(factor)

    def _observation(self, factor: ir.Observation) -> BoundObservation:
        terms = tuple(self.term(term) for term in factor.terms)
        target = factor.target
        if isinstance(target, ir.Literal):
            text = target.text
            tokens = tuple(
                encode(text, term.model, markers=True, opening=term.context.empty) for term in terms
            )
        else:
            text = self.row.givens[target.name]
            tokens = tuple(
                self._encode(target.name, text, term.model, term.context.empty) for term in terms
            )
        if isinstance(target, ir.Literal) or target.name not in self.tokens:
            self._read_back(factor.name, text, tokens[0], terms[0].model, factor.span)
        if text[:1].isalnum() and any(_ends_in_a_word(term.context) for term in terms):
            self.findings.append(
                run_findings.glued_observation(factor.name, self.program.source, factor.span)
            )
        return BoundObservation(factor, tokens, terms)


def _culprits(
    constraints: Sequence[ir.Constraint],
    reading: Reading,
    latent: ir.TextLatent,
    model: LanguageModel,
) -> list[ir.Constraint]:
    """Constraints that no text meets by themselves; all of them where only their meeting is
    impossible.
    """
    alone = [(c, necessary([c.expression], reading, latent.until)) for c in constraints]
    masks = [
        (c, Masks(condition, model, latent.maximum))
        for c, condition in alone
        if condition is not None
    ]
    return [c for c, mask in masks if mask.impossible] or list(constraints)


def _ends_in_a_word(context: BoundContext) -> bool:
    """Whether a context ends in a letter, a digit or a sentence's end, or in a latent, which mostly
    does.
    """
    if context.tail:
        last = context.tail[-1]
        return not isinstance(last, Fixed) or not last.text[-1:].isspace()
    return bool(context.prompt_text) and not context.prompt_text[-1].isspace()


def _can_complete(until: str, model: LanguageModel) -> bool:
    """False where the model's vocabulary cannot write the text at all: encoding does not survive
    decoding.
    """
    return until in model.decode(model.encode("a" + until, markers=True)) or until in model.decode(
        model.encode(until, markers=True)
    )


def _option_findings(
    latent: ir.ChoiceLatent, options: Sequence[Tokens], program: ir.Program
) -> Iterator[Diagnostic]:
    for i, tokens in enumerate(options):
        if not tokens:
            yield run_findings.option_not_tokenised(latent, latent.options[i], program.source)
        for j, other in enumerate(options):
            if i != j and tokens and other[: len(tokens)] == tokens:
                yield run_findings.option_prefix(
                    latent, latent.options[i], latent.options[j], program.source
                )


def _length_findings(
    program: ir.Program,
    latents: Sequence[BoundLatent],
    factors: Sequence[BoundFactor],
    observed: Mapping[str, Tokens | int],
) -> Iterator[Diagnostic]:
    """Contexts that can outgrow a model's window."""
    longest = {bound.latent.name: _longest(bound, observed) for bound in latents}
    for bound in latents:
        terms = bound.terms if isinstance(bound, BoundText) else (bound.term,)
        for term in terms:
            name = bound.latent.name
            yield from _fits(f"`{name}`", term, longest[name], longest, program, bound.latent.span)
    for factor in factors:
        if isinstance(factor, BoundObservation):
            for term, tokens in zip(factor.terms, factor.tokens, strict=True):
                yield from _fits(
                    f"`{factor.factor.name}`",
                    term,
                    len(tokens),
                    longest,
                    program,
                    factor.factor.span,
                )


def _longest(bound: BoundLatent, observed: Mapping[str, Tokens | int]) -> int:
    if isinstance(bound, BoundChoice):
        return max(map(len, bound.options), default=0)
    value = observed.get(bound.latent.name)
    return len(value) if isinstance(value, tuple) else bound.latent.maximum


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
