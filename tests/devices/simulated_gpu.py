"""A device that computes on the CPU and is as strict as a GPU about what lies where.

Where no GPU is at hand this finds what a GPU would refuse: tensors of two devices in one operation, NumPy's look into
device memory, a CPU generator for numbers drawn on the device, and float64, which Apple's GPUs have not. It also counts
where the host waits for the device, and what it sends there, for which a GPU first does all that it was given.
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
SENT: Counter[str] = Counter()
"""What went from the host to the device, alike."""
DRAWING: dict[int, torch.Generator] = {}
"""Generators of the device, by their address."""
PROJECT = ("adiff", "nodes")
INDEXED = {"aten::index", "aten::_unsafe_index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""Operations whose indices may lie on the host."""
MOVING = {"aten::_to_copy", "aten::to"}
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::is_nonzero"}


def available() -> bool:
    """Whether this torch can have a device that is written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


def switch_on() -> torch.device:
    """Make the device known to this process; it stays."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    _LIBRARY.fallback(_made_there, "PrivateUse1")
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch.tensor, torch.Generator = _tensor, _Generator
    return torch.device(NAME, 0)


_plain_tensor = torch.tensor


def _tensor(data: Any, *, device: Any = None, **how: Any) -> torch.Tensor:
    """`torch.tensor`, whose own way onto a device does not go through the dispatcher."""
    made = _plain_tensor(data, **how)
    return made if device is None else made.to(device)


class _Module(getattr(backend_registration, "_DummyBackendModule", object)):
    """What torch asks of a kind of device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_LIBRARY = torch.library.Library("_", "IMPL")


class _Generator(torch.Generator):
    """Its numbers are those of the CPU's generator, on whatever device it is for."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls)
        if torch.device(device).type == NAME:
            DRAWING[made._cdata] = made
        return made

    def __init__(self, device: Any = "cpu") -> None:
        pass


class OnDevice(torch.Tensor):
    """A tensor of the device; held: its values, on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        if held.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"the device has no {held.dtype}")
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
    """Do an operation on the CPU, if a GPU would; its result lies where the GPU's would."""
    name = func._schema.name
    if name == "aten::_has_compatible_shallow_copy_type":
        return False  # a module that moves gets new parameters
    if name == "aten::_fused_sdp_choice":
        return 0  # plain matrix products
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    (there, here), first = _tensors(given), given.get("self")
    device = None if given.get("device") is None else torch.device(given["device"]).type
    if there and here and name != "aten::copy_" and not (name in INDEXED and isinstance(first, OnDevice)):
        shapes = [tuple(one.shape) for one in (*there, *here)]
        raise RuntimeError(f"{name}: all tensors should be on one device, found gpu:0 and cpu, shapes {shapes}")
    drawing = given.get("generator")
    if drawing is not None and drawing._cdata not in DRAWING and (there or device == NAME):
        raise RuntimeError(f"{name}: a generator of the CPU for numbers on gpu:0")
    leaves = isinstance(first, OnDevice) and name in MOVING and device not in (None, NAME)
    arrives = name == "aten::copy_" and not isinstance(first, OnDevice) and bool(there)
    if there and (name in WAITING or leaves or arrives):
        _note(name)
    if here and (there or (device == NAME and name in MOVING)) and not arrives:
        _note(name, SENT)
    result = func(**tree_map(_held, given | ({} if device is None else {"device": "cpu"})))
    written = next((one.name for one in func._schema.arguments if one.alias_info and one.alias_info.is_write), None)
    if written in given and isinstance(result, torch.Tensor):
        return given[written]
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


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnDevice) else value


def _placed(value: Any) -> Any:
    return OnDevice(value) if isinstance(value, torch.Tensor) and not isinstance(value, OnDevice) else value


def _note(what: str, where: Counter[str] = WAITS) -> None:
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename.replace("\\", "/").split("/")
        for folder in PROJECT:
            if folder in path[:-1]:
                where[f"{what} {'/'.join(path[path.index(folder):])}:{frame.f_lineno}"] += 1
                return
        frame = frame.f_back
    where[what] += 1
