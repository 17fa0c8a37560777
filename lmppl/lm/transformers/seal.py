"""What an adapter's file says of itself: its tensors and the files beside it by content, and what
it was fitted to.

It stands in the metadata of the safetensors file, so that it and the weights are replaced in one
step. An adapter that another program has written has none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save

from lmppl.storage import of_value

WEIGHTS = "adapter_model.safetensors"
BESIDE = ("adapter_config.json", "policy.json")  # without which the weights mean something else
KEY = "lmppl"


def seal(folder: Path, base: str | None) -> None:
    """Write into an adapter's file what it and the files beside it are. base: fingerprint of the
    weights under it.
    """
    weights = load_file(str(folder / WEIGHTS))
    found = {"tensors": of_tensors(weights), "beside": _beside(folder), "base": base}
    (folder / WEIGHTS).write_bytes(
        _ordered(save(weights, {"format": "pt", KEY: json.dumps(found, sort_keys=True)}))
    )


def _ordered(content: bytes) -> bytes:
    """A safetensors file whose metadata stand in order: those of two runs alike are equal to the
    last byte.
    """
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def read_seal(folder: Path) -> dict[str, Any]:
    """What an adapter's file says of itself; nothing where it says nothing."""
    with safe_open(str(folder / WEIGHTS), framework="pt") as file:
        said = (file.metadata() or {}).get(KEY)
    try:
        found = json.loads(said) if said else {}
    except ValueError:
        found = {"tensors": None}
    return found if isinstance(found, dict) else {"tensors": None}


def damage(folder: Path, weights: Mapping[str, torch.Tensor]) -> str | None:
    """What is wrong with an adapter by what it says of itself; None where nothing is. weights: as
    they were read.
    """
    said = read_seal(folder)
    if said and said.get("tensors") != of_tensors(weights):
        return f"`{folder / WEIGHTS}` is not the file that was written"
    if said and (
        odd := [
            name for name, digest in _beside(folder).items() if said["beside"].get(name) != digest
        ]
    ):
        return f"`{folder / odd[0]}` is not the file that was written with {WEIGHTS}"
    return None


def of_tensors(weights: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors by name, with their kinds and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _beside(folder: Path) -> dict[str, str]:
    return {name: of_value(_meaning(folder / name)) for name in BESIDE if (folder / name).is_file()}


def _meaning(path: Path) -> Any:
    """What a JSON file says that matters here: PEFT writes sets as lists in any order, and where
    the model lay.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        known = {
            name: value for name, value in document.items() if name != "base_model_name_or_path"
        }
        return {
            name: sorted(map(str, v)) if isinstance(v, list) else v for name, v in known.items()
        }
    except (ValueError, AttributeError, RecursionError):
        return None
