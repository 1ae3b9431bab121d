"""Weights in files: shapes and metadata at once, values one by one when asked for; nothing is unpickled or run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import InputError
from ..storage import check_readable
from ..tensor_files import BROKEN, read_pickled, reason

PICKLED = (".ckpt", ".pt", ".pth", ".bin")
"""Suffixes of pickled files; most but the first hold no whole model, and are told for what they are."""


@dataclass(frozen=True)
class Weights:
    """A file's tensors. name: of the file; shapes: of all; metadata: the file's own; read: name -> tensor, CPU."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]
    read: Callable[[str], Tensor]


@contextmanager
def open_weights(path: Path, called: str | None = None) -> Iterator[Weights]:
    """Open a .safetensors file or a pickled one, whose values stay on disk until they are read.

    called: what errors call it, by default its name. Raises InputError for another kind of file, one that is damaged,
    and a pickled one that holds more than weights.
    """
    suffix, called = path.suffix.lower(), called or path.name
    if suffix in PICKLED:
        tensors = _unpickled(path)
        yield Weights(called, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, {}, tensors.__getitem__)
    elif suffix == ".safetensors":
        with _opened(path, called) as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            yield Weights(called, shapes, file.metadata() or {}, lambda key: _read(file, key, called))
    else:
        raise InputError(f"{called}: weights are a .safetensors or .ckpt file; give one, or convert it")


def _opened(path: Path, called: str) -> safe_open:
    check_readable(path)
    try:
        return safe_open(path, "pt")
    except BROKEN as error:
        raise InputError(f"{called} is damaged or no safetensors file ({reason(error)})") from None


def _read(file: safe_open, key: str, called: str) -> Tensor:
    try:
        return file.get_tensor(key)
    except BROKEN as error:
        raise InputError(f"{called}: {key} cannot be read ({reason(error)})") from None


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled file; a training's other contents are left out."""
    loaded = read_pickled(path, leave_out=True)
    if isinstance(loaded, Mapping) and "string_to_param" in loaded:
        return {"emb_params": torch.empty(0)}  # a textual inversion of A1111's, called as in its other format
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not isinstance(weights, Mapping):
        raise InputError(f"{path.name} holds no table of weights; give a checkpoint of the SD 1.x family")
    return {str(name): tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)}


def fill(module: nn.Module, names: Mapping[str, str], weights: Weights) -> None:
    """Give a module (of the `meta` device) the weights of a file, as float32.

    names: the module's own name of each weight -> its name in the file. Raises InputError for one that is missing, has
    another shape or is no floating-point number.
    """
    wanted, state = module.state_dict(), {}
    for name, key in names.items():
        if key not in weights.shapes:
            raise InputError(
                f"{weights.name}: the weight {key} is missing; the file is incomplete or of another family"
            )
        found, shape = weights.shapes[key], tuple(wanted[name].shape)
        if core(found) != core(shape):
            raise InputError(f"{weights.name}: {key} is {found}, expected {shape}")
        tensor = weights.read(key)
        if not tensor.is_floating_point():
            raise InputError(f"{weights.name}: {key} holds {tensor.dtype}; expected floating-point numbers")
        state[name] = tensor.reshape(shape).float()
    module.load_state_dict(state, assign=True)


def core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A weight's shape, a 1 x 1 convolution's and a linear layer's being the same."""
    return tuple(shape[:2]) if len(shape) == 4 and tuple(shape[2:]) == (1, 1) else tuple(shape)
