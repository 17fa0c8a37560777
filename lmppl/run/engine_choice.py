"""The engine that a request takes on a program, with its settings and options.

No model is loaded for that: what cannot run is said before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from lmppl import ir
from lmppl.engines import (
    ENGINE_NAMES,
    Engine,
    Settings,
    engine,
    needs,
    parse_options,
    require_ranges,
    require_together,
)
from lmppl.errors import Diagnostic, LmpplError
from lmppl.findings import learning as learning_findings
from lmppl.findings import run as run_findings
from lmppl.lm import Chosen, identifier_of
from lmppl.run.matching import lacking
from lmppl.run.memory import require_memory
from lmppl.run.request import Request
from lmppl.run.requirements import require_capabilities
from lmppl.storage import checkpoints

USUAL, BY_DRAWS = "annealed", "importance"  # what `auto` takes; and of models that tell no laws
MOST_CHOICES = 4096  # combinations of choices that `auto` enumerates


def pick_engine(program: ir.Program, name: str, models: Chosen) -> tuple[str, str]:
    """The engine to use and why, from what was asked and what the program is. models: in place of
    the program's. Raises LmpplError.
    """
    if name == "auto" and program.engine is not None:
        return program.engine.engine, "the program says so"
    if name != "auto":
        if name not in ENGINE_NAMES:
            raise LmpplError(run_findings.unknown_engine(name, (*ENGINE_NAMES, "auto")))
        return name, "asked for"
    for declaration, lack in lacking(program, needs(USUAL), models):
        if not any(lacking(program, needs(BY_DRAWS), models)):
            called = identifier_of(declaration, models)
            return BY_DRAWS, f"`{called}` has no {lack.value}, which `{USUAL}` needs"
    for latent in program.texts:
        return USUAL, f"`{latent.name}` is a text, whose values are too many to enumerate"
    combinations = math.prod(len(latent.options) for latent in program.choices)
    if combinations > MOST_CHOICES:
        return USUAL, f"{combinations} combinations of choices are too many to enumerate"
    return "exact", f"all latents are choices: {combinations} combinations"


@dataclass(frozen=True)
class Setup:
    """An engine, why it is taken, and its settings and options."""

    engine: Engine
    reason: str
    settings: Settings
    options: Any


def prepare(program: ir.Program, request: Request) -> Setup:
    """What a request comes to. Raises LmpplError, before any model is loaded."""
    learned = request.adapter is not None or request.resume
    written = program.engine.engine if program.engine else None
    if (
        learned
        and request.engine == "auto"
        and not (written in ENGINE_NAMES and engine(written).learn)
    ):
        name, reason = "gflownet", "what was learned before is given"
    else:
        name, reason = pick_engine(program, request.engine, request.lms)
    chosen = engine(name)
    settings, options = configure(program, chosen, request)
    require_memory(name, settings, options)
    if learned and chosen.learn is None:
        raise LmpplError(learning_findings.engine_learns_nothing(name))
    if request.adapter is not None and request.resume:
        raise LmpplError(learning_findings.adapter_and_resume())
    if problem := chosen.cannot(program):
        raise LmpplError(run_findings.engine_cannot(name, problem, program.source))
    require_capabilities(program, chosen, options, request.lms)
    if request.adapter is not None:
        from lmppl.engines.amortised import require_learned

        require_learned(program, request.adapter)
    return Setup(chosen, reason, settings, options)


def begun(request: Request, chosen: Engine) -> tuple[Request, list[Diagnostic]]:
    """The request, that of a new run where it asks to go on with training that has kept nothing
    yet; and a note.
    """
    folder = request.folder
    if (
        not request.resume
        or folder is None
        or checkpoints(folder)
        or (folder / "run.json").exists()
    ):
        return request, []
    return replace(request, engine=chosen.name, resume=False), [
        learning_findings.begun_anew(str(folder))
    ]


def configure(program: ir.Program, chosen: Engine, request: Request) -> tuple[Settings, Any]:
    """Settings and options: defaults, then the program's `infer`, then what was asked for. Raises
    LmpplError.
    """
    written = program.engine if program.engine and program.engine.engine == chosen.name else None
    own = dict(written.options) if written else {}
    span = written.span if written else None
    names = [field.name for field in fields(Settings)]
    in_program = {name: value for name, value in own.items() if name in names}
    require_ranges(chosen.name, request)
    settings = parse_options(chosen.name, Settings(), in_program, program.source, span)
    settings = parse_options(chosen.name, settings, request.settings)
    rest = {name: value for name, value in own.items() if name not in names}
    options = parse_options(chosen.name, chosen.options(), rest, program.source, span)
    options = parse_options(chosen.name, options, request.options)
    require_together(chosen.name, options)
    if vars(options).get("proposal"):
        from lmppl.engines.amortised import require_proposal

        require_proposal(program, options)
    return settings, options
