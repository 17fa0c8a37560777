"""Checking a syntax tree: names, roles, types, contexts and files. Pure but for looking at files
that it names.

Returns every finding it can make, in order of place; a name that is wrong is reported once per use
and leads to no further findings. Values (powers, constraints that cannot hold) are looked at in
lowering.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from lmppl.errors import SHOWN, Diagnostic
from lmppl.expressions import FILE_FUNCTIONS, FUNCTIONS, Kind
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.file_checks import (
    examples_findings,
    grammar_findings,
    helper_arities,
)
from lmppl.language.model_checks import lm_findings
from lmppl.language.parsing import walk
from lmppl.language.pattern_checks import pattern_findings, unguided_findings
from lmppl.language.texts import Placeholder, begins_a_word, split_template
from lmppl.language.tool_checks import CALCULATOR, tool_findings
from lmppl.source import Source, Span

# how the end token is written by the models that most people use
END_TOKENS = (
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>", "<end_of_turn>",
    "</s>", "<eos>",
    "<｜end▁of▁sentence｜>", "<|return|>", "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip

LM, GIVEN, PARAM, HELPER = "a language model", "a given", "a param", "a Python function"
TEXT_LATENT, CHOICE, STATISTIC, EXAMPLES = (
    "a text latent",
    "a choice",
    "a statistic",
    "a set of worked rows",
)
LATENT = (TEXT_LATENT, CHOICE)


@dataclass(frozen=True)
class Symbol:
    """What a name stands for, and where it was defined."""

    role: str
    span: Span
    index: int  # of the statement
    arity: tuple[int, float] = (0, 0)  # of a helper: fewest and most arguments


def check(
    program: ast.Program, source: Source, folder: str | Path, engines: Collection[str]
) -> tuple[Diagnostic, ...]:
    """All findings about a tree. folder: where relative paths start; engines: names that `infer`
    may have.
    """
    checker = _Checker(program, source, Path(folder), engines)
    checker.run()
    return tuple(sorted(checker.found, key=lambda finding: finding.span or Span(0, 0)))


class _Checker:
    def __init__(
        self, program: ast.Program, source: Source, folder: Path, engines: Collection[str]
    ) -> None:
        self.program, self.source, self.folder, self.engines = program, source, folder, engines
        self.found: list[Diagnostic] = []
        self.symbols: dict[str, Symbol] = {}
        self.used: set[str] = set()
        self.linked: set[str] = set()  # latents that something reads, or that read a latent
        self.guided: set[str] = set()
        self.learned: set[str] = set()
        self.latents: set[str] = set()
        self.lms: list[str] = []
        self.index = 0
        self.num_infers = 0
        self.num_unknown = 0

    def add(self, finding: Diagnostic) -> None:
        self.found.append(finding)

    def run(self) -> None:
        for index, statement in enumerate(self.program.statements):
            self._declare(index, statement)
        self.latents = {name for name, symbol in self.symbols.items() if symbol.role in LATENT}
        self.lms = [name for name, symbol in self.symbols.items() if symbol.role == LM]
        for index, statement in enumerate(self.program.statements):
            self.index = index
            self._statement(statement)
        self._whole()

    # --- declarations ----------------------------------------------------------------------------

    def _declare(self, index: int, statement: ast.Statement) -> None:
        if isinstance(statement, ast.Lm):
            self._define(statement.name, LM, index)
        elif isinstance(statement, ast.Given):
            for name in statement.names:
                self._define(name, GIVEN, index)
        elif isinstance(statement, ast.Param):
            self._define(statement.name, PARAM, index)
        elif isinstance(statement, ast.Sample):
            self._define(statement.name, CHOICE if statement.choices else TEXT_LATENT, index)
        elif isinstance(statement, ast.Statistic):
            self._define(statement.name, STATISTIC, index)
        elif isinstance(statement, ast.Examples):
            self._define(statement.name, EXAMPLES, index)
        elif isinstance(statement, ast.Use):
            arities, found = helper_arities(statement, self.source, self.folder)
            self.found += found
            for name in statement.names:
                self._define(name, HELPER, index, arities.get(name.text, (0, float("inf"))))

    def _define(
        self, name: ast.Name, role: str, index: int, arity: tuple[int, float] = (0, 0)
    ) -> None:
        first = self.symbols.get(name.text)
        if first is not None:
            line, _ = self.source.position(first.span.start)
            self.add(findings.duplicate_name(self.source, name.span, name.text, line))
            return
        self.symbols[name.text] = Symbol(role, name.span, index, arity)

    # --- names -----------------------------------------------------------------------------------

    def _resolve(self, name: str, span: Span, roles: Iterable[str], expected: str) -> Symbol | None:
        """The symbol of a name, if it may stand here."""
        symbol = self.symbols.get(name)
        if symbol is None:
            known = [] if self._many_unknown() else self._known(roles)
            define = (
                f"given {name}"
                if GIVEN in roles
                else f'lm {name} = "smollm2-135m"'
                if LM in roles
                else None
            )
            self.add(findings.unknown_name(self.source, span, name, known, define))
            return None
        self.used.add(name)
        if symbol.role not in roles:
            self.add(findings.wrong_role(self.source, span, name, symbol.role, expected))
            return None
        if symbol.index == self.index and symbol.span != span:
            self.add(findings.own_name(self.source, span, name))
            return None
        if symbol.index > self.index:
            line, _ = self.source.position(symbol.span.start)
            self.add(findings.used_before(self.source, span, name, line))
            return None
        return symbol

    def _known(self, roles: Iterable[str]) -> list[str]:
        return [
            key
            for key, value in self.symbols.items()
            if value.role in roles and value.index < self.index
        ]

    def _many_unknown(self) -> bool:
        """Whether more names are unknown by now than are shown: to look for what each might mean
        would take long.
        """
        self.num_unknown += 1
        return self.num_unknown > SHOWN

    # --- statements ------------------------------------------------------------------------------

    def _statement(self, statement: ast.Statement) -> None:
        if isinstance(statement, ast.Lm):
            options = self._distinct(statement.options)
            self.found += lm_findings(statement, options, self.source, self.folder)
        elif isinstance(statement, ast.Param):
            self._constant(statement.value)
        elif isinstance(statement, ast.Sample):
            self._sample(statement)
        elif isinstance(statement, ast.Observe):
            self._observe(statement)
        elif isinstance(statement, ast.Constrain):
            self._expression_statement("constrain", statement.expression, "boolean")
            self.found += unguided_findings(statement.expression, self.latents, self.source)
        elif isinstance(statement, ast.Factor):
            self._expression_statement("factor", statement.expression, "number")
        elif isinstance(statement, ast.Statistic):
            self._statistic(statement)
        elif isinstance(statement, ast.Guide):
            self._guide(statement)
        elif isinstance(statement, ast.Predict):
            if self._resolve(statement.latent.text, statement.latent.span, LATENT, "a latent"):
                self.linked.add(statement.latent.text)
        elif isinstance(statement, ast.Infer):
            self._infer(statement)
        elif isinstance(statement, ast.Examples):
            self._examples(statement)
        elif isinstance(statement, ast.Learn):
            self._learn(statement)

    def _distinct(self, options: Sequence[ast.Option]) -> list[ast.Option]:
        first: dict[str, ast.Option] = {}
        for option in options:
            if option.name.text in first:
                self.add(findings.option_twice(self.source, option.name.span, option.name.text))
            first.setdefault(option.name.text, option)
        return list(first.values())

    def _sample(self, statement: ast.Sample) -> None:
        read = [name for term in statement.terms for name in self._term(term)]
        self._link(statement.name.text, read)
        for term in statement.terms:
            self._ends_in_space(term, statement.name.text)
        if statement.choices is not None:
            self._choice(statement, statement.choices)
        if statement.tools is not None:
            self._tools(statement.tools.tools)
        self._until(statement.until)
        maximum = statement.maximum
        if maximum is not None and not (maximum.value >= 1 and maximum.value.is_integer()):
            self.add(findings.bad_maximum(self.source, maximum.span, maximum.raw))

    def _until(self, until: ast.Text | None) -> None:
        if until is not None and not until.value:
            self.add(findings.empty_until(self.source, until.span))
        elif until is not None and until.value in END_TOKENS:
            self.add(findings.until_end_token(self.source, until.span, until.value))

    def _tools(self, tools: Sequence[ast.Tool]) -> None:
        for tool in tools:
            options = self._distinct(tool.options)
            if self._is_tool(tool.name):
                self.found += tool_findings(
                    tool, options, self.source, helper=tool.name.text in self.symbols
                )

    def _is_tool(self, name: ast.Name) -> bool:
        """The calculator, or a Python function of one text; `use` may give the calculator's name to
        another.
        """
        if name.text not in self.symbols:
            if name.text != CALCULATOR:
                known = [] if self._many_unknown() else [CALCULATOR, *self._known((HELPER,))]
                self.add(findings.unknown_tool(self.source, name.span, name.text, known))
            return name.text == CALCULATOR
        symbol = self._resolve(
            name.text, name.span, (HELPER,), "a tool: the calculator, or a Python function"
        )
        if symbol is not None and not symbol.arity[0] <= 1 <= symbol.arity[1]:
            self.add(findings.no_tool(self.source, name.span, name.text, _amount(symbol.arity)))
            return False
        return symbol is not None

    def _link(self, latent: str, read: Iterable[str]) -> None:
        latents = [name for name in read if self.symbols[name].role in LATENT]
        self.linked.update(latents)
        if latents:
            self.linked.add(latent)

    def _choice(self, statement: ast.Sample, choices: ast.Choices) -> None:
        name, first = statement.name.text, statement.terms[0]
        if len(statement.terms) > 1:
            self.add(findings.product_of_choice(self.source, statement.terms[1].span, name))
        elif first.power is not None:
            self.add(findings.power_on_choice(self.source, first.power.span, name))
        for kind, ending in (
            ("with", statement.tools),
            ("until", statement.until),
            ("max", statement.maximum),
        ):
            if ending is not None:
                self.add(findings.ending_on_choice(self.source, ending.span, name, kind))
        if not choices.options:
            self.add(findings.empty_choice(self.source, choices.span, name))
        seen: set[str] = set()
        for option in choices.options:
            if not option.value:
                self.add(findings.empty_option(self.source, option.span))
            elif option.value in seen:
                self.add(findings.duplicate_option(self.source, option.span, option.value))
            seen.add(option.value)
        self._glued(first, choices)

    def _glued(self, term: ast.Term, choices: ast.Choices) -> None:
        """Options that begin with a letter or a digit where the context ends in a word or in
        punctuation.
        """
        last = term.items[-1] if term.items else None
        if not isinstance(last, ast.Text) or not (end := last.value[-1:]):
            return
        if glued := [option for option in choices.options if begins_a_word(end, option.value[:1])]:
            self.add(findings.glued_option(self.source, glued[0].span, glued[0].value))

    def _term(self, term: ast.Term) -> list[str]:
        """Checks a term and returns the names that its context reads."""
        self._resolve(term.model.text, term.model.span, (LM,), "the name of an `lm`")
        if term.power is not None:
            self._constant(term.power)
        return self._context(term.items)

    def _context(self, items: Sequence[ast.Item]) -> list[str]:
        read = []
        for item in items:
            pieces: Sequence[str | Placeholder]
            if isinstance(item, ast.Text):
                pieces, bad = split_template(self.source, item)
                self.found += bad
            else:
                pieces = [Placeholder(item.text, item.span)]
            for piece in pieces:
                roles = (GIVEN, EXAMPLES, *LATENT)
                if isinstance(piece, Placeholder) and self._resolve(
                    piece.name, piece.span, roles, "a given or a latent"
                ):
                    read.append(piece.name)
            self._space_before_latent(pieces, item.span)
        return read

    def _space_before_latent(self, pieces: Sequence[str | Placeholder], span: Span) -> None:
        for before, after in pairwise(pieces):
            if isinstance(before, str) and before.endswith(" ") and isinstance(after, Placeholder):
                symbol = self.symbols.get(after.name)
                if symbol is not None and symbol.role in LATENT:
                    self.add(findings.trailing_space(self.source, span, after.name))

    def _ends_in_space(self, term: ast.Term, latent: str) -> None:
        last = term.items[-1] if term.items else None
        if isinstance(last, ast.Text) and last.value.endswith(" "):
            self.add(findings.trailing_space(self.source, last.span, latent))

    def _observe(self, statement: ast.Observe) -> None:
        target = statement.target
        if isinstance(target, ast.Name):
            symbol = self.symbols.get(target.text)
            if symbol is not None and symbol.role in LATENT:
                self.add(findings.observing_a_latent(self.source, target.span, target.text))
            else:
                self._resolve(target.text, target.span, (GIVEN,), "a given")
        if statement.items is not None:
            if len(self.lms) == 1:
                self._resolve(self.lms[0], statement.span, (LM,), "an `lm`")
            else:
                self.add(findings.which_lm(self.source, statement.span, self.lms))
            read = self._context(statement.items)
        else:
            read = [name for term in statement.terms for name in self._term(term)]
        for weight in filter(None, statement.weights):
            self._constant(weight)
        latents = [name for name in read if self.symbols[name].role in LATENT]
        self.linked.update(latents)
        if not latents:
            self.add(findings.reads_no_latent(self.source, statement.span, "observe"))

    def _guide(self, statement: ast.Guide) -> None:
        name = statement.latent
        symbol = self._resolve(name.text, name.span, (TEXT_LATENT,), "a text latent")
        if symbol is not None and name.text in self.guided:
            self.add(findings.second_guide(self.source, name.span, name.text))
        self.guided.add(name.text)
        for read in self._context(statement.items):
            other = self.symbols[read]
            if symbol is not None and other.role in LATENT and other.index >= symbol.index:
                self.add(findings.own_name(self.source, statement.span, read))

    def _examples(self, statement: ast.Examples) -> None:
        for amount in (statement.count, statement.seed):
            if amount is not None:
                self._constant(amount)
        self.found += examples_findings(statement, self.source, self.folder)

    def _learn(self, statement: ast.Learn) -> None:
        for name in statement.models:
            if name.text in self.learned:
                self.add(findings.learned_twice(self.source, name.span, name.text))
            elif self._resolve(name.text, name.span, (LM,), "the name of an `lm`"):
                self.learned.add(name.text)

    def _infer(self, statement: ast.Infer) -> None:
        self.num_infers += 1
        if self.num_infers > 1:
            self.add(findings.second_infer(self.source, statement.span))
        if statement.engine.text not in self.engines:
            place = statement.engine
            self.add(findings.unknown_engine(self.source, place.span, place.text, self.engines))
        self._distinct(statement.options)

    # --- expressions -----------------------------------------------------------------------------

    def _constant(self, expression: ast.Expression) -> None:
        """A number that is known before inference."""
        names = list(_names(expression))
        for name in names:
            symbol = self.symbols.get(name.text)
            if symbol is not None and symbol.role in (GIVEN, *LATENT):
                self.used.add(name.text)
                self.add(findings.not_constant(self.source, name.span, name.text))
                return
        self._expect(expression, self._kind(expression), "number", "this value")

    def _expression_statement(
        self, kind: str, expression: ast.Expression, expected: Kind
    ) -> Kind | None:
        found = self._kind(expression)
        self._expect(expression, found, expected, f"what `{kind}` takes")
        names = [name.text for name in _names(expression) if name.text in self.symbols]
        latents = [name for name in names if self.symbols[name].role in LATENT]
        self.linked.update(latents)
        if not latents and found is not None:
            self.add(findings.reads_no_latent(self.source, expression.span, kind))
        return found

    def _statistic(self, statement: ast.Statistic) -> None:
        """A number, or a truth that is counted as 0 or 1."""
        found = self._expression_statement("statistic", statement.expression, "any")
        if found == "text":
            self._expect(statement.expression, found, "number", "what `statistic` takes")

    def _expect(
        self, expression: ast.Expression, found: Kind | None, expected: Kind, what: str
    ) -> None:
        """found is None where something inside is wrong already."""
        if found is not None and "any" not in (found, expected) and found != expected:
            help = None
            if isinstance(expression, ast.Text) and expected == "pattern":
                help = f"write it between slashes: /{expression.value.replace('/', chr(92) + '/')}/"
            self.add(findings.wrong_type(self.source, expression.span, what, expected, found, help))

    def _kind(self, expression: ast.Expression) -> Kind | None:
        """Type of an expression; None, after a finding, where it has none."""
        if isinstance(expression, ast.Number):
            return "number"
        if isinstance(expression, ast.Text):
            return "text"
        if isinstance(expression, ast.Pattern):
            return self._pattern(expression)
        if isinstance(expression, ast.Name):
            return self._value(expression)
        if isinstance(expression, ast.Unary):
            name = "negate" if expression.operator == "-" else "not"
            return self._apply(name, expression.operator, (expression.operand,))
        if isinstance(expression, ast.Binary):
            return self._apply(
                expression.operator, expression.operator, (expression.left, expression.right)
            )
        return self._call(expression)

    def _pattern(self, pattern: ast.Pattern) -> Kind:
        self.found += pattern_findings(pattern, self.source)
        return "pattern"

    def _value(self, name: ast.Name) -> Kind | None:
        expected = "a given, a param or a latent"
        symbol = self._resolve(name.text, name.span, (GIVEN, PARAM, *LATENT), expected)
        if symbol is None:
            return None
        if symbol.role == GIVEN:
            return "any"  # a text or a number, as the data has it
        return "number" if symbol.role == PARAM else "text"

    def _call(self, call: ast.Call) -> Kind | None:
        name = call.function.text
        if name in self.symbols:
            symbol = self._resolve(name, call.function.span, (HELPER,), "a function")
            kinds = [self._kind(argument) for argument in call.arguments]
            if symbol is None or None in kinds:
                return None
            fewest, most = symbol.arity
            if not fewest <= len(call.arguments) <= most:
                expected = _amount(symbol.arity)
                self.add(
                    findings.wrong_arity(
                        self.source, call.span, name, expected, len(call.arguments)
                    )
                )
            return "any"
        if (
            name not in FUNCTIONS
            or not name.isidentifier()
            or name in ("and", "or", "not", "negate")
        ):
            known = [] if self._many_unknown() else [*FUNCTIONS, *self._known((HELPER,))]
            self.add(findings.unknown_function(self.source, call.function.span, name, known))
            return None
        self._file_argument(call)
        return self._apply(name, name, call.arguments, call.span)

    def _file_argument(self, call: ast.Call) -> None:
        if call.function.text in FILE_FUNCTIONS and len(call.arguments) == 2:
            path = call.arguments[1]
            if isinstance(path, ast.Text):
                self.found += grammar_findings(call.function.text, path, self.source, self.folder)
            else:
                found = self.source.slice(path.span)
                self.add(
                    findings.wrong_type(self.source, path.span, "the file", "text in quotes", found)
                )

    def _apply(
        self, name: str, shown: str, arguments: Sequence[ast.Expression], span: Span | None = None
    ) -> Kind | None:
        function = FUNCTIONS[name]
        kinds: list[Kind | None] = [self._kind(argument) for argument in arguments]
        if len(kinds) != len(function.parameters):
            place = span or arguments[0].span
            self.add(
                findings.wrong_arity(
                    self.source, place, shown, str(len(function.parameters)), len(kinds)
                )
            )
            return function.result
        for argument, found, expected in zip(arguments, kinds, function.parameters, strict=True):
            self._expect(argument, found, expected, f"what `{shown}` takes here")
        return None if None in kinds else function.result

    # --- the whole program -----------------------------------------------------------------------

    def _whole(self) -> None:
        latents = {name: symbol for name, symbol in self.symbols.items() if symbol.role in LATENT}
        if not latents:
            self.add(findings.no_latent(self.source))
        factors = (ast.Observe, ast.Constrain, ast.Factor)
        alone = len(latents) == 1 and not any(
            isinstance(s, factors) for s in self.program.statements
        )
        for name, symbol in latents.items():
            if name not in self.linked and not alone:
                self.add(findings.idle_latent(self.source, symbol.span, name))
        for name, symbol in self.symbols.items():
            if name not in self.used and symbol.role not in (STATISTIC, *LATENT):
                self.add(findings.unused(self.source, symbol.span, name, symbol.role))


def _names(expression: ast.Expression) -> Iterable[ast.Name]:
    """Names of values in an expression; functions are not among them."""
    return (node for node in walk(expression) if isinstance(node, ast.Name))


def _amount(arity: tuple[int, float]) -> str:
    """Fewest and most arguments, in words."""
    return f"{arity[0]}" if arity[0] == arity[1] else f"{arity[0]} to {arity[1]}"
