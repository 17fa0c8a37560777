"""From the names of GGUF files to language models, or to what is said of them in a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lmppl import ir
from lmppl.errors import LmpplError, at, first_line
from lmppl.findings import models as findings
from lmppl.lm.llama_cpp.library import Weights
from lmppl.lm.llama_cpp.model import LlamaCppModel
from lmppl.lm.llama_cpp.trial import require_loads
from lmppl.lm.transformers import models
from lmppl.source import Source
from lmppl.storage import of_file, of_value

PART = re.compile(r"-00001-of-(\d{5})\.gguf$")  # the first of the files that a model is split into
BEGINNING = b"GGUF"
Report = Callable[[str, int, int], None]  # (what is being done, done, total)


def load_ggufs(
    wanted: Sequence[tuple[ir.ModelDeclaration, Path]], source: Source, device: str, report: Report
) -> dict[str, LlamaCppModel]:
    """Models by the names of their declarations, each with the folder where its relative path
    starts; see backends.load_models. device: as the user names it. Raises LmpplError at the
    declaration.
    """
    loaded: dict[Any, LlamaCppModel] = {}
    result = {}
    for one, folder in wanted:
        with at(source, one.span):
            if one.adapter is not None or one.learned is not None:
                raise LmpplError(findings.cannot_adapt(one.identifier))
            path = _found(one, folder, report)
            key = path, one.talk
            if key not in loaded:
                report(f"loading {one.identifier}", 0, 0)
                loaded[key] = _load(path, one, device)
            result[one.name] = loaded[key]
    return result


def describe_gguf(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, report: Report
) -> dict[str, Any]:
    """What backends.identify says of a file; it is not loaded. Raises LmpplError at the
    declaration.
    """
    with at(source, declaration.span):
        content = _content(_found(declaration, folder, report))
    return {"identifier": declaration.identifier, "revision": content, "weights": content}


def _load(path: Path, declaration: ir.ModelDeclaration, device: str) -> LlamaCppModel:
    content = _content(path)
    require_loads(path, content, device)
    return LlamaCppModel(
        Weights(path, device),
        name=declaration.name,
        identifier=declaration.identifier,
        revision=content,
        fingerprint={"weights": content},
    )


def _found(declaration: ir.ModelDeclaration, folder: Path, report: Report) -> Path:
    """The file of a declaration; that of an alias is fetched where it is not here. Raises
    LmpplError where there is none, or one of another kind.
    """
    file = declaration.identifier.partition(":")[2]
    if file in models.ALIASES:
        return models.ensure_gguf(models.ALIASES[file], report)
    try:
        path = (folder / Path(file).expanduser()).resolve()
        with path.open("rb") as content:
            beginning = content.read(len(BEGINNING))
    except (OSError, ValueError, RuntimeError) as reason:  # names that no file can have, too
        problem = getattr(reason, "strerror", None) or first_line(reason)
        raise LmpplError(findings.bad_gguf(file, problem)) from None
    if beginning != BEGINNING:
        raise LmpplError(findings.bad_gguf(file, "it does not begin as a GGUF file does"))
    return path


def _content(path: Path) -> str:
    """What a model is by the content of its files."""
    split = PART.search(path.name)
    count = int(split[1]) if split else 0
    parts = [PART.sub(f"-{n:05}-of-{count:05}.gguf", path.name) for n in range(1, count + 1)]
    try:
        return of_value([of_file(path.with_name(name)) for name in parts or [path.name]])[:16]
    except OSError as reason:
        raise LmpplError(findings.bad_gguf(path.name, first_line(reason))) from None
