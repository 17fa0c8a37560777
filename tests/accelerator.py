"""A double of a GPU: tensors that say they lie on another device, though a processor computes what they hold.

What goes wrong on a GPU and nowhere else is mostly this: one operation is given tensors of both devices. Within
`plugged_in()`, a tensor on DEVICE takes part in operations as a CUDA tensor would, and what CUDA refuses is refused:

- tensors of both devices in one operation, but for those that CUDA allows: a copy from one to the other, a CPU
  tensor without dimensions as an operand of a pointwise operation, and CPU indices in `x[index]` and `x[index] = y`;
- `.numpy()`, and `numpy.asarray`.

DEVICE is torch's "lazy", which a CPU build knows and does not use: torch has what autograd asks of a device there,
and nobody's code branches on its name. Tensors report it with its number, as CUDA's do.

What the double does not pretend: kernels and their numbers (they are the processor's), streams, memory that runs out,
generators of the device, and code behind `device.type == "cuda"`.
"""

from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE, PROCESSOR = torch.device("lazy:0"), torch.device("cpu")
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_, aten.copy, aten.to}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
FILLS = {aten.fill, aten.fill_, aten.masked_fill, aten.masked_fill_}  # by a value, their last argument


class DeviceTensor(torch.Tensor):
    """A tensor on DEVICE. held: the same on the processor, with memory of its own or another's, as views have."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held):
        with torch.inference_mode(held.is_inference()):  # a view of what others made is none of inference mode's
            made = torch.Tensor._make_wrapper_subclass(
                cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
                device=DEVICE,
            )  # fmt: skip
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), options=None):
        return perform(operation, arguments, options or {})

    def numpy(self, **_):
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() first.")

    def untyped_storage(self):
        return self.held.untyped_storage()  # which who writes files asks for its address

    def tolist(self):
        return self.held.tolist()

    def __repr__(self, **_):
        return f"{self.held!r} on {DEVICE}"


class Operations(TorchDispatchMode):
    """Sees every operation, those as well that make tensors out of none."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        return perform(operation, arguments, options or {})


class Constants(TorchFunctionMode):
    """Makes tensors of numbers, and of lists that are indices, on the processor: torch does it where no mode sees it.

    CUDA takes indices of the processor's; they are left there.
    """

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = dict(options or {})
        if function is torch.Tensor.new_tensor:
            options.setdefault("device", arguments[0].device)
            function, arguments = torch.tensor, arguments[1:]
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            tensor, index, *value = arguments
            return function(tensor, indices(index), *value)
        if function not in (torch.tensor, torch.as_tensor) or options.get("device") is None:
            return function(*arguments, **options)
        device = torch.device(options.pop("device"))
        return function(*arguments, **options).to(device)


def indices(index):
    """An index whose lists and arrays are tensors."""
    if isinstance(index, tuple):
        return tuple(map(indices, index))
    return torch.as_tensor(index) if isinstance(index, list | np.ndarray) else index


@contextmanager
def plugged_in():
    """Tensors can be made on DEVICE, and moved to it."""
    with Constants(), Operations():
        yield DEVICE


def perform(operation, arguments, options):
    """What an operation gives, on the device where CUDA would leave it. RuntimeError where CUDA would raise it."""
    given = list(leaves((*arguments, *options.values())))
    holders = {id(leaf.held): leaf for leaf in given if isinstance(leaf, DeviceTensor)}
    asked = next((leaf for leaf in given if isinstance(leaf, torch.device)), None)
    if not holders and (asked is None or asked.type != DEVICE.type):
        return operation(*arguments, **options)
    if holders and len(holders) < sum(isinstance(leaf, torch.Tensor) for leaf in given):
        refuse_mixtures(operation, arguments, options)
    values = {name: replaced(value, on_processor) for name, value in options.items()}
    found = operation(*(replaced(value, on_processor) for value in arguments), **values)
    if operation.overloadpacket is aten.copy_ and not isinstance(arguments[0], DeviceTensor):
        return arguments[0]
    if asked is not None and asked.type != DEVICE.type:
        return found

    def placed(leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return holders[id(leaf)] if id(leaf) in holders else DeviceTensor(leaf)

    return replaced(found, placed)


def leaves(values):
    """What operations are given one by one: they know no deeper structure than lists of tensors."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(value)
        else:
            yield value


def replaced(value, action):
    if isinstance(value, list | tuple):
        return type(value)([replaced(one, action) for one in value])
    return action(value)


def on_processor(leaf):
    if isinstance(leaf, DeviceTensor):
        return leaf.held
    return PROCESSOR if isinstance(leaf, torch.device) else leaf


@cache
def signature(operation):
    """Names of an operation's arguments, those that it writes into, and whether it is pointwise."""
    arguments = operation._schema.arguments
    written = {a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write}
    return [argument.name for argument in arguments], written, torch.Tag.pointwise in operation.tags


def refuse_mixtures(operation, arguments, options):
    """RuntimeError where tensors of the processor take part that CUDA does not allow there."""
    packet = operation.overloadpacket
    if packet in COPIES:
        return
    names, written, pointwise = signature(operation)
    for name, value in [*zip(names, arguments, strict=False), *options.items()]:
        for tensor in leaves((value,)):
            if not isinstance(tensor, torch.Tensor) or isinstance(tensor, DeviceTensor):
                continue
            number = tensor.dim() == 0 and name not in written
            index = packet in INDEXED and name == "indices" and isinstance(arguments[0], DeviceTensor)
            operand = number and (name == "value" if packet in FILLS else pointwise)
            if not (index or operand):
                message = f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE}"
                raise RuntimeError(f"{message} and cpu! (`{name}` of {operation})")
