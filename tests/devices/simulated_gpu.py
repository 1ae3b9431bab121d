"""A device that computes on the CPU and is as strict as a GPU about what lies where.

Where no GPU is at hand this finds what a GPU would refuse: tensors of two devices in one operation, NumPy's look into
device memory, a CPU generator for numbers drawn on the device. It also counts where the host waits for the device.
Nothing of a GPU's number formats, memory or speed is simulated.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_map

NAME = "gpu"
WAITS: Counter[str] = Counter()
"""What made the host wait for the device, by the operation and the line of the project."""
PROJECT = ("adiff", "nodes")
INDEXED = {"aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations whose indices may lie on the host."""
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::is_nonzero"}


def available() -> bool:
    """Whether this torch can have a device that is written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def switch_on() -> torch.device:
    """Make the device known to this process; it stays."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    _LIBRARY.fallback(_made_there, "PrivateUse1")
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.tensor = _tensor
    return torch.device(NAME, 0)


_plain_tensor = torch.tensor


def _tensor(data: Any, *, device: Any = None, **how: Any) -> torch.Tensor:
    """`torch.tensor`, whose own way onto a device does not go through the dispatcher."""
    made = _plain_tensor(data, **how)
    return made if device is None else made.to(device)


class _Module(backend_registration._DummyBackendModule):
    """What torch asks of a kind of device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_LIBRARY = torch.library.Library("_", "IMPL")


class OnDevice(torch.Tensor):
    """A tensor of the device; held: its values, on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=torch.device(NAME, 0),
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        _note("tolist")
        return self.held.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert gpu:0 device type tensor to numpy; use Tensor.cpu() first")

    __array__ = numpy

    def __repr__(self, **kwargs) -> str:
        return f"OnDevice({self.held!r})"


def _made_there(func, *args, **kwargs):
    return _run(func, args, kwargs)


def _run(func, args: tuple, kwargs: dict[str, Any]) -> Any:
    name = func._schema.name
    there, here = _tensors((args, kwargs))
    named = kwargs.get("device")
    device = None if named is None else torch.device(named).type
    if there and here and name != "aten::copy_" and not (name in INDEXED and isinstance(args[0], OnDevice)):
        shapes = [tuple(one.shape) for one in (*there, *here)]
        raise RuntimeError(f"{name}: all tensors should be on one device, found gpu:0 and cpu, shapes {shapes}")
    if kwargs.get("generator") is not None and (there or device == NAME):
        raise RuntimeError(f"{name}: a generator of the CPU for numbers on gpu:0")
    if there and name in WAITING:
        _note(name)
    if _comes_back(name, args, device):
        _note(name)
    if name == "aten::_fused_sdp_choice":
        return 0  # plain matrix products
    if named is not None:
        kwargs = kwargs | {"device": "cpu"}
    result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    target = _written(func, args, kwargs)
    if target is not None and isinstance(result, torch.Tensor):
        return target
    return tree_map(_placed, result) if (device == NAME if device else bool(there)) else result


def _tensors(values: Any) -> tuple[list[OnDevice], list[torch.Tensor]]:
    """Tensors of the device, and those of the host that are no single numbers."""
    there: list[OnDevice] = []
    here: list[torch.Tensor] = []

    def look(value: Any) -> None:
        if isinstance(value, OnDevice):
            there.append(value)
        elif isinstance(value, torch.Tensor) and value.ndim:
            here.append(value)

    tree_map(look, values)
    return there, here


def _comes_back(name: str, args: tuple, device: str | None) -> bool:
    """Whether an operation copies from the device to the host."""
    if name == "aten::copy_":
        return isinstance(args[1], OnDevice) and not isinstance(args[0], OnDevice)
    return name == "aten::_to_copy" and isinstance(args[0], OnDevice) and device not in (None, NAME)


def _written(func, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | None:
    """The argument that an operation in place writes to and gives back."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            return args[place] if place < len(args) else kwargs.get(argument.name)
    return None


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnDevice) else value


def _placed(value: Any) -> Any:
    return OnDevice(value) if isinstance(value, torch.Tensor) and not isinstance(value, OnDevice) else value


def _note(what: str) -> None:
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename.replace("\\", "/").split("/")
        for folder in PROJECT:
            if folder in path[:-1]:
                WAITS[f"{what} {'/'.join(path[path.index(folder):])}:{frame.f_lineno}"] += 1
                return
        frame = frame.f_back
    WAITS[what] += 1
