"""A pretended accelerator: tensors say that they lie on another device, and must not be mixed with those that do not.

Every operation computes on the processor's tensor underneath, so that values are those of a run without it. What CUDA
refuses is refused: tensors of both devices in one operation, and `numpy()` of one that lies there. What CUDA takes is
taken: numbers (tensors of no dimension), indices that lie on the processor, copies from one to the other. It does not
pretend memory, streams, graphs, or any kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
MOVED = {aten.to, aten._to_copy}  # from one device to the other
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


# a kind that torch knows and a processor's build does not use: autograd and autocast take it as it comes
DEVICE = torch.device("lazy:0")


class There(torch.Tensor):
    """A tensor that says that it lies on the pretended device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> There:
        with torch.inference_mode(held.is_inference()):
            made = torch.Tensor._make_wrapper_subclass(
                cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
                device=DEVICE,
            )  # fmt: skip
        made.held = held
        return made

    def __deepcopy__(self, memo):
        return self.detach().clone()

    def untyped_storage(self):
        return self.held.untyped_storage()

    def tolist(self):
        return self.cpu().tolist()

    def __repr__(self, **_) -> str:
        return f"There({self.held})"

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        return _computed(function, arguments, options or {})


class Pretended(TorchDispatchMode):
    """While this is on, tensors that are asked for on the pretended device are made there."""

    def __enter__(self):
        self._before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes them here and copies; so this sees the copying
        return super().__enter__()

    def __exit__(self, *reason):
        super().__exit__(*reason)
        torch._C._set_only_lift_cpu_tensors(self._before)

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        return _computed(function, arguments, options or {})


def _computed(function, arguments, options):
    """What an operation gives, where its tensors lie, or are asked for."""
    values = list(_flat((*arguments, *options.values())))
    there = any(isinstance(value, There) for value in values)
    if there:
        _require_one_place(function, arguments, options)
    for asked in (value for value in values if isinstance(value, torch.device)):
        there = asked.type == DEVICE.type
    if function.overloadpacket is aten.copy_:
        there = isinstance(arguments[0], There)
    found = function(*_here(arguments), **{name: _here(value) for name, value in options.items()})
    if not there:
        return found
    if function.overloadpacket in MOVED and not isinstance(arguments[0], There):
        return There(found.clone())
    if function._schema.is_mutable and isinstance(found, torch.Tensor):  # in place: the tensor it was given
        return options.get("out", arguments[0])
    return _there(found)


def _flat(values) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _here(value):
    """What holds the values, and is asked for where they are."""
    if isinstance(value, There):
        return value.held
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return type(value)(map(_here, value)) if type(value) in (list, tuple) else value


def _there(found):
    if isinstance(found, torch.Tensor):
        return There(found)
    return type(found)(map(_there, found)) if type(found) in (list, tuple) else found


def _require_one_place(function, arguments, options) -> None:
    """Raise RuntimeError as CUDA does where tensors of both devices are given."""
    if function.overloadpacket in (*MOVED, aten.copy_):
        return
    values = (*arguments, *options.values())
    if function in INDEXED:  # indices may lie on the processor
        values = arguments[:1] if function is aten.index.Tensor else (arguments[0], *arguments[2:])
    here = (value for value in _flat(values) if isinstance(value, torch.Tensor) and not isinstance(value, There))
    if any(value.dim() for value in here):
        raise RuntimeError(f"Expected all tensors to be on the same device: {function} of cpu and {DEVICE}")


def move(network: torch.nn.Module) -> torch.nn.Module:
    """A network with its weights on the pretended device."""
    with torch.no_grad():
        for module in network.modules():
            for name, value in module._parameters.items():
                if value is not None:
                    module._parameters[name] = torch.nn.Parameter(There(value.data), value.requires_grad)
            for name, value in module._buffers.items():
                if value is not None:
                    module._buffers[name] = There(value)
    return network
