"""A session: a program on rows of data, its models, and an engine with the settings and options
that it runs with. Runs, calibrations, bounds and fits are made from one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.engines import Engine, Settings
from lmppl.run.engine_choice import configure, prepare
from lmppl.run.request import Request
from lmppl.screen import Progress, quiet

if TYPE_CHECKING:
    from lmppl.data import Row
    from lmppl.density import Binding, Target
    from lmppl.errors import Diagnostic
    from lmppl.lm import LanguageModel


@dataclass(frozen=True)
class Session:
    """What a request comes to on a program, its rows and its models.

    binding: of the program to rows, with its helpers. settings, options: of the engine,
    with their defaults, those of the program's `infer`, and those of the request.
    """

    program: ir.Program
    rows: Sequence[Row]
    models: Mapping[str, LanguageModel]
    binding: Binding
    request: Request
    engine: Engine
    reason: str  # why this engine is taken
    settings: Settings
    options: Any
    progress: Progress = quiet

    def bind(self, row: Row) -> tuple[Target, Sequence[Diagnostic]]:
        """The target of a row, one of the session's or another, and warnings. Raises LmpplError."""
        return self.binding.bind(row)

    def proposals(self) -> AbstractContextManager[Callable[[Target], None]]:
        """What gives targets the trained proposal that the options name, as long as it is open;
        where they name none, it gives nothing.
        """
        from lmppl.engines.amortised import lender

        return lender(self.program, self.options)

    def changed(self, engine: Engine, reason: str, request: Request) -> Session:
        """This session with another engine, or other sizes of it. request: what the settings and
        options are taken from; that of the session stays. Raises LmpplError.
        """
        settings, options = configure(self.program, engine, request)
        return replace(self, engine=engine, reason=reason, settings=settings, options=options)


def open_session(
    program: ir.Program,
    rows: Sequence[Row],
    models: Mapping[str, LanguageModel],
    request: Request,
    progress: Progress = quiet,
) -> Session:
    """The session of a request. Raises LmpplError where the engine cannot do it."""
    from lmppl.density import Binding  # brings torch

    request = replace(request, lms=models)
    setup = prepare(program, request)
    binding = Binding.of(program, models, batch_size=request.batch_size)
    return Session(program, rows, models, binding, request, **vars(setup), progress=progress)


def forget_prompts(models: Mapping[str, LanguageModel]) -> None:
    """Drop what models keep of prompts: neither cost nor the last bit of a number hangs on what was
    run before.
    """
    for model in models.values():
        model.forget_prompts()


def forget_all_but_stems(models: Mapping[str, LanguageModel]) -> None:
    """As `forget_prompts`, but for what all rows begin with."""
    for model in models.values():
        model.forget_all_but_stems()


def cost_of(models: Mapping[str, LanguageModel]) -> dict[str, int]:
    """Work done so far; a model that goes by two names is counted once."""
    total = {"tokens_decoded": 0, "tokens_scored": 0, "forward_passes": 0}
    for cost in {id(model.cost): model.cost for model in models.values()}.values():
        for key in total:
            total[key] += vars(cost)[key]
    return total
