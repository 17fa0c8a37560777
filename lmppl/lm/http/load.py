"""From the identifiers of served models to language models, or to what is said of them in a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lmppl import ir
from lmppl.errors import LmpplError, Lost, at
from lmppl.findings import models as model_findings
from lmppl.findings import servers as findings
from lmppl.lm.http.address import Address, read_address
from lmppl.lm.http.model import ServedModel
from lmppl.lm.http.probe import Served, find_served, try_out
from lmppl.lm.http.wire import Wire
from lmppl.lm.protocol import Tokens
from lmppl.lm.transformers import FilesTokenizer, Fingerprint, fingerprint, read_tokenizer
from lmppl.shapes import Document
from lmppl.source import Source
from lmppl.storage import of_value

# what a tokenizer here is held against the server's by
TRIED = " The quick, brown fox: 1234 naïve cafés – 你好 🙂\n\n\tof {x} == 'y'"
SHORT, LONG = "a", "The quick brown fox jumps over"  # prompts of a probe, as different as needed
SPARE = 1  # tokens of a window that a server draws when it scores
Report = Callable[[str, int, int], None]  # (what is being done, done, total)


@dataclass
class _Servers:
    """Servers that are asked, and what is told of them."""

    report: Report
    wires: dict[tuple[str, str | None], Wire] = field(default_factory=dict)

    def wire(self, address: Address, declaration: ir.ModelDeclaration) -> Wire:
        """The one of an address; models of one server share the room for requests."""
        where = address.base, declaration.key
        if where not in self.wires:
            self.wires[where] = Wire(
                address.base, _key(declaration), self._tell, declaration.patience
            )
        return self.wires[where]

    def _tell(self, what: str) -> None:
        self.report(what, 0, 0)


def load_served(
    wanted: Sequence[tuple[ir.ModelDeclaration, Path]], source: Source, report: Report
) -> dict[str, ServedModel]:
    """Models by the names of their declarations, each with the folder where relative paths start.
    Servers are asked for what is there, and tried out. Raises LmpplError at the declaration.
    """
    servers = _Servers(report)
    result = {}
    for one, folder in wanted:
        with at(source, one.span):
            if one.learned is not None:
                raise LmpplError(model_findings.cannot_adapt(one.identifier))
            report(f"asking {one.identifier}", 0, 0)
            result[one.name] = _load(servers, one, folder)
    return result


def describe_served(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, report: Report
) -> Document:
    """What backends.identify says of a served model. Raises as load_served does."""
    with at(source, declaration.span):
        model = _load(_Servers(report), declaration, folder)
    return {
        "identifier": model.identifier,
        "revision": model.revision,
        **model.fingerprint,
    }


def _load(servers: _Servers, declaration: ir.ModelDeclaration, folder: Path) -> ServedModel:
    """Raises LmpplError, also where a server is silent: nothing is lost that has not begun."""
    try:
        return _loaded(servers, declaration, folder)
    except Lost as reason:
        raise LmpplError(reason.diagnostic) from None


def _loaded(servers: _Servers, declaration: ir.ModelDeclaration, folder: Path) -> ServedModel:
    address = read_address(declaration.identifier)
    wire = servers.wire(address, declaration)
    served = find_served(wire, address, declaration.adapter)
    tokenizer = _tokenizer(wire, address, served, declaration, folder)
    prompts = _prompt(tokenizer, SHORT), _prompt(tokenizer, LONG)
    trial = try_out(wire, served, prompts, tokenizer.ends)
    wire.recognise = trial.recognise
    return ServedModel(
        wire,
        served,
        tokenizer,
        name=declaration.name,
        identifier=declaration.identifier,
        window=(served.window or 2**20) - SPARE,
        fingerprint=_fingerprint(served, tokenizer),
    )


def _fingerprint(served: Served, tokenizer: FilesTokenizer) -> Fingerprint:
    """What is known of a served model: by content where its files are here, else by its names."""
    names = of_value([served.name, served.places, served.version])[:16]
    own = {"served": names, "tokenizer": tokenizer.tokenizer_fingerprint[:16]}
    try:
        return {**fingerprint(Path(served.places[0])), **own}
    except (LmpplError, OSError):
        return own


def _key(declaration: ir.ModelDeclaration) -> str | None:
    if declaration.key is None:
        return None
    if not (key := os.environ.get(declaration.key)):
        raise LmpplError(findings.no_key(declaration.key))
    return key


def _prompt(tokenizer: FilesTokenizer, text: str) -> Tokens:
    return tokenizer.begin(tokenizer.encode(text, markers=False, opening=True))


# --- the tokenizer --------------------------------------------------------------------------------


def _tokenizer(
    wire: Wire,
    address: Address,
    served: Served,
    declaration: ir.ModelDeclaration,
    folder: Path,
) -> FilesTokenizer:
    """That of the declaration, or of the files that the server names where they are here. Raises
    LmpplError where it is not the server's.
    """
    place = declaration.tokenizer
    if place is not None:
        own = folder / Path(place).expanduser()
        found = read_tokenizer(str(own) if own.is_dir() else place, declaration.name)
    else:
        found = _of_server(served, declaration.name)
    body = {"model": served.name, "prompt": TRIED, "add_special_tokens": False}
    try:
        answer = wire.ask(f"{address.origin}/tokenize", body)
    except LmpplError:  # a route of vLLM's
        return found
    if answer.get("tokens") != [*found.encode_alone(TRIED)]:
        raise LmpplError(findings.other_tokenizer(place or served.places[0], TRIED))
    return found


def _of_server(served: Served, name: str) -> FilesTokenizer:
    """The tokenizer at one of the places that a server names: folders here, or hub ids."""
    for place in served.places:
        if Path(place).is_dir() or place.count("/") == 1:
            try:
                return read_tokenizer(place, name)
            except LmpplError:
                continue
    raise LmpplError(findings.no_tokenizer(served.places[0]))
