"""Finding and loading the models that a program names: an alias, a folder, or a Hugging Face id.

Weights are read from safetensors only and no code of a model's repository is run. Densities are compared
between runs, so weights are float32 unless the program asks for less.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from lmppl import ir, run_findings
from lmppl.errors import Diagnostic, LmpplError, did_you_mean, error, first_line
from lmppl.lm import models
from lmppl.lm.adapter import merged
from lmppl.lm.huggingface import HuggingFaceModel
from lmppl.lm.models import Report
from lmppl.lm.quiet import quiet
from lmppl.lm.recorded import CudaGraphs
from lmppl.lm.ways import quickest
from lmppl.lm.weights import misfit, not_numbers, reported
from lmppl.source import Source

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_models(
    program: ir.Program,
    overrides: Mapping[str, str],
    device: str,
    report: Report,
    learned: Mapping[str, Path] | None = None,
    torch_compile: bool = False,
    cuda_graphs: bool = True,
) -> dict[str, HuggingFaceModel]:
    """Every model of a program by its name there. overrides: identifiers in place of the program's; learned: folders
    of adapters that `lmppl em` has fitted; torch_compile: decode by a compiled step;
    cuda_graphs: where there is CUDA, record steps and replay them.

    Raises LmpplError. Two names for one model share its weights.
    """
    names = [declaration.name for declaration in program.models]
    for name in overrides:
        if name not in names:
            message = f"--lm {name}=…: the program has no `lm {name}`"
            raise LmpplError(error("unknown-name", message, help=did_you_mean(name, names)))
    place = torch_device(device)
    loaded: dict[Any, HuggingFaceModel] = {}
    result = {}
    for declaration in program.models:
        chosen = overrides.get(declaration.name)
        wanted = replace(declaration, identifier=chosen, revision=None) if chosen is not None else declaration
        if learned and declaration.name in learned:
            wanted = replace(wanted, learned=str(learned[declaration.name].resolve()))
        key = (wanted.identifier, wanted.revision, wanted.dtype, wanted.adapter, wanted.learned)
        if key not in loaded:
            folder = Path(program.folder) if chosen is None else Path.cwd()
            report(f"loading {wanted.identifier}", 0, 0)
            loaded[key] = load_model(wanted, program.source, folder, place, report)
        result[declaration.name] = loaded[key]
    if torch_compile:
        report("compiling the step of decoding, as the first tokens are drawn (a minute or two)", 0, 1)
        for model in loaded.values():
            model.compile()
    elif place.type == "cuda" and cuda_graphs:
        graphs = CudaGraphs()
        for model in loaded.values():
            model.record(graphs, lambda line: report(line, 0, 1))
    return result


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
        raise LmpplError(error("unknown-device", f"device `{name}` is not supported", expected="auto, cpu or cuda"))
    if device.type == "cpu":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise LmpplError(error("no-cuda", "there is no CUDA device here", help="use --device cpu, or auto"))
    number = int(os.environ.get("LOCAL_RANK", "0")) % count if device.index is None else device.index
    if number >= count:
        last = f"cuda:{count - 1}"
        raise LmpplError(error("no-cuda", f"there is no CUDA device {number} here", expected=f"cuda:0 to {last}"))
    return torch.device("cuda", number)


def load_model(
    declaration: ir.ModelDeclaration, source: Source, folder: Path, device: torch.device, report: Report
) -> HuggingFaceModel:
    """The model of one declaration. folder: where relative paths start. Raises LmpplError at the declaration."""
    identifier = declaration.identifier
    try:
        if identifier in models.ALIASES:
            return _load_alias(declaration, folder, device, report)
        path = _local_path(identifier, folder)
        if path is not None:
            return _load(declaration, str(path), "local", folder, device)
        if "/" not in identifier:
            known = ", ".join(models.ALIASES)
            message = f"there is no model `{identifier}`"
            help = did_you_mean(identifier, models.ALIASES) if identifier else f"aliases: {known}"
            expected = "an alias, a folder such as ./model, or a Hugging Face id such as organisation/model"
            raise LmpplError(error("unknown-model", message, expected=expected, help=help))
        return _load(declaration, identifier, declaration.revision or "main", folder, device)
    except LmpplError as reason:
        raise LmpplError(*(_placed(finding, source, declaration) for finding in reason.diagnostics)) from None


def _placed(finding: Diagnostic, source: Source, declaration: ir.ModelDeclaration) -> Diagnostic:
    return finding if finding.source else replace(finding, source=source, span=declaration.span)


def _local_path(identifier: str, folder: Path) -> Path | None:
    """The folder that an identifier names; None where it does not look like one. Raises LmpplError if missing."""
    looks_local = identifier.startswith((".", "~", "/")) or identifier.endswith("/") or "\\" in identifier
    path = folder / os.path.expanduser(identifier)
    if identifier and os.path.isdir(path):  # says no of a name that no file can have, where Path raises
        return path
    if looks_local or os.path.isfile(path) or identifier.count("/") > 1:
        message = f"there is no model folder `{identifier}`"
        raise LmpplError(error("model-folder-missing", message, found=f"looked at {path}"))
    return None


def _load_alias(
    declaration: ir.ModelDeclaration, folder: Path, device: torch.device, report: Report
) -> HuggingFaceModel:
    alias = models.ALIASES[declaration.identifier]
    path = models.ensure(alias, report)
    try:
        return _load(declaration, str(path), models.checksum(path), folder, device)
    except LmpplError:
        if models.is_whole(path, thorough=True):
            raise
    report("the cached model is broken: fetching it again", 0, 1)
    models.remove(alias)
    path = models.ensure(alias, report)
    return _load(declaration, str(path), models.checksum(path), folder, device)


def _load(
    declaration: ir.ModelDeclaration, place: str, revision: str, folder: Path, device: torch.device
) -> HuggingFaceModel:
    """Load from a folder or a hub id; every failure becomes one finding."""
    hub: dict[str, Any] = {"revision": declaration.revision} if declaration.revision else {}
    if Path(place).is_dir() or os.environ.get("HF_HUB_OFFLINE") == "1":
        hub["local_files_only"] = True
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False, **hub)
            _require_causal(config, declaration.identifier)
            model = _network(declaration, place, config, hub)
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **hub)
            adapters = [adapter for adapter in (declaration.adapter, declaration.learned) if adapter is not None]
            for adapter in adapters:
                model = _with_adapter(model, adapter, folder)
    except LmpplError:
        raise
    except Exception as reason:  # transformers, safetensors and the hub raise many kinds; all end in one finding
        raise LmpplError(_failure(declaration.identifier, Path(place).is_dir(), reason)) from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        message = f"the tokenizer of `{declaration.identifier}` has no fast form"
        raise LmpplError(error("model-unusable", message, expected="a folder with a tokenizer.json"))
    commit = getattr(config, "_commit_hash", None)  # set by the hub only
    loaded = [commit or revision, *(_checksum(folder / Path(adapter).expanduser()) for adapter in adapters)]
    names = {"name": declaration.name, "identifier": declaration.identifier, "revision": " + ".join(loaded)}
    return quickest(model.to(device), tokenizer, **names)


def _require_causal(config: Any, identifier: str) -> None:
    if config.is_encoder_decoder or type(config) not in AutoModelForCausalLM._model_mapping:
        message = f"`{identifier}` is no causal language model"
        raise LmpplError(error("model-unusable", message, found=f"model type {config.model_type}"))


def _network(declaration: ir.ModelDeclaration, place: str, config: Any, hub: Mapping[str, Any]) -> Any:
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
        problem = f"the tensors that make up {min(broken)} do not fit together, or are not all there"
        raise LmpplError(run_findings.weights_not_whole(declaration.identifier, problem))
    network, found = read
    if problem := misfit(found) or not_numbers(network.state_dict()):
        raise LmpplError(run_findings.weights_not_whole(declaration.identifier, problem))
    return network


def _with_adapter(model: Any, adapter: str, folder: Path) -> Any:
    path = folder / Path(adapter).expanduser()
    if not (path / "adapter_config.json").is_file():
        message = f"there is no adapter in `{adapter}`"
        raise LmpplError(error("adapter-missing", message, expected="a PEFT folder with an adapter_config.json"))
    if not (path / "adapter_model.safetensors").is_file():
        message = f"the adapter in `{adapter}` has no safetensors weights"
        raise LmpplError(error("adapter-missing", message, expected="adapter_model.safetensors"))
    return merged(model, path)


def _checksum(adapter: Path) -> str:
    return f"adapter {hashlib.sha256((adapter / 'adapter_model.safetensors').read_bytes()).hexdigest()[:12]}"


def _failure(identifier: str, local: bool, reason: Exception) -> Diagnostic:
    """One finding for whatever went wrong while loading."""
    if local:
        help = "a model folder holds config.json, tokenizer.json and weights in safetensors"
        return error("model-unusable", f"`{identifier}` cannot be loaded", found=first_line(reason), help=help)
    text = str(reason).lower()
    if any(sign in text for sign in ("not a valid model identifier", "404", "repository not found", "revision")):
        message = f"the Hugging Face hub has no model `{identifier}`, or it is private"
        return error("model-not-found", message, help=did_you_mean(identifier, models.ALIASES))
    message = f"`{identifier}` is not on this machine, and the Hugging Face hub cannot be reached"
    help = 'use the alias "smollm2-135m", or a model folder'
    return error("no-network", message, help=help)
