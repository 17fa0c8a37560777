"""Checking a syntax tree: names, roles, types, contexts and files. Pure but for looking at files
that it names.

Returns every finding it can make, in order of place; a name that is wrong is reported once per use
and leads to no further findings. Values (powers, constraints that cannot hold) are looked at in
lowering.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmppl.errors import Diagnostic
from lmppl.expressions import Kind
from lmppl.findings import program as findings
from lmppl.language import ast
from lmppl.language.constants import named_texts
from lmppl.language.context_checks import (
    check_context,
    check_end,
    check_glued,
    check_terms,
    check_worked,
    is_chat,
)
from lmppl.language.derived_checks import check_derive
from lmppl.language.expression_checks import check_constant, check_kind, kind_of, value_names
from lmppl.language.file_checks import examples_findings, helper_arities
from lmppl.language.guard_checks import check_guard
from lmppl.language.model_checks import lm_findings
from lmppl.language.pattern_checks import unguided_findings
from lmppl.language.scope import (
    CHOICE,
    DERIVED,
    EXAMPLES,
    GIVEN,
    HELPER,
    LATENT,
    LM,
    PARAM,
    STATISTIC,
    TEXT,
    TEXT_LATENT,
    WORKED_TURNS,
    Scope,
    amount,
)
from lmppl.language.tool_checks import CALCULATOR, tool_findings
from lmppl.lm import LM_LAWS
from lmppl.source import Source, Span

# how the end token is written by the models that most people use
END_TOKENS = (
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>", "<end_of_turn>",
    "</s>", "<eos>",
    "<｜end▁of▁sentence｜>", "<|return|>", "<|END_OF_TURN_TOKEN|>",
)  # fmt: skip


def check(
    program: ast.Program, source: Source, folder: str | Path, engines: Collection[str]
) -> tuple[Diagnostic, ...]:
    """All findings about a tree. folder: where relative paths start; engines: names that `infer`
    may have.
    """
    constants, found = named_texts(program, source, Path(folder))
    scope = Scope(source, Path(folder), found=found, constants=constants)
    for index, statement in enumerate(program.statements):
        scope.index = index
        _declare(scope, statement)
    for index, statement in enumerate(program.statements):
        scope.index = index
        if type(statement) in CHECKS:
            CHECKS[type(statement)](scope, statement)
    _check_infers(scope, program.statements, engines)
    _check_latents(scope, program.statements)
    _check_unused(scope)
    return tuple(sorted(scope.found, key=lambda finding: finding.span or Span(0, 0)))


# --- declarations ---------------------------------------------------------------------------------


def _declare(scope: Scope, statement: ast.Statement) -> None:
    if isinstance(statement, ast.Use):
        arities, found = helper_arities(statement, scope.source, scope.folder)
        scope.found += found
        for name in statement.names:
            scope.define(name, HELPER, arities.get(name.text, (0, float("inf"))))
    guarded = isinstance(statement, ast.Sample) and statement.guard is not None
    for name, role in _declared(statement):
        scope.define(name, role, guarded=guarded)


def _declared(statement: ast.Statement) -> Iterator[tuple[ast.Name, str]]:
    """Names that a statement defines, with what they stand for; but for those of `use`."""
    if isinstance(statement, ast.Given):
        yield from ((name, GIVEN) for name in statement.names)
    elif isinstance(statement, ast.Sample):
        yield statement.name, CHOICE if statement.choices else TEXT_LATENT
    elif isinstance(statement, ast.Examples) and is_chat(statement.items):
        yield statement.name, WORKED_TURNS
    elif isinstance(statement, Declaration):
        yield statement.name, ROLES[type(statement)]


Declaration = ast.Lm | ast.Param | ast.TextConstant | ast.Derive | ast.Statistic | ast.Examples
ROLES = {
    ast.Lm: LM,
    ast.Param: PARAM,
    ast.TextConstant: TEXT,
    ast.Derive: DERIVED,
    ast.Statistic: STATISTIC,
    ast.Examples: EXAMPLES,
}  # that names of these stand for


# --- statements -----------------------------------------------------------------------------------


def _check_lm(scope: Scope, statement: ast.Lm) -> None:
    options = _distinct(scope, statement.options)
    for option in options:
        if option.name.text in LM_LAWS and isinstance(option.value, ast.Name):
            scope.resolve(option.value.text, option.value.span, (PARAM,), "a number or a param")
    scope.found += lm_findings(statement, options, scope.source, scope.folder)


def _check_param(scope: Scope, statement: ast.Param) -> None:
    check_constant(scope, statement.value)


def _check_sample(scope: Scope, statement: ast.Sample) -> None:
    scope.link(check_terms(scope, statement.terms), reader=statement.name.text)
    check_guard(scope, statement.guard)
    for term in statement.terms:
        check_end(scope, term, statement.name.text)
    if statement.choices is not None:
        _check_choice(scope, statement, statement.choices)
    for tool in statement.tools.tools if statement.tools else ():
        _check_tool(scope, tool)
    _check_until(scope, statement.until)
    maximum = statement.maximum
    if maximum is not None and not (maximum.value >= 1 and maximum.value.is_integer()):
        scope.add(findings.bad_maximum(scope.source, maximum.span, maximum.raw))


def _check_observe(scope: Scope, statement: ast.Observe) -> None:
    _check_observed(scope, statement.target)
    if statement.items is None:
        read = check_terms(scope, statement.terms)
    else:
        _check_only_lm(scope, statement.span)
        read = check_context(scope, statement.items)
    for weight in filter(None, statement.weights):
        check_constant(scope, weight)
    check_guard(scope, statement.guard)
    if not scope.link(read):
        scope.add(findings.reads_no_latent(scope.source, statement.span, "observe"))


def _check_constrain(scope: Scope, statement: ast.Constrain) -> None:
    _check_expression(scope, "constrain", statement.expression, "boolean")
    check_guard(scope, statement.guard)
    latents = scope.named(*LATENT)
    scope.found += unguided_findings(statement.expression, latents, scope.source)


def _check_factor(scope: Scope, statement: ast.Factor) -> None:
    _check_expression(scope, "factor", statement.expression, "number")
    check_guard(scope, statement.guard)


def _check_statistic(scope: Scope, statement: ast.Statistic) -> None:
    """A number, or a truth that is counted as 0 or 1."""
    found = _check_expression(scope, "statistic", statement.expression, "any")
    check_guard(scope, statement.guard)
    if found == "text":
        check_kind(scope, statement.expression, found, "number", "what `statistic` takes")


def _check_guide(scope: Scope, statement: ast.Guide) -> None:
    name = statement.latent
    symbol = scope.resolve(name.text, name.span, (TEXT_LATENT,), "a text latent")
    again = scope.again("guide", name.text)
    if symbol is not None and again:
        scope.add(findings.second_guide(scope.source, name.span, name.text))
    for read in check_context(scope, statement.items):
        behind = [scope.symbols[latent].index for latent in scope.latents_of([read])]
        if symbol is not None and max(behind, default=-1) >= symbol.index:
            scope.add(findings.own_name(scope.source, statement.span, read))


def _check_predict(scope: Scope, statement: ast.Predict) -> None:
    name, roles = statement.latent, (DERIVED, *LATENT)
    symbol = scope.resolve(name.text, name.span, roles, "a latent or a derived value")
    if symbol is not None and not scope.link([name.text]):
        scope.add(findings.reads_no_latent(scope.source, name.span, "predict"))


def _check_examples(scope: Scope, statement: ast.Examples) -> None:
    for number in filter(None, (statement.count, statement.seed)):
        check_constant(scope, number)
    check_worked(scope, statement)
    scope.found += examples_findings(statement, scope.source, scope.folder)


def _check_learn(scope: Scope, statement: ast.Learn) -> None:
    for name in statement.models:
        symbol = scope.resolve(name.text, name.span, (LM,), "the name of an `lm`")
        if symbol is not None and scope.again("learn", name.text):
            scope.add(findings.learned_twice(scope.source, name.span, name.text))


CHECKS: Mapping[type, Callable[[Scope, Any], None]] = {
    ast.Lm: _check_lm,
    ast.Param: _check_param,
    ast.Sample: _check_sample,
    ast.Observe: _check_observe,
    ast.Constrain: _check_constrain,
    ast.Factor: _check_factor,
    ast.Derive: check_derive,
    ast.Statistic: _check_statistic,
    ast.Guide: _check_guide,
    ast.Predict: _check_predict,
    ast.Examples: _check_examples,
    ast.Learn: _check_learn,
}


# --- parts of statements --------------------------------------------------------------------------


def _distinct(scope: Scope, options: Sequence[ast.Option]) -> list[ast.Option]:
    """The first option of each name; a finding about every other one."""
    first: dict[str, ast.Option] = {}
    for option in options:
        if option.name.text in first:
            scope.add(findings.option_twice(scope.source, option.name.span, option.name.text))
        first.setdefault(option.name.text, option)
    return list(first.values())


def _check_choice(scope: Scope, statement: ast.Sample, choices: ast.Choices) -> None:
    name, first = statement.name.text, statement.terms[0]
    if len(statement.terms) > 1:
        scope.add(findings.product_of_choice(scope.source, statement.terms[1].span, name))
    elif first.power is not None:
        scope.add(findings.power_on_choice(scope.source, first.power.span, name))
    endings = {"with": statement.tools, "until": statement.until, "max": statement.maximum}
    for kind, ending in endings.items():
        if ending is not None:
            scope.add(findings.ending_on_choice(scope.source, ending.span, name, kind))
    if not choices.options:
        scope.add(findings.empty_choice(scope.source, choices.span, name))
    _check_options(scope, choices.options)
    check_glued(scope, first, choices)


def _check_options(scope: Scope, options: Sequence[ast.Text]) -> None:
    """Each option of a choice is a text, and another one."""
    seen: set[str] = set()
    for option in options:
        if not option.value:
            scope.add(findings.empty_option(scope.source, option.span))
        elif option.value in seen:
            scope.add(findings.duplicate_option(scope.source, option.span, option.value))
        seen.add(option.value)


def _check_tool(scope: Scope, tool: ast.Tool) -> None:
    options = _distinct(scope, tool.options)
    helper = tool.name.text in scope.symbols
    if _is_helper_tool(scope, tool.name) if helper else _is_calculator(scope, tool.name):
        scope.found += tool_findings(tool, options, scope.source, helper)


def _is_helper_tool(scope: Scope, name: ast.Name) -> bool:
    """Whether this is a Python function of one text; `use` may name one as the calculator is."""
    expected = "a tool: the calculator, or a Python function"
    symbol = scope.resolve(name.text, name.span, (HELPER,), expected)
    if symbol is None:
        return False
    fewest, most = symbol.arity
    if not fewest <= 1 <= most:
        scope.add(findings.no_tool(scope.source, name.span, name.text, amount(symbol.arity)))
        return False
    return True


def _is_calculator(scope: Scope, name: ast.Name) -> bool:
    if name.text == CALCULATOR:
        return True
    meant = scope.guesses((HELPER,), also=[CALCULATOR])
    scope.add(findings.unknown_tool(scope.source, name.span, name.text, meant))
    return False


def _check_until(scope: Scope, until: ast.Text | None) -> None:
    if until is not None and not until.value:
        scope.add(findings.empty_until(scope.source, until.span))
    elif until is not None and until.value in END_TOKENS:
        scope.add(findings.until_end_token(scope.source, until.span, until.value))


def _check_observed(scope: Scope, target: ast.Item) -> None:
    """What is observed is written out, named, or a given."""
    if not isinstance(target, ast.Name):
        return
    if scope.has_role(target.text, *LATENT):
        scope.add(findings.observing_a_latent(scope.source, target.span, target.text))
    else:
        scope.resolve(target.text, target.span, (GIVEN, TEXT), "a given or a named text")


def _check_only_lm(scope: Scope, span: Span) -> None:
    """A context that names no model is that of the only one."""
    models = list(scope.named(LM))
    if len(models) == 1:
        scope.resolve(models[0], span, (LM,), "an `lm`")
    else:
        scope.add(findings.which_lm(scope.source, span, models))


def _check_expression(
    scope: Scope, statement: str, expression: ast.Expression, expected: Kind
) -> Kind | None:
    """What a statement is about: of the expected kind, and it reads a latent. Its kind."""
    found = kind_of(scope, expression)
    check_kind(scope, expression, found, expected, f"what `{statement}` takes")
    latents = scope.link(name.text for name in value_names(expression))
    if not latents and found is not None:
        scope.add(findings.reads_no_latent(scope.source, expression.span, statement))
    return found


# --- the whole program ----------------------------------------------------------------------------


def _check_infers(
    scope: Scope, statements: Sequence[ast.Statement], engines: Collection[str]
) -> None:
    infers = [statement for statement in statements if isinstance(statement, ast.Infer)]
    for statement in infers:
        place = statement.engine
        if place.text not in engines:
            scope.add(findings.unknown_engine(scope.source, place.span, place.text, engines))
        _distinct(scope, statement.options)
    for statement in infers[1:]:
        scope.add(findings.second_infer(scope.source, statement.span))


def _check_latents(scope: Scope, statements: Sequence[ast.Statement]) -> None:
    """There are latents, and each has a part in something; one alone may be only drawn."""
    latents = scope.named(*LATENT)
    if not latents:
        scope.add(findings.no_latent(scope.source))
    factors = any(isinstance(one, ast.Observe | ast.Constrain | ast.Factor) for one in statements)
    if len(latents) == 1 and not factors:
        return
    for name, symbol in latents.items():
        if name not in scope.linked:
            scope.add(findings.idle_latent(scope.source, symbol.span, name))


def _check_unused(scope: Scope) -> None:
    for name, symbol in scope.symbols.items():
        if name not in scope.used and symbol.role not in (STATISTIC, *LATENT):
            scope.add(findings.unused(scope.source, symbol.span, name, symbol.role))
