"""Whether models can do what is asked of them, as far as a program and its identifiers tell.

Brings no torch, so that `lmppl check` can say what cannot run as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator

from lmppl import ir
from lmppl.engines import needs, traits
from lmppl.errors import Diagnostic
from lmppl.findings import models as findings
from lmppl.lm import (
    BY_LAWS,
    Capabilities,
    Capability,
    Chosen,
    capabilities_of,
    capabilities_under,
    identifier_of,
)


def lacking(
    program: ir.Program, needed: Capabilities, models: Chosen
) -> Iterator[tuple[ir.ModelDeclaration, Capability]]:
    """What models that draw latents lack. models: in place of the program's, by name.

    Options of a choice are scored, and need no whole law; a text of several models, or with tools,
    needs one where others need draws.
    """
    asked: dict[str, Capabilities] = {}
    for latent in program.choices:
        asked[latent.term.model] = needed - BY_LAWS
    for latent in program.texts:
        step_by_step = len(latent.terms) > 1 or latent.tools
        own = needed | BY_LAWS if step_by_step else needed
        for term in latent.terms:
            asked[term.model] = asked.get(term.model, frozenset()) | own
    for declaration in program.models:
        model = models.get(declaration.name, declaration.identifier)
        able = capabilities_under(capabilities_of(model), declaration.law)
        for capability in Capability:
            if capability in asked.get(declaration.name, frozenset()) - able:
                yield declaration, capability


def untrainable(program: ir.Program, models: Chosen) -> Iterator[Diagnostic]:
    """Findings about models that `learn` names and that take no adapter."""
    for declaration in program.models:
        model = models.get(declaration.name, declaration.identifier)
        able = Capability.GRADIENTS in capabilities_of(model)
        if declaration.name in program.learned and not able:
            called = identifier_of(declaration, models)
            yield findings.cannot_adapt(called, program.source, declaration.span)


def unable_as_written(program: ir.Program) -> Iterator[Diagnostic]:
    """Findings about a program whose own `infer` and `learn` ask of its own models what these
    cannot do. What options of the engine ask for besides is looked at when it is to be run.
    """
    yield from untrainable(program, {})
    chosen = program.engine
    if chosen is None:
        return
    for declaration, lack in lacking(program, needs(chosen.engine), {}):
        general = traits(chosen.engine).alternatives.general
        others = [name for name in general if not any(lacking(program, needs(name), {}))]
        yield findings.infer_cannot(
            declaration.identifier, chosen.engine, lack.value, others, program.source, chosen.span
        )
