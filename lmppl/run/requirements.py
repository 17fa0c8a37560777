"""Whether a program's models can do what an engine needs of them: known before any is loaded."""

from __future__ import annotations

from typing import Any

from lmppl import ir
from lmppl.engines import ENGINE_NAMES, Engine, engine
from lmppl.errors import LmpplError
from lmppl.findings import models as model_findings
from lmppl.lm import Capability, Chosen, identifier_of
from lmppl.run.matching import lacking, untrainable


def require_capabilities(program: ir.Program, chosen: Engine, options: Any, models: Chosen) -> None:
    """Raise LmpplError where a model that draws a latent lacks something that an engine needs under
    its options. models: in place of the program's, by name.
    """
    needs = chosen.needed(options)
    if vars(options).get("proposal"):  # what was learned before is an adapter
        needs |= {Capability.GRADIENTS}
    for declaration, lack in lacking(program, needs, models):
        others = [name for name in ENGINE_NAMES if _would_do(program, engine(name), models)]
        called = identifier_of(declaration, models)
        raise LmpplError(
            model_findings.cannot_do(
                called, chosen.name, lack.value, others, program.source, declaration.span
            )
        )


def require_trainable(program: ir.Program, models: Chosen) -> None:
    """Raise LmpplError where a model that `learn` names cannot be trained."""
    for finding in untrainable(program, models):
        raise LmpplError(finding)


def _would_do(program: ir.Program, other: Engine, models: Chosen) -> bool:
    return not other.cannot(program) and not any(lacking(program, other.needs, models))
