"""From a checked syntax tree to the IR: params become numbers, texts become parts, spans stay to
point at.

Also finds what only values show: powers that are not finite or do not normalise, constraints that
cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.errors import Diagnostic
from lmppl.expressions import (
    OPERANDS,
    TRIGGER,
    Environment,
    EvaluationError,
    evaluate,
    interval,
    never_equal,
    number,
)
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.arms import overlapping, with_arms
from lmppl.language.constants import named_texts
from lmppl.language.context_lowering import lowered_context
from lmppl.lm import LM_KEY, LM_LAWS, LM_OPTIONS, LM_PATIENCE, LM_TEXTS
from lmppl.source import Source, Span

DEFAULT_MAXIMUM = 64  # tokens of a text latent that does not say `max`


def lower(
    program: ast.Program,
    source: Source,
    folder: str | Path,
    params: Mapping[str, float] | None = None,
) -> tuple[ir.Program, tuple[Diagnostic, ...]]:
    """The IR of a tree that `check` found no error in, and findings about its values.

    params: values that replace those in the program. Where there is an error among the findings,
    the IR must not be used.
    """
    lowering = _Lowering(program, source, Path(folder).resolve(), dict(params or {}))
    return lowering.run()


class _Lowering:
    def __init__(
        self, program: ast.Program, source: Source, folder: Path, params: Mapping[str, float]
    ) -> None:
        self.program, self.source, self.folder, self.settings = program, source, folder, params
        self.constants, self.found = named_texts(program, source, folder)
        self.params: dict[str, float] = {}
        kinds = program.statements
        self.latents = {s.name.text for s in kinds if isinstance(s, ast.Sample)}
        # of derived names, the latents that they are read from
        self.derived: dict[str, frozenset[str]] = {}
        self.models = [s.name.text for s in kinds if isinstance(s, ast.Lm)]
        self.examples = {s.name.text for s in kinds if isinstance(s, ast.Examples)}
        self.helpers = {name.text for s in kinds if isinstance(s, ast.Use) for name in s.names}

    def run(self) -> tuple[ir.Program, tuple[Diagnostic, ...]]:
        for param in self._of(ast.Param):
            value = self.settings.get(param.name.text)
            self.params[param.name.text] = self._constant(param.value) if value is None else value
        derived = tuple(map(self._derive, self._of(ast.Derive)))
        program = ir.Program(
            self.source,
            tuple(map(self._model, self._of(ast.Lm))),
            tuple(name.text for s in self._of(ast.Given) for name in s.names),
            tuple(self.params.items()),
            tuple(map(self._latent, self._of(ast.Sample))),
            tuple(self._factors()),
            tuple(map(self._guide, self._of(ast.Guide))),
            tuple(map(self._predicted, self._of(ast.Predict))),
            tuple(self._helpers()),
            next(map(self._engine, self._of(ast.Infer)), None),
            tuple(map(self._statistic, self._of(ast.Statistic))),
            tuple(map(self._examples, self._of(ast.Examples))),
            tuple(name.text for s in self._of(ast.Learn) for name in s.models),
            derived,
            str(self.folder),
            tuple(map(self._named_text, self._of(ast.TextConstant))),
        )
        program = with_arms(program)
        self.found += overlapping(program)
        self.found += _impossible(program)
        self.found += _not_learnable(program)
        self.found += _cut_away(program)
        self.found += [
            findings.never_equal(self.source, n.comparison, n.sides) for n in never_equal(program)
        ]
        return program, tuple(sorted(self.found, key=lambda finding: finding.span or Span(0, 0)))

    def _of(self, kind: type) -> list:
        return [statement for statement in self.program.statements if isinstance(statement, kind)]

    # --- declarations ----------------------------------------------------------------------------

    def _model(self, statement: ast.Lm) -> ir.ModelDeclaration:
        values = {option.name.text: option.value for option in statement.options}
        texts = {n: v.value for n, v in values.items() if n in LM_TEXTS and isinstance(v, ast.Text)}
        variables = {n: self._option(v) for n, v in values.items() if n not in LM_OPTIONS}
        key, patience = values.get(LM_KEY), values.get(LM_PATIENCE)
        return ir.ModelDeclaration(
            statement.name.text,
            statement.identifier.value,
            statement.span,
            law=self._law(statement.options),
            variables=tuple(variables.items()),
            key=key.name.value if isinstance(key, ast.Environment) else None,
            patience=patience.value if isinstance(patience, ast.Number) else None,
            **texts,
        )

    def _law(self, options: Sequence[ast.Option]) -> ir.LocalLaw | None:
        """What becomes of a model's laws; None where nothing does."""
        values: dict[str, Any] = {}
        for option in options:
            name = option.name.text
            if name not in LM_LAWS or isinstance(option.value, ast.Environment):
                continue
            value: float = self._constant(option.value)
            whole = name == "top_k"
            if whole and value.is_integer():
                value = int(value)
            if LM_LAWS[name].holds(value):
                values[name] = value
            else:
                kind = "a whole number" if whole else "a number"
                expected, place = f"{kind} {LM_LAWS[name]}", option.value.span
                self.found.append(
                    findings.bad_lm_option(self.source, place, name, expected, f"{value:g}")
                )
        law = ir.LocalLaw(**values)
        return law if law.changes else None

    def _named_text(self, statement: ast.TextConstant) -> ir.NamedText:
        text = self.constants[statement.name.text]
        return ir.NamedText(statement.name.text, text.value, text.path, statement.span)

    def _guide(self, statement: ast.Guide) -> ir.Guide:
        context = self._context(statement.items, statement.span)
        return ir.Guide(statement.latent.text, context, statement.span)

    def _statistic(self, statement: ast.Statistic) -> ir.Statistic:
        expression = self._expression(statement.expression)
        guard = self._guard(statement.guard)
        return ir.Statistic(statement.name.text, expression, statement.span, guard)

    def _derive(self, statement: ast.Derive) -> ir.Derived:
        name, expression = statement.name.text, self._expression(statement.expression)
        read = frozenset(ir.reads(expression))
        behind = (self.derived[one] for one in read if one in self.derived)
        self.derived[name] = (read & self.latents).union(*behind)
        return ir.Derived(name, expression, statement.span)

    @staticmethod
    def _predicted(statement: ast.Predict) -> str:
        return statement.latent.text

    def _helpers(self) -> Iterator[ir.Helper]:
        for statement in self._of(ast.Use):
            for name in statement.names:
                yield ir.Helper(name.text, str(self.folder / statement.path.value), name.span)

    def _examples(self, statement: ast.Examples) -> ir.Examples:
        shown = lowered_context(statement.items, statement.span, ir.Given, {})
        turns = tuple(turn for turn in shown.turns if isinstance(turn, ir.Turn))
        count = self._whole(statement.count, "the number of examples")
        seed = 0 if statement.seed is None else self._whole(statement.seed, "the seed of examples")
        path = str(self.folder / statement.path.value)
        name = statement.name.text
        return ir.Examples(name, count, path, shown.parts, seed, statement.span, turns)

    def _whole(self, node: ast.Number | ast.Name, what: str) -> int:
        value = self._constant(node)
        if value < 0 or not value.is_integer():
            self.found.append(findings.not_whole(self.source, node.span, what, value))
            return 0
        return int(value)

    def _engine(self, statement: ast.Infer) -> ir.EngineChoice:
        values = [(o.name.text, self._option(o.value)) for o in statement.options]
        return ir.EngineChoice(statement.engine.text, tuple(values), statement.span)

    @staticmethod
    def _option(value: ast.Expression | ast.Environment) -> float | str | bool:
        if isinstance(value, ast.Name):
            return value.text == "true" if value.text in ("true", "false") else value.text
        assert isinstance(value, ast.Number | ast.Text)
        return value.value

    # --- latents and factors ---------------------------------------------------------------------

    def _latent(self, statement: ast.Sample) -> ir.Latent:
        terms = tuple(self._term(term) for term in statement.terms)
        name, guard = statement.name.text, self._guard(statement.guard)
        if statement.choices is not None:
            options = tuple(option.value for option in statement.choices.options)
            return ir.ChoiceLatent(name, terms[0], options, statement.span, guard)
        until = statement.until.value if statement.until else None
        maximum = int(statement.maximum.value) if statement.maximum else DEFAULT_MAXIMUM
        tools = self._tools(statement.tools.tools) if statement.tools else ()
        latent = ir.TextLatent(name, terms, until, maximum, statement.span, tools, guard)
        if all(math.isfinite(term.power) for term in terms) and latent.total_power <= 1e-9:
            self.found.append(
                findings.flat_power(self.source, statement.span, name, latent.total_power)
            )
        return latent

    def _tools(self, tools: Sequence[ast.Tool]) -> tuple[ir.Tool, ...]:
        found: dict[str, ir.Tool] = {}
        for tool in map(self._tool, tools):
            if tool.trigger in found:
                self.found.append(findings.trigger_twice(self.source, tool.span, tool.trigger))
            found[tool.trigger] = tool
        return tuple(found.values())

    def _tool(self, tool: ast.Tool) -> ir.Tool:
        values = {option.name.text: self._option(option.value) for option in tool.options}
        if tool.name.text not in self.helpers:  # the calculator, which can do without any
            values = {"trigger": TRIGGER, "operands": float(OPERANDS), **values}
        trigger = values.pop("trigger")
        assert isinstance(trigger, str)
        numbers = tuple((name, value) for name, value in values.items() if isinstance(value, float))
        return ir.Tool(tool.name.text, trigger, numbers, tool.span)

    def _term(self, term: ast.Term) -> ir.LanguageTerm:
        power = 1.0 if term.power is None else self._constant(term.power)
        place = term.span if term.power is None else term.power.span
        if not math.isfinite(power):
            self.found.append(findings.bad_power(self.source, place, power))
        elif power == 0:
            self.found.append(findings.zero_power(self.source, place))
        return ir.LanguageTerm(
            term.model.text, self._context(term.items, term.span), power, term.span
        )

    def _factors(self) -> Iterator[ir.Factor]:
        counts: dict[str, int] = {}
        for statement in self.program.statements:
            if isinstance(statement, ast.Observe | ast.Constrain | ast.Factor):
                name = self._factor_name(statement)
                counts[name] = counts.get(name, 0) + 1
                unique = name if counts[name] == 1 else f"{name} ({counts[name]})"
                yield self._factor(statement, unique)

    def _factor_name(self, statement: ast.Observe | ast.Constrain | ast.Factor) -> str:
        """A factor goes by the statement it was written as, cut to a readable length."""
        if isinstance(statement, ast.Observe):
            target = statement.target
            return (
                f"observe {target.text if isinstance(target, ast.Name) else _shorten(target.raw)}"
            )
        written = Span(statement.span.start, statement.expression.span.end)
        return _shorten(" ".join(self.source.slice(written).split()))

    def _factor(self, statement: ast.Observe | ast.Constrain | ast.Factor, name: str) -> ir.Factor:
        guard = self._guard(statement.guard)
        if isinstance(statement, ast.Constrain | ast.Factor):
            kind = ir.Constraint if isinstance(statement, ast.Constrain) else ir.Score
            return kind(name, self._expression(statement.expression), statement.span, guard)
        observed = self._observed(statement.target)
        if statement.items is not None:
            context = self._context(statement.items, statement.span)
            terms: tuple[ir.LanguageTerm, ...] = (
                ir.LanguageTerm(self.models[0], context, 1.0, statement.span),
            )
        else:
            terms = tuple(self._term(term) for term in statement.terms)
        if statement.weights:
            weights = self._weights(statement)
            return ir.Mixture(name, observed, terms, statement.span, weights, guard=guard)
        return ir.Observation(name, observed, terms, statement.span, guard=guard)

    def _observed(self, target: ast.Item) -> ir.Literal | ir.Given:
        if isinstance(target, ast.Text):
            return ir.Literal(target.value)
        text = self.constants.get(target.text)
        return ir.Given(target.text) if text is None else ir.Literal(text.value)

    def _weights(self, statement: ast.Observe) -> tuple[float, ...]:
        """Of a mixture, divided by their sum; those that are not written are 1."""
        values = []
        for node, term in zip(statement.weights, statement.terms, strict=True):
            value = 1.0 if node is None else self._constant(node)
            if node is not None and not 0 < value < math.inf:
                self.found.append(findings.bad_weight(self.source, node.span, value))
                value = 1.0
            if term.power is not None:
                self.found.append(findings.power_in_mixture(self.source, term.power.span))
            values.append(value)
        return tuple(value / sum(values) for value in values)

    def _context(self, items: Sequence[ast.Shown], span: Span) -> ir.Context:
        return lowered_context(items, span, self._read, self.constants)

    def _read(self, name: str) -> ir.Part:
        if name in self.examples:
            return ir.WorkedRows(name)
        if name in self.derived:
            return ir.DerivedText(name, self.derived[name])
        return ir.LatentText(name) if name in self.latents else ir.Given(name)

    # --- expressions -----------------------------------------------------------------------------

    def _guard(self, node: ast.Expression | None) -> ir.Guard | None:
        if node is None:
            return None
        written = " ".join(self.source.slice(node.span).split())
        return ir.Guard(self._expression(node), written)

    def _expression(self, node: ast.Expression) -> ir.Expression:
        if isinstance(node, ast.Number | ast.Text):
            return ir.Constant(node.value, node.span)
        if isinstance(node, ast.Pattern):
            return ir.Pattern(node.text, node.span)
        if isinstance(node, ast.Name):
            if node.text in self.params:
                return ir.Constant(self.params[node.text], node.span)
            if node.text in self.constants:
                return ir.Constant(self.constants[node.text].value, node.span)
            return ir.Read(node.text, node.span)
        if isinstance(node, ast.Unary):
            name = "negate" if node.operator == "-" else "not"
            return ir.Apply(name, (self._expression(node.operand),), node.span)
        if isinstance(node, ast.Binary):
            return ir.Apply(
                node.operator,
                (self._expression(node.left), self._expression(node.right)),
                node.span,
            )
        return ir.Apply(node.function.text, tuple(map(self._expression, node.arguments)), node.span)

    def _constant(self, node: ast.Expression) -> float:
        """Value of an expression of numbers and params; 1 after a finding where it has none."""
        try:
            expression = self._expression(node)
            return float(number(evaluate(expression, Environment({})), expression))
        except EvaluationError as reason:
            self.found.append(findings.no_value(self.source, reason.span, str(reason)))
        return 1.0


def _impossible(program: ir.Program) -> Iterator[Diagnostic]:
    limits = {latent.name: latent.maximum for latent in program.texts}
    for factor in program.constraints:
        reached = interval(program.expanded(factor.expression), limits, program.guarded)[1]
        if factor.guard is None and reached == 0:
            yield findings.impossible_constraint(program.source, factor.span)


def _not_learnable(program: ir.Program) -> Iterator[Diagnostic]:
    """Terms of a learned model whose normaliser would change with what is learned."""
    for owner in (*program.texts, *program.scored_texts):
        own = [term for term in owner.terms if term.model in program.learned]
        for term in own:
            if owner.weights is None:
                yield findings.not_learnable(program.source, term.span, term.model)


def _cut_away(program: ir.Program) -> Iterator[Diagnostic]:
    """Uses of models whose laws have holes that ask for laws without."""
    cut = {model.name: model.law for model in program.models if model.law and model.law.truncates}
    for owner in (*program.latents, *program.scored_texts):
        for term in owner.terms:
            if term.model in cut and term.power < 0:
                law = str(cut[term.model])
                yield findings.negative_power_of_cut(program.source, term.span, term.model, law)
    for model in program.models:
        if model.name in cut and model.name in program.learned:
            yield findings.learned_cut(program.source, model.span, model.name, str(model.law))


def _shorten(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
