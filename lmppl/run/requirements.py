"""Whether a program's models can do what an engine needs of them: known before any is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lmppl import ir
from lmppl.engines import ENGINE_NAMES, Engine, engine
from lmppl.errors import LmpplError
from lmppl.findings import models as model_findings
from lmppl.lm import BY_LAWS, Capabilities, Capability, Chosen, capabilities_of, identifier_of


def require_capabilities(program: ir.Program, chosen: Engine, options: Any, models: Chosen) -> None:
    """Raise LmpplError where a model that draws a latent lacks something that an engine needs under
    its options. models: in place of the program's, by name.
    """
    needs = chosen.needed(options)
    if vars(options).get("proposal"):  # what was learned before is an adapter
        needs |= {Capability.GRADIENTS}
    for declaration, lacking in _lacking(program, needs, models):
        others = [name for name in ENGINE_NAMES if _would_do(program, engine(name), models)]
        called = identifier_of(declaration, models)
        raise LmpplError(
            model_findings.cannot_do(
                called, chosen.name, lacking.value, others, program.source, declaration.span
            )
        )


def require_trainable(program: ir.Program, models: Chosen) -> None:
    """Raise LmpplError where a model that `learn` names cannot be trained."""
    for declaration in program.models:
        model = models.get(declaration.name, declaration.identifier)
        able = Capability.GRADIENTS in capabilities_of(model)
        if declaration.name in program.learned and not able:
            called = identifier_of(declaration, models)
            raise LmpplError(model_findings.cannot_adapt(called, program.source, declaration.span))


def _would_do(program: ir.Program, other: Engine, models: Chosen) -> bool:
    return not other.cannot(program) and not any(_lacking(program, other.needs, models))


def _lacking(
    program: ir.Program, needs: Capabilities, models: Chosen
) -> Iterator[tuple[ir.ModelDeclaration, Capability]]:
    """What models of latents lack. Options of a choice are scored, and need no whole law; a text of
    several models, or with tools, needs one where others need draws.
    """
    texts = [latent for latent in program.latents if isinstance(latent, ir.TextLatent)]
    choices = [latent for latent in program.latents if isinstance(latent, ir.ChoiceLatent)]
    asked = {latent.term.model: needs - BY_LAWS for latent in choices}
    for latent in texts:
        step_by_step = len(latent.terms) > 1 or latent.tools
        own = needs | BY_LAWS if step_by_step else needs
        for term in latent.terms:
            asked[term.model] = asked.get(term.model, frozenset()) | own
    for declaration in program.models:
        able = capabilities_of(models.get(declaration.name, declaration.identifier))
        for capability in Capability:
            if capability in asked.get(declaration.name, frozenset()) - able:
                yield declaration, capability
