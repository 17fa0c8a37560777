"""Programs that are served: each checked, its models loaded, its session open, before a port is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.compile import CompiledProgram
from lmppl.data import Pools, pools_of
from lmppl.errors import LmpplError
from lmppl.findings import serving as findings
from lmppl.lm import load_models
from lmppl.run import Request, Session, open_session, prepare
from lmppl.screen import Progress
from lmppl.source import Span

if TYPE_CHECKING:
    from lmppl.density import Target
    from lmppl.lm import LanguageModel

AT_ONCE = "importance"  # of what is no choice: its draws stand alone, and more of them go on


@dataclass(frozen=True)
class Served:
    """A program that answers. fixed: texts of givens and latents that no request may change."""

    name: str
    session: Session
    fixed: Mapping[str, str]
    pools: Pools
    lend: Callable[[Target], None]  # gives targets the trained proposal, where there is one

    @property
    def program(self) -> ir.Program:
        """Its IR."""
        return self.session.program

    @property
    def givens(self) -> list[str]:
        """Givens that a request has to bring, in program order."""
        return [name for name in self.program.givens if name not in self.fixed]

    @property
    def answers(self) -> tuple[str, ...]:
        """Names that make up an answer: what the program predicts, else all latents."""
        return self.program.predictions or self.program.names

    @property
    def likeliest(self) -> bool:
        """Whether a reply is the likeliest answer where a request does not say: where the program
        predicts something, or there is one choice and nothing else.
        """
        alone = len(self.program.names) == 1 and not self.program.texts
        return bool(self.program.predictions) or alone

    def options(self, name: str) -> list[str] | None:
        """The options of a choice, those of all its arms; None of what is none."""
        found = [one for one in self.program.latents if one.shown == name]
        choices = [one for one in found if isinstance(one, ir.ChoiceLatent)]
        if len(choices) < max(len(found), 1):
            return None
        return [*dict.fromkeys(option for one in choices for option in one.options)]


def require_names(paths: Sequence[str]) -> list[str]:
    """The name of every program's model: that of its file. Raises LmpplError where two are one."""
    names = [Path(path).stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            same = [path for path, other in zip(paths, names, strict=True) if other == name]
            raise LmpplError(findings.same_name(name, same))
    return names


@contextmanager
def load_programs(
    programs: Mapping[str, CompiledProgram],
    settings: Mapping[str, str],
    request: Request,
    machine: Mapping[str, Any],
    progress: Progress,
) -> Iterator[dict[str, Served]]:
    """Every program by its name, ready to be asked.

    settings: values of givens, params and latents, for programs that have them. machine: what
    `load_models` is told of devices. Raises LmpplError before anything is loaded where a program
    cannot be served.
    """
    _require_known(programs, settings, request)
    plans = {name: _planned(compiled, settings, request) for name, compiled in programs.items()}
    served: dict[str, Served] = {}
    loaded: dict[tuple[Any, ...], LanguageModel] = {}
    with ExitStack() as lending:
        for name, (program, fixed, asked) in plans.items():
            progress(f"loading {name}", len(served), len(plans))
            keys = _keys(program, asked)
            known = {one: loaded[key] for one, key in keys.items() if key in loaded}
            models = load_models(program, {**asked.lms, **known}, report=progress, **machine)
            loaded |= {keys[one]: model for one, model in models.items() if one in keys}
            session = open_session(program, [], models, asked)
            lend = lending.enter_context(session.proposals())
            served[name] = Served(name, session, fixed, pools_of(program), lend)
        yield served


def _keys(program: ir.Program, request: Request) -> dict[str, tuple[Any, ...]]:
    """What tells models apart, by name: those alike in all of it are loaded once for all programs.
    Models that take what was learned are a program's own.
    """
    if "proposal" in request.options:
        return {}
    folder = Path(program.folder).resolve()
    found = {}
    for one in program.models:
        plain = replace(one, span=Span(0, 0))
        found[one.name] = plain, request.lms.get(one.name), one.name in program.talking, folder
    return found


def _require_known(
    programs: Mapping[str, CompiledProgram], settings: Mapping[str, str], request: Request
) -> None:
    """Raise LmpplError where a setting, or another model, is for a name that no program has."""
    names: dict[str, None] = {}
    models: dict[str, None] = {}
    for compiled in programs.values():
        names |= dict.fromkeys(_names(compiled.program))
        models |= dict.fromkeys(one.name for one in compiled.program.models)
    for flag, given, known in (("--set", settings, names), ("--lm", request.lms, models)):
        if unknown := [name for name in given if name not in known]:
            raise LmpplError(findings.unknown_settings(flag, unknown, [*known]))


def _names(program: ir.Program) -> list[str]:
    """Names that a setting may have a value for."""
    return [*program.givens, *program.names, *dict(program.params)]


def _planned(
    compiled: CompiledProgram, settings: Mapping[str, str], request: Request
) -> tuple[ir.Program, Mapping[str, str], Request]:
    """The program, the texts that it is fixed to, and the request with the engine that answers.
    Raises LmpplError.
    """
    names = _names(compiled.program)
    program, fixed = compiled.parametrised(
        {name: value for name, value in settings.items() if name in names}
    )
    if not program.latents:
        raise LmpplError(findings.nothing_to_answer(program.source.path))
    own = [one.name for one in program.models]
    request = replace(request, lms={n: model for n, model in request.lms.items() if n in own})
    setup = prepare(program, request)
    if request.engine == "auto" and program.engine is None and setup.engine.name != "exact":
        request = replace(request, engine=AT_ONCE)
        setup = prepare(program, request)
    if setup.engine.learn is not None:
        raise LmpplError(findings.learns_first(setup.engine.name))
    return program, fixed, request
