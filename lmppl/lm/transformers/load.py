"""Finding and loading the models that a program names: an alias, a folder, or a Hugging Face id.

Weights are read from safetensors only and no code of a model's repository is run. Densities are
compared between runs, so weights are float32 unless the program asks for less.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lmppl import ir
from lmppl.errors import Diagnostic, LmpplError, at, did_you_mean, error, first_line
from lmppl.findings import run as run_findings
from lmppl.lm.protocol import nothing
from lmppl.lm.transformers import models
from lmppl.lm.transformers.adapter import FILES, merged
from lmppl.lm.transformers.huggingface import HuggingFaceModel
from lmppl.lm.transformers.identity import adapted, fingerprint, weight_files
from lmppl.lm.transformers.models import Report
from lmppl.lm.transformers.recorded import CudaGraphs
from lmppl.lm.transformers.silence import quiet
from lmppl.lm.transformers.ways import quickest
from lmppl.lm.transformers.weights import misfit, not_numbers, reported
from lmppl.shapes import Document
from lmppl.source import Source
from lmppl.storage import of_file

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_networks(
    models: Sequence[tuple[ir.ModelDeclaration, Path]],
    source: Source,
    device: str,
    report: Report,
    torch_compile: bool = False,
    cuda_graphs: bool = True,
) -> dict[str, HuggingFaceModel]:
    """Models by the names of their declarations, each with the folder where its relative paths
    start; see backends.load_models. Raises LmpplError.
    """
    place = torch_device(device)
    loaded: dict[Any, HuggingFaceModel] = {}
    talking: dict[Any, HuggingFaceModel] = {}  # the same networks, by how they write conversations
    result = {}
    for one, folder in models:
        key = (one.identifier, one.revision, one.dtype, one.adapter, one.learned)
        if key not in loaded:
            report(f"loading {one.identifier}", 0, 0)
            loaded[key] = load_model(one, source, folder, place, report)
            talking[(*key, one.talk)] = loaded[key]
        if (*key, one.talk) not in talking:
            talking[(*key, one.talk)] = loaded[key].beside(nothing)
        result[one.name] = talking[(*key, one.talk)]
    if torch_compile:
        report(
            "compiling the step of decoding, as the first tokens are drawn (a minute or two)", 0, 1
        )
        for model in loaded.values():
            model.compile()
    elif place.type == "cuda" and cuda_graphs:
        graphs = CudaGraphs()
        for model in loaded.values():
            model.record(graphs, lambda line: report(line, 0, 1))
    return result


def describe_network(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, report: Report
) -> Document:
    """What backends.identify says of one model; it is loaded where it is not on this machine.
    Raises LmpplError.
    """
    with at(source, declaration.span):
        found = _found(declaration, folder, report)
        if found.files is None:
            load_model(declaration, source, folder, torch.device("cpu"), report)
            found = _found(declaration, folder, report)
        return _described(found, declaration, folder)


def torch_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one. Raises LmpplError.

    Of several processes that train together, each that names no number has the GPU of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LmpplError(
            error("unknown-device", f"there is no device `{name}`", expected="auto, cpu or cuda")
        ) from None
    if device.type not in ("cpu", "cuda"):
        raise LmpplError(
            error(
                "unknown-device", f"device `{name}` is not supported", expected="auto, cpu or cuda"
            )
        )
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise LmpplError(
            error("no-cuda", "there is no CUDA device here", help="use --device cpu, or auto")
        )
    number = (
        int(os.environ.get("LOCAL_RANK", "0")) % count if device.index is None else device.index
    )
    if number >= count:
        last = f"cuda:{count - 1}"
        raise LmpplError(
            error("no-cuda", f"there is no CUDA device {number} here", expected=f"cuda:0 to {last}")
        )
    return torch.device("cuda", number)


@dataclass(frozen=True)
class Found:
    """Where a model is. files: its folder; None where it is on the hub alone."""

    place: str  # that folder, or a hub id
    revision: str  # a commit, a checksum, or "local"
    files: Path | None


def _described(found: Found, declaration: ir.ModelDeclaration, folder: Path) -> dict[str, Any]:
    """The model with its adapters, by name and by content. Raises LmpplError."""
    content = (
        {} if found.files is None else fingerprint(found.files, _adapters(declaration, folder))
    )
    return {
        "identifier": declaration.identifier,
        "revision": _revision(found, declaration, folder),
        **content,
    }


def _revision(found: Found, declaration: ir.ModelDeclaration, folder: Path) -> str:
    adapters = _adapters(declaration, folder)
    return " + ".join(
        [found.revision, *(f"adapter {of_file(path / FILES[1])[:12]}" for path in adapters)]
    )


def load_model(
    declaration: ir.ModelDeclaration,
    source: Source,
    folder: Path,
    device: torch.device,
    report: Report,
) -> HuggingFaceModel:
    """The model of one declaration. folder: where relative paths start. Raises LmpplError at the
    declaration.
    """
    with at(source, declaration.span):
        found = _found(declaration, folder, report)
        alias = models.ALIASES.get(declaration.identifier)
        try:
            return _load(declaration, found, folder, device)
        except LmpplError:
            if alias is None or models.is_whole(Path(found.place), thorough=True):
                raise
        report("the cached model is broken: making it again", 0, 1)
        models.remove_converted(alias)
        return _load(declaration, _found(declaration, folder, report), folder, device)


def _found(declaration: ir.ModelDeclaration, folder: Path, report: Report) -> Found:
    """Where the model of a declaration is; an alias is fetched where it is not here. Raises
    LmpplError.
    """
    identifier = declaration.identifier
    if identifier in models.ALIASES:
        path = models.ensure(models.ALIASES[identifier], report)
        return Found(str(path), models.checksum(path), path)
    path = _local_path(identifier, folder)
    if path is not None:
        return Found(str(path), "local", path)
    if "/" not in identifier:
        known = ", ".join(models.ALIASES)
        message = f"there is no model `{identifier}`"
        help = did_you_mean(identifier, models.ALIASES) if identifier else f"aliases: {known}"
        expected = (
            "an alias, a folder such as ./model, or a Hugging Face id such as organisation/model"
        )
        raise LmpplError(error("unknown-model", message, expected=expected, help=help))
    return _of_hub(identifier, declaration.revision)


def _of_hub(identifier: str, revision: str | None) -> Found:
    """A model of the hub, as far as it has been fetched."""
    try:
        config = try_to_load_from_cache(identifier, "config.json", revision=revision)
    except HFValidationError:
        config = None
    if (
        not isinstance(config, str)
        or not (files := Path(config).parent).joinpath(weight_files(files)[0]).is_file()
    ):
        return Found(identifier, revision or "main", None)
    return Found(identifier, files.name, files)


def _local_path(identifier: str, folder: Path) -> Path | None:
    """The folder that an identifier names; None where it does not look like one. Raises LmpplError
    if missing.
    """
    looks_local = (
        identifier.startswith((".", "~", "/")) or identifier.endswith("/") or "\\" in identifier
    )
    path = folder / os.path.expanduser(identifier)
    if identifier and os.path.isdir(
        path
    ):  # says no of a name that no file can have, where Path raises
        return path
    if looks_local or os.path.isfile(path) or identifier.count("/") > 1:
        message = f"there is no model folder `{identifier}`"
        raise LmpplError(error("model-folder-missing", message, found=f"looked at {path}"))
    return None


def _load(
    declaration: ir.ModelDeclaration, found: Found, folder: Path, device: torch.device
) -> HuggingFaceModel:
    """Load from a folder or the hub; every failure becomes one finding."""
    hub: dict[str, Any] = {"revision": declaration.revision} if declaration.revision else {}
    local, place = Path(found.place).is_dir(), found.place
    if local or os.environ.get("HF_HUB_OFFLINE") == "1":
        hub["local_files_only"] = True
    try:
        content = fingerprint(found.files) if found.files else {}
        with quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False, **hub)
            _require_causal(config, declaration.identifier)
            model = _network(declaration, place, config, hub)
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **hub)
            if not local:  # it is here now, in its last version
                found = _of_hub(place, declaration.revision)
                content = fingerprint(found.files) if found.files else {}
            for adapter in _adapters(declaration, folder):
                model = merged(model, adapter, content.get("weights"))
                content = adapted(content, [adapter])
    except LmpplError:
        raise
    except (
        Exception
    ) as reason:  # transformers, safetensors and the hub raise many kinds; all end in one finding
        raise LmpplError(_failure(declaration.identifier, local, reason)) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        message = f"the tokenizer of `{declaration.identifier}` has no fast form"
        raise LmpplError(
            error("model-unusable", message, expected="a folder with a tokenizer.json")
        )
    names = {
        "identifier": declaration.identifier,
        "revision": _revision(found, declaration, folder),
    }
    return quickest(
        model.to(device), tokenizer, name=declaration.name, **names, fingerprint=content
    )


def _require_causal(config: Any, identifier: str) -> None:
    if config.is_encoder_decoder or type(config) not in AutoModelForCausalLM._model_mapping:
        message = f"`{identifier}` is no causal language model"
        raise LmpplError(error("model-unusable", message, found=f"model type {config.model_type}"))


def _network(
    declaration: ir.ModelDeclaration, place: str, config: Any, hub: Mapping[str, Any]
) -> Any:
    """The network with the weights of its files. Raises LmpplError where these are not whole."""
    read: Any = None
    with reported() as broken:
        try:
            read = AutoModelForCausalLM.from_pretrained(
                place,
                config=config,
                dtype=DTYPES[declaration.dtype or "float32"],
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told of below, by their names
                **hub,
            )
        except RuntimeError:
            if not broken:
                raise
    if read is None:
        problem = (
            f"the tensors that make up {min(broken)} do not fit together, or are not all there"
        )
        raise LmpplError(run_findings.weights_not_whole(declaration.identifier, problem))
    network, found = read
    if problem := misfit(found) or not_numbers(network.state_dict()):
        raise LmpplError(run_findings.weights_not_whole(declaration.identifier, problem))
    return network


def _adapters(declaration: ir.ModelDeclaration, folder: Path) -> list[Path]:
    """Folders of the adapters of a declaration, in order. Raises LmpplError where one holds
    none.
    """
    named = [
        adapter for adapter in (declaration.adapter, declaration.learned) if adapter is not None
    ]
    paths = [folder / Path(adapter).expanduser() for adapter in named]
    for adapter, path in zip(named, paths, strict=True):
        if not (path / FILES[0]).is_file():
            message = f"there is no adapter in `{adapter}`"
            raise LmpplError(
                error("adapter-missing", message, expected=f"a PEFT folder with an {FILES[0]}")
            )
        if not (path / FILES[1]).is_file():
            message = f"the adapter in `{adapter}` has no safetensors weights"
            raise LmpplError(error("adapter-missing", message, expected=FILES[1]))
    return paths


def _failure(identifier: str, local: bool, reason: Exception) -> Diagnostic:
    """One finding for whatever went wrong while loading."""
    if local:
        help = "a model folder holds config.json, tokenizer.json and weights in safetensors"
        return error(
            "model-unusable",
            f"`{identifier}` cannot be loaded",
            found=first_line(reason),
            help=help,
        )
    text = str(reason).lower()
    if any(
        sign in text
        for sign in ("not a valid model identifier", "404", "repository not found", "revision")
    ):
        message = f"the Hugging Face hub has no model `{identifier}`, or it is private"
        return error("model-not-found", message, help=did_you_mean(identifier, models.ALIASES))
    message = f"`{identifier}` is not on this machine, and the Hugging Face hub cannot be reached"
    help = 'use the alias "smollm2-135m", or a model folder'
    return error("no-network", message, help=help)
