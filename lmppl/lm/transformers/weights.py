"""Whether the weights in a model's files are those that its network needs: all, no others, of its
shapes, and numbers.

What files lack is filled in with random numbers by the libraries that read them, and every result
would be of those.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_BROKEN = re.compile(
    r"^\s*(\S+)\s*\|[^|\n]*CONVERSION", re.MULTILINE
)  # a line of the report of transformers


def misfit(found: Mapping[str, Any]) -> str | None:
    """What is wrong with a model's files by the loading info of transformers, naming a tensor; None
    where nothing is.

    Tied weights, which files may leave out, are not missing there.
    """
    for name, here, needed in sorted(found["mismatched_keys"]):
        return (
            f"the tensor {name} has the shape {tuple(here)}, and the network needs {tuple(needed)}"
        )
    return wrong_names(found["missing_keys"], found["unexpected_keys"])


def wrong_names(missing: Collection[str], unexpected: Collection[str]) -> str | None:
    """What to say of tensors that files lack, or hold and nothing needs; None where there are
    none.
    """
    if missing:
        return f"{_some(missing)} missing"
    return f"{_some(unexpected)} there, and the network has no place for it" if unexpected else None


def not_numbers(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """What to say of a tensor with an entry that is NaN or infinite; None where there is none.

    A sum is not finite where an entry is not, and costs a fraction of a look at every entry.
    """
    for name, tensor in tensors.items():
        if (
            tensor.is_floating_point()
            and not tensor.sum().isfinite()
            and not tensor.isfinite().all()
        ):
            return f"the tensor {name} holds what is no number: NaN, or infinity"
    return None


@contextmanager
def reported() -> Iterator[list[str]]:
    """Names of tensors that transformers could not put together from those of a file, such as a
    mixture's experts.

    It logs them, and raises an error without their names.
    """
    names: list[str] = []
    logger = logging.getLogger("transformers.modeling_utils")
    listener = _Listener(names)
    level, propagates = logger.level, logger.propagate
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    logger.addHandler(listener)
    try:
        yield names
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagates
        logger.setLevel(level)


class _Listener(logging.Handler):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def emit(self, record: logging.LogRecord) -> None:
        self.names += _BROKEN.findall(record.getMessage())


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - 1} more are" if len(names) > 1 else " is"
    return f"the tensor {min(names)}{more}"
