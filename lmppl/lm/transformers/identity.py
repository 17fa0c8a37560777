"""Which files make up a model in a folder, and what the model is by their content. Brings no
torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from lmppl.errors import LmpplError, error
from lmppl.storage import of_file, of_value

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG = ("config.json", "generation_config.json")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
)  # fmt: skip
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
Fingerprint = dict[str, str]  # of weights, config and tokenizer, each 16 hexadecimal digits


def fingerprint(folder: Path, adapters: Sequence[Path] = ()) -> Fingerprint:
    """What the model in a folder is, with adapters on it. Raises LmpplError where its files are not
    there, or not its own; OSError where they cannot be read."""
    kinds = {"weights": weight_files(folder), "config": CONFIG, "tokenizer": TOKENIZER}
    contents = {kind: of_value(_contents(folder, names))[:16] for kind, names in kinds.items()}
    return adapted(contents, adapters)


def _contents(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Checksums of those of some files that are there."""
    return {name: of_file(folder / name) for name in names if (folder / name).is_file()}


def adapted(model: Fingerprint, adapters: Sequence[Path]) -> Fingerprint:
    """What a model is with adapters on it, one after the other."""
    for folder in adapters:
        files = _contents(folder, ADAPTER)
        model = {**model, "weights": of_value([model.get("weights"), files])[:16]}
    return model


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold a model's weights. Raises LmpplError where an index names files
    elsewhere.
    """
    first = _chosen(folder) or (WEIGHTS if (folder / WEIGHTS).is_file() else INDEX)
    named = [first, *(_shards(folder / first) if first.endswith(".index.json") else [])]
    if outside := [name for name in named if first != WEIGHTS and not _within(folder, name)]:
        message = f"weights that the model in `{folder}` names lie outside its folder"
        help = "the files of a model lie in its folder; a link may lead to no other place"
        raise LmpplError(error("model-unusable", message, found=f"{outside[0]!r:.120}", help=help))
    return named


def _shards(index: Path) -> list[str]:
    """The files that an index names; none where there is no index. Raises LmpplError where it is
    none.
    """
    try:
        return sorted(
            {
                str(name)
                for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            }
        )
    except OSError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as reason:
        raise LmpplError(
            error("model-unusable", f"`{index}` is no index of weights", found=f"{reason!r:.80}")
        ) from None


def _chosen(folder: Path) -> str | None:
    """The file of weights that a config names itself."""
    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get(
            "transformers_weights"
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return name if isinstance(name, str) else None


def _within(folder: Path, name: str) -> bool:
    """Whether a name leads to a file in the folder; in the cache of the hub, to one of the same
    model's.
    """
    root = Path(os.path.realpath(folder))
    if root.parent.name == "snapshots":
        root = root.parent.parent
    plain = not os.path.isabs(name) and os.pardir not in Path(name).parts and "\\" not in name
    return plain and Path(os.path.realpath(folder / name)).is_relative_to(root)
