"""What a program means, shown: its tree, its latents and factors, and the log density of one value.

The first two bring no torch. The last loads the models and shows the very tokens that they see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.compile import CompiledProgram
from lmppl.errors import LmpplError, error
from lmppl.expressions import Reading, whole_texts_only
from lmppl.language import ast, context_formula, factor_formula, latent_formula
from lmppl.source import Span

if TYPE_CHECKING:
    from lmppl.density import BoundTerm, Target


MOST_KINDS = 6  # givens of one constraint that are taken for a text and for a number in turn


def explain_tree(tree: ast.Program) -> str:
    """The syntax tree, one node a line."""
    return "\n".join(line for statement in tree.statements for line in _node(statement, ""))


def _node(node: Any, indent: str) -> Iterator[str]:
    """A node's own values on its line, the nodes below it on lines of their own."""
    values = {field.name: getattr(node, field.name) for field in fields(node)}
    own = {
        name: value
        for name, value in values.items()
        if not _nested(value) and not isinstance(value, Span)
    }
    written = " ".join(
        f"{name}={value!r}" for name, value in own.items() if value not in (None, ())
    )
    yield f"{indent}{type(node).__name__} {written}".rstrip()
    for name, value in values.items():
        if _nested(value):
            yield f"{indent}  {name}:"
            for child in value if isinstance(value, tuple) else (value,):
                if child is None:  # a weight that is not written
                    yield f"{indent}    (none)"
                else:
                    yield from _node(child, f"{indent}    ")


def _nested(value: Any) -> bool:
    held = value if isinstance(value, tuple) else (value,)
    first = next((one for one in held if one is not None), None)
    return is_dataclass(first) and not isinstance(first, Span)


# --- latents and factors --------------------------------------------------------------------------


def explain_ir(program: ir.Program) -> str:
    """The log density that a program denotes, term by term."""
    lines = [*_fixed(program)]
    lines.append(f"log density of ({', '.join(latent.name for latent in program.latents)}) =")
    for latent in program.latents:
        lines += [f"    {line}" for line in latent_formula(latent)]
    for factor in program.factors:
        lines.append(f"  + {factor_formula(factor)}")
        lines += [f"      (asked of whole texts only: {why})" for why in _unguided(program, factor)]
    return "\n".join([*lines, *_besides(program)])


def _besides(program: ir.Program) -> Iterator[str]:
    """What adds nothing to the density, a line each."""
    written = program.source.slice
    for derived in program.derived:
        yield f"where {derived.name} = {written(derived.expression.span)}"
    for guide in program.guides:
        yield f"guide of {guide.latent}: {context_formula(guide.context)}"
    for statistic in program.statistics:
        guard = f" when {statistic.guard.written}" if statistic.guard else ""
        yield f"reports {written(statistic.expression.span)} as {statistic.name}{guard}"
    for name in program.predictions:
        yield f"predicts p({name} | givens)"
    for name in program.learned:
        yield f"learns {name} by expectation-maximisation"


def _fixed(program: ir.Program) -> Iterator[str]:
    """What is the same for all rows: params, named texts, laws of models, worked rows."""
    yield from (f"param {name} = {value:g}" for name, value in program.params)
    for text in program.named_texts:
        file = f", from {Path(text.path).name}" if text.path else ""
        yield f"text {text.name} = {text.text!r}{file}"
    for model in program.models:
        if model.law is not None:
            yield f"{model.name} draws each token by {model.law}"
    for examples in program.examples:
        file = Path(examples.path).name
        yield f"{examples.name} = {examples.count} worked rows of {file}, seed {examples.seed}"


def _unguided(program: ir.Program, factor: ir.Factor) -> list[str]:
    """Why a constraint guides no text, whatever the row's givens are: texts or numbers."""
    constraint = next((c for c in program.constraints if c.name == factor.name), None)
    if constraint is None:
        return []
    drawn = sorted(program.scope(constraint))
    names = program.sources(constraint.reads)
    read = [name for name in program.givens if name in names][:MOST_KINDS]
    reasons = []
    for kinds in product(("text", 1.0), repeat=len(read)):
        values = dict(zip(read, kinds, strict=True))
        reasons.append(
            whole_texts_only(
                program, constraint, [Reading(name, values, program.folder) for name in drawn]
            )
        )
    return min(reasons, key=len)


# --- the density of a value -----------------------------------------------------------------------


def explain_density(
    compiled: CompiledProgram,
    values: Mapping[str, str],
    lms: Mapping[str, str],
    device: str,
    progress: Callable[[str, int, int], None],
) -> str:
    """The log density of one value of all latents, factor by factor, and the pieces that the models
    see.

    values: of givens, params and every latent. Raises LmpplError.
    """
    from lmppl.density import bind
    from lmppl.lm import load_models

    program, rows, _ = compiled.configure(values, [])
    _require_values(
        [one.name for one in program.latents if not one.guard and one.name not in values]
    )
    target, _ = bind(program, load_models(program, lms, device, progress), rows[0])
    _require_values([latent.shown for latent in target.latents])
    density = target.log_density([{}])
    lines = [line for latent in program.latents for line in _seen(target, latent)]
    width = max(map(len, [*density.factors, "log density"]))
    lines += [f"{name:<{width}}  {values[0]:>12.4f}" for name, values in density.factors.items()]
    lines.append(f"{'log density':<{width}}  {density.total[0]:>12.4f}  nats")
    return "\n".join(lines)


def _require_values(missing: Sequence[str]) -> None:
    """Raise LmpplError where some latents have no value."""
    if missing:
        message = f"no value for {', '.join(f'`{name}`' for name in missing)}"
        raise LmpplError(error("missing-value", message, help=f"add --value {missing[0]}=TEXT"))


def _seen(target: Target, latent: ir.Latent) -> Iterator[str]:
    """The tokens of a latent and of the contexts that it is scored in."""
    value = target.observed[latent.name]
    bound = target.latent(latent.name)
    if bound.is_absent(value):
        yield f"{latent.name} is not there"
        return
    scored, free = bound.spelling(value)
    for written, term in zip(latent.terms, bound.terms, strict=True):
        yield f"{latent.name} under {term.model.name}, power {term.power:g}"
        if written.context.turns:
            yield f"  turns    {context_formula(written.context)}"
        yield f"  context  {_pieces(term, (*term.context.prompt, *term.context.suffix({}, {})))}"
        yield f"  scored   {_pieces(term, scored, free)}"


def _pieces(term: BoundTerm, tokens: tuple[int, ...], free: Sequence[bool] | None = None) -> str:
    """Texts of tokens; those that a tool wrote, which are not free, stand in ⟨⟩."""
    pieces = [repr(piece)[1:-1] for piece in term.model.pieces(tokens)]
    shown = zip(pieces, free or [True] * len(pieces), strict=True)
    return "|".join(piece if chosen else f"⟨{piece}⟩" for piece, chosen in shown) or "(nothing)"
