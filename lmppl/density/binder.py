"""What binding a program to one row has in hand: models, the row's values, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from lmppl import ir
from lmppl.data import Row
from lmppl.density.branches import is_never
from lmppl.density.context import BoundContext, Fixed, Outline, Worked, encode
from lmppl.density.terms import BoundTerm
from lmppl.errors import Diagnostic, LmpplError
from lmppl.expressions import Environment, EvaluationError, Helper, Reading, Value, written
from lmppl.findings import chat as chat_findings
from lmppl.findings import run as run_findings
from lmppl.lm import LanguageModel, Tokens
from lmppl.source import Span


@dataclass
class Binder:
    """Collects findings while the parts of one program are bound to one row."""

    program: ir.Program
    models: Mapping[str, LanguageModel]
    row: Row
    tokens: Mapping[str, Tokens]  # that stand for the row's texts where they are scored
    helpers: Mapping[str, Helper]
    outlines: Mapping[tuple[str, ir.Context], Outline]  # of every context, by its model's name
    settled: Mapping[str, Any]  # what kinds made of parts, by name, for all rows
    findings: list[Diagnostic] = field(default_factory=list)
    observed: dict[str, tuple[Fixed, Tokens | int]] = field(default_factory=dict)
    known: dict[str, Value] = field(default_factory=dict)  # of derived names, once asked for

    def term(self, term: ir.LanguageTerm) -> BoundTerm:
        """A term under its model."""
        return BoundTerm(
            self.models[term.model], self.context(term.context, term.model), term.power
        )

    def context(self, context: ir.Context, model: str) -> BoundContext:
        """A context as a model, by its name, sees it."""
        fixed = {name: fixed for name, (fixed, _) in self.observed.items()}
        outline = self.outlines[model, context]
        givens, worked = {**self.row.givens, **self._derived(context)}, self._worked(context)
        for name in dict.fromkeys(outline.untrimmed(givens, worked)):
            said = chat_findings.untrimmed(model, name, self.program.source, context.span)
            self.findings.append(said)
        return outline.bound(givens, fixed, worked)

    def _derived(self, context: ir.Context) -> dict[str, str]:
        """Derived texts in a context that the row alone settles. Raises LmpplError."""
        found = {}
        for part in context.parts if self.program.derived else ():
            if isinstance(part, ir.DerivedText) and part.latents <= {*self.observed}:
                try:
                    found[part.name] = written(self._environment().value(part.name))
                except EvaluationError as reason:
                    raise LmpplError(
                        run_findings.no_derived_value(
                            part.name, reason, self._texts(), self.program.source
                        )
                    ) from None
        return found

    def _texts(self) -> dict[str, str]:
        """Of the latents that the row observes."""
        return {name: fixed.text for name, (fixed, _) in self.observed.items()}

    def _environment(self) -> Environment:
        """What the row says, and what can be derived from it."""
        first = next(iter(self.models.values()))
        return Environment(
            {**self.row.givens, **self._texts()},
            {name: len(fixed.tokens) for name, (fixed, _) in self.observed.items()},
            lambda text: len(first.encode(text, markers=False)),
            self.helpers,
            self.program.folder,
            derived={derived.name: derived.expression for derived in self.program.derived},
            known=self.known,
        )

    def _worked(self, context: ir.Context) -> dict[str, Worked]:
        if not self.program.examples:
            return {}
        shown = [examples for examples in self.program.examples if examples.name in context.worked]
        return {one.name: Worked(one, self.row.worked[one.name]) for one in shown}

    @property
    def fixed(self) -> frozenset[str]:
        """Latents that the row has a value of, or has not at all."""
        return frozenset(
            latent.name
            for latent in self.program.latents
            if is_never(latent.guard) or latent.shown in self.row.observed
        )

    def reading(self, latent: str) -> Reading:
        """What is known where constraints on a latent are read."""
        values: dict[str, Value] = {**self.row.givens, **self._texts()}
        for derived in self.program.derived:
            if self.program.latents_behind([derived.name]) <= {*self.observed}:
                with suppress(EvaluationError):  # which is said where a state needs it
                    values[derived.name] = self._environment().value(derived.name)
        return Reading(latent, values, self.program.folder)

    def encode(
        self,
        name: str | None,
        text: str,
        model: LanguageModel,
        opening: bool = False,
        markers: bool = False,
    ) -> Tokens:
        """Tokens of a value of the row, by name, or of a text of the program, which has none.

        opening: it is what a prompt begins with. markers: it may hold the model's markers.
        """
        if name is not None and name in self.tokens:
            return self.tokens[name]
        return encode(text, model, markers=markers, opening=opening)

    def read_back(
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
