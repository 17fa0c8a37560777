"""Which backend a model comes from, by its identifier; and loading all models of a program.

An identifier is `table:FILE`, `llama.cpp:FILE`, or an alias, a folder or a hub id, which
transformers runs. A model that is handed in is taken as it is. Brings no torch before a model is
loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lmppl import ir
from lmppl.errors import LmpplError, at, did_you_mean, error
from lmppl.findings import models as findings
from lmppl.lm.capabilities import BY_LAWS, Capabilities, Capability
from lmppl.shapes import Document

if TYPE_CHECKING:
    from lmppl.lm.protocol import LanguageModel

TABLE, GGUF = "table:", "llama.cpp:"
Report = Callable[[str, int, int], None]  # (what is being done, done, total)
Chosen = Mapping[str, "str | LanguageModel"]  # in place of a program's models, by name there


def table_file(identifier: str) -> str | None:
    """The file that an identifier of a table names; None where it is no such identifier."""
    return identifier.removeprefix(TABLE) if identifier.startswith(TABLE) else None


def gguf_file(identifier: str) -> str | None:
    """The file or alias that an identifier gives to llama.cpp; None where it is no such
    identifier.
    """
    return identifier.removeprefix(GGUF) if identifier.startswith(GGUF) else None


def capabilities_of(model: str | LanguageModel) -> Capabilities:
    """What a model can do, known before it is loaded: by its identifier, or by the model itself."""
    if not isinstance(model, str):
        return model.capabilities
    untrained = table_file(model) is not None or gguf_file(model) is not None
    return BY_LAWS if untrained else frozenset(Capability)


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
    networks, ggufs = [], []
    for declaration, folder in _wanted(program, chosen, learned):
        name = declaration.name
        if name in handed:
            if name in learned:
                raise LmpplError(findings.cannot_adapt(handed[name].identifier))
            result[name] = handed[name]
        elif table_file(declaration.identifier) is not None:
            result[name] = _load_table(declaration, folder, program)
        elif gguf_file(declaration.identifier) is not None:
            ggufs.append((declaration, folder))
        else:
            networks.append((declaration, folder))
    if ggufs:
        from lmppl.lm.llama_cpp import load_ggufs

        result |= load_ggufs(ggufs, program.source, device, report)
    if networks:
        from lmppl.lm.transformers import load_networks

        ways = torch_compile, cuda_graphs
        result |= load_networks(networks, program.source, device, report, *ways)
    return {declaration.name: result[declaration.name] for declaration in program.models}


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
        elif table_file(model) is not None:
            result[declaration.name] = describe_model(_load_table(declaration, folder, program))
        elif gguf_file(model) is not None:
            from lmppl.lm.llama_cpp import describe_gguf

            found = describe_gguf(declaration, program.source, folder, report)
            result[declaration.name] = found
        else:
            from lmppl.lm.transformers import describe_network

            found = describe_network(declaration, program.source, folder, report)
            result[declaration.name] = found
    return result


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


def _load_table(
    declaration: ir.ModelDeclaration, folder: Path, program: ir.Program
) -> LanguageModel:
    """Raises LmpplError at the declaration."""
    from lmppl.lm.table_model import TableModel
    from lmppl.lm.tables import read_table

    file = table_file(declaration.identifier)
    assert file is not None
    with at(program.source, declaration.span):
        if declaration.adapter is not None or declaration.learned is not None:
            raise LmpplError(findings.cannot_adapt(declaration.identifier))
        table = read_table(folder / Path(file).expanduser())
        return TableModel(table, name=declaration.name, identifier=declaration.identifier)
