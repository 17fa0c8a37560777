"""Which backend a model comes from, by its identifier; and loading all models of a program.

An identifier is `table:FILE`, `llama.cpp:FILE`, the address of a server, or an alias, a folder or a
hub id, which transformers runs. A model that is handed in is taken as it is. Brings no torch before
a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmppl import ir
from lmppl.errors import LmpplError, at, did_you_mean, error
from lmppl.findings import models as findings
from lmppl.findings import servers as server_findings
from lmppl.lm.capabilities import BY_DRAWS, BY_LAWS, Capabilities, Capability
from lmppl.shapes import Document
from lmppl.source import Source

if TYPE_CHECKING:
    from lmppl.lm.protocol import LanguageModel

TABLE, GGUF = "table:", "llama.cpp:"
SERVED = ("http://", "https://")
Report = Callable[[str, int, int], None]  # (what is being done, done, total)
Chosen = Mapping[str, "str | LanguageModel"]  # in place of a program's models, by name there
# a declaration, and the folder where its relative paths start
Wanted = Sequence[tuple[ir.ModelDeclaration, Path]]


def table_file(identifier: str) -> str | None:
    """The file that an identifier of a table names; None where it is no such identifier."""
    return identifier.removeprefix(TABLE) if identifier.startswith(TABLE) else None


def gguf_file(identifier: str) -> str | None:
    """The file or alias that an identifier gives to llama.cpp; None where it is no such
    identifier.
    """
    return identifier.removeprefix(GGUF) if identifier.startswith(GGUF) else None


def is_served(identifier: str) -> bool:
    """Whether an identifier is the address of a server."""
    return identifier.startswith(SERVED)


def capabilities_of(model: str | LanguageModel) -> Capabilities:
    """What a model can do, known before it is loaded: by its identifier, or by the model itself."""
    if not isinstance(model, str):
        return model.capabilities
    return backend_of(model).capabilities


def identifier_of(declaration: ir.ModelDeclaration, chosen: Chosen) -> str:
    """How the model of a declaration is called."""
    model = chosen.get(declaration.name, declaration.identifier)
    return model if isinstance(model, str) else model.identifier


def load_models(
    program: ir.Program,
    chosen: Chosen,
    device: str,
    report: Report,
    learned: Mapping[str, Path] | None = None,
    torch_compile: bool = False,
    cuda_graphs: bool = True,
) -> dict[str, LanguageModel]:
    """Every model of a program by its name there. chosen: identifiers or models in place of the
    program's; learned: folders of adapters that `lmppl em` has fitted; torch_compile: decode by a
    compiled step; cuda_graphs: where there is CUDA, record steps and replay them.

    Raises LmpplError. Two names for one model share its weights.
    """
    learned = learned or {}
    handed = {name: model for name, model in chosen.items() if not isinstance(model, str)}
    result: dict[str, LanguageModel] = {}
    wanted = list(_wanted(program, chosen, learned))
    for name, model in handed.items():
        if name in learned:
            raise LmpplError(findings.cannot_adapt(model.identifier))
        result[name] = model
    for backend in (*dict.fromkeys(BY_PREFIX.values()), NETWORKS):
        own = [one for one in wanted if one[0].name not in handed and _is_of(backend, one[0])]
        if own:
            place = Place(program.source, device, report, torch_compile, cuda_graphs)
            result |= backend.load(own, place)
    _let_talk(program, wanted, result)
    return {one.name: _under_its_law(result[one.name], one, program) for one in program.models}


def _under_its_law(
    model: LanguageModel, declaration: ir.ModelDeclaration, program: ir.Program
) -> LanguageModel:
    """A model under the local law of its declaration, if it has one. Raises LmpplError."""
    if declaration.law is None:
        return model
    if Capability.LAWS not in model.capabilities:
        raise LmpplError(findings.no_local_law(model.name, program.source, declaration.span))
    return model.under(declaration.law)


def identify(program: ir.Program, chosen: Chosen, report: Report) -> dict[str, Document]:
    """What `describe_model` says of a program's models, by name. Of networks, only those
    are loaded that are not on this machine.

    Raises LmpplError.
    """
    result = {}
    for declaration, folder in _wanted(program, chosen, {}):
        model = chosen.get(declaration.name, declaration.identifier)
        if not isinstance(model, str):
            result[declaration.name] = describe_model(model)
        else:
            backend = backend_of(model)
            described = backend.describe(declaration, program.source, folder, report)
            with at(program.source, declaration.span):
                result[declaration.name] = {**described, **_of_chat(declaration, folder)}
    return result


def _let_talk(program: ir.Program, wanted: Wanted, models: Mapping[str, LanguageModel]) -> None:
    """Let models that are shown conversations write them as their declarations ask."""
    from lmppl.lm.conversations import talk

    for declaration, folder in wanted:
        if declaration.name in program.talking or any(declaration.talk):
            with at(program.source, declaration.span):
                model = models[declaration.name]
                talk(model, declaration, folder)
                model.fingerprint = {**model.fingerprint, **_of_chat(declaration, folder)}


def _of_chat(declaration: ir.ModelDeclaration, folder: Path) -> Mapping[str, str]:
    from lmppl.lm.conversations import chat_fingerprint

    return chat_fingerprint(declaration, folder)


def describe_model(model: LanguageModel) -> Document:
    """What was asked for and what was loaded: of local files, by their content."""
    return {"identifier": model.identifier, "revision": model.revision, **model.fingerprint}


def _wanted(
    program: ir.Program, chosen: Chosen, learned: Mapping[str, Path]
) -> Iterator[tuple[ir.ModelDeclaration, Path]]:
    """Every declaration as it is to be loaded, and the folder where its relative paths start.
    Raises LmpplError where a chosen model is none of the program's.
    """
    names = [declaration.name for declaration in program.models]
    for name in chosen:
        if name not in names:
            message = f"--lm {name}=…: the program has no `lm {name}`"
            raise LmpplError(error("unknown-name", message, help=did_you_mean(name, names)))
    for declaration in program.models:
        model, folder = chosen.get(declaration.name), Path(program.folder)
        if model is not None:
            folder = Path.cwd()
            identifier = identifier_of(declaration, chosen)
            declaration = replace(declaration, identifier=identifier, revision=None)
        if declaration.name in learned:
            place = str(learned[declaration.name].resolve())
            declaration = replace(declaration, learned=place)
        yield declaration, folder


# --- the backends -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where models are loaded, and how they run there; see load_models."""

    source: Source
    device: str
    report: Report
    torch_compile: bool
    cuda_graphs: bool


@dataclass(frozen=True)
class Backend:
    """Models of one kind of identifier. Both functions raise LmpplError at a declaration."""

    capabilities: Capabilities  # of all its models
    load: Callable[[Wanted, Place], Mapping[str, LanguageModel]]  # by the declarations' names
    describe: Callable[[ir.ModelDeclaration, Source, Path, Report], Document]


def backend_of(identifier: str) -> Backend:
    """The backend of an identifier."""
    known = (backend for prefix, backend in BY_PREFIX.items() if identifier.startswith(prefix))
    return next(known, NETWORKS)


def _is_of(backend: Backend, declaration: ir.ModelDeclaration) -> bool:
    return backend_of(declaration.identifier) is backend


def _load_tables(wanted: Wanted, place: Place) -> dict[str, LanguageModel]:
    return {one.name: _load_table(one, place.source, folder) for one, folder in wanted}


def _describe_table(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, report: Report
) -> Document:
    return describe_model(_load_table(declaration, source, folder))


def _load_table(declaration: ir.ModelDeclaration, source: Source, folder: Path) -> LanguageModel:
    from lmppl.lm.table_model import TableModel
    from lmppl.lm.tables import read_table

    file = declaration.identifier.removeprefix(TABLE)
    with at(source, declaration.span):
        if declaration.adapter is not None or declaration.learned is not None:
            raise LmpplError(findings.cannot_adapt(declaration.identifier))
        table = read_table(folder / Path(file).expanduser())
        return TableModel(table, name=declaration.name, identifier=declaration.identifier)


def _load_ggufs(wanted: Wanted, place: Place) -> Mapping[str, LanguageModel]:
    from lmppl.lm.llama_cpp import load_ggufs

    return load_ggufs(wanted, place.source, place.device, place.report)


def _describe_gguf(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, report: Report
) -> Document:
    from lmppl.lm.llama_cpp import describe_gguf

    return describe_gguf(declaration, source, folder, report)


def _load_served(wanted: Wanted, place: Place) -> Mapping[str, LanguageModel]:
    load_served = _http().load_served
    return load_served(wanted, place.source, place.report)


def _describe_served(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, report: Report
) -> Document:
    return _http().describe_served(declaration, source, folder, report)


def _http() -> Any:
    """What asks servers. Raises LmpplError where it is not installed."""
    from lmppl.lm import http

    try:
        import httpx2  # noqa: F401
    except ImportError:
        raise LmpplError(server_findings.no_http()) from None
    return http


def _load_networks(wanted: Wanted, place: Place) -> Mapping[str, LanguageModel]:
    from lmppl.lm.transformers import load_networks

    ways = place.torch_compile, place.cuda_graphs
    return load_networks(wanted, place.source, place.device, place.report, *ways)


def _describe_network(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, report: Report
) -> Document:
    from lmppl.lm.transformers import describe_network

    return describe_network(declaration, source, folder, report)


# by what identifiers begin with; each brings what it runs on when a model is asked for
BY_PREFIX = {
    TABLE: Backend(BY_LAWS, _load_tables, _describe_table),
    GGUF: Backend(BY_LAWS, _load_ggufs, _describe_gguf),
    **dict.fromkeys(SERVED, Backend(BY_DRAWS, _load_served, _describe_served)),
}
NETWORKS = Backend(frozenset(Capability), _load_networks, _describe_network)  # all others
