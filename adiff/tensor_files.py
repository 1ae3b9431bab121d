"""Files of tensors: ours, and pickled ones of other programs by torch's loader for weights alone; nothing is run."""

from __future__ import annotations

import hashlib
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from .errors import InputError
from .storage import check_readable, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

BROKEN = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError,
          LookupError, ValueError, TypeError, AttributeError, ArithmeticError, AssertionError, MemoryError,
          NotImplementedError, ImportError)  # fmt: skip
"""What a damaged file raises, which depends on where it is damaged."""


class _LeftOut:
    """Stands for something that is no weight: takes whatever it is given, and does nothing with it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _left_out(path: str) -> type[_LeftOut]:
    module, _, name = path.rpartition(".")
    return type(name, (_LeftOut,), {"__module__": module})


LEFT_OUT = [_left_out(path) for path in (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint", "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar", "numpy.dtype", "numpy.dtypes.Float64DType", "_codecs.encode",
)]  # fmt: skip
"""What the published .ckpt files of SD 1.x name beside tensors, in the records of their training."""

ADVICE = "Weights only load failed"
"""What torch begins its advice with."""


@contextmanager
def open_safetensors(
    path: Path, what: str, remedy: str = "copy or download it again", framework: str = "pt"
) -> Iterator[safe_open]:
    """Open a file of ours. what: it should be, for FileNotFoundError; remedy: ends the InputError for a damaged one.

    framework: `numpy` for who reads the header alone, as `pt` imports torch, which takes seconds.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, no {what}; give a file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    check_readable(path)
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({reason(error)}); {remedy}") from None


def tensors_of(file: safe_open) -> dict[str, Tensor]:
    """Return all tensors of an open file, by name, copied.

    What safetensors gives stays mapped: while it lives Windows does not let the file be replaced, and a file that
    another program cuts short ends the process.
    """
    return {name: file.get_tensor(name).clone() for name in file.keys()}


def check_replaced(path: Path, kind: str, what: str) -> None:
    """Raise InputError for a file that is to be written anew and is no damaged one, but of another kind than `kind`.

    kind: as our files' metadata has it. what: its name in words.
    """
    try:
        with open_safetensors(path, what, framework="numpy") as file:
            found = (file.metadata() or {}).get("kind")
    except (InputError, FileNotFoundError):
        if path.is_dir():
            raise
        return
    if found != kind:
        told = f"a file of kind {shown(found)}" if found else "a file of another program"
        raise InputError(f"{path} is {told}, no {what}, and would be lost; give another file")


def read_pickled(path: Path, leave_out: bool = False) -> Any:
    """Return what a .pt, .bin or .ckpt file holds; its tensors' values stay on disk where torch's format allows it.

    leave_out: what LEFT_OUT names is allowed beside the weights, and nothing is made of it. Raises InputError for a
    file that is damaged or holds more than that; it is not opened in another way then.
    """
    import torch

    check_readable(path)
    try:
        with warnings.catch_warnings(), _allowed(LEFT_OUT if leave_out else []):
            warnings.simplefilter("ignore")  # old formats are deprecated, not wrong
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (*BROKEN, OSError) as error:  # a place beyond the end cannot be mapped
        raise InputError(
            f"{path} holds more than weights or is damaged ({reason(error)}); it is not opened: "
            "convert it to .safetensors"
        ) from None


@contextmanager
def _allowed(kinds: list[type]) -> Iterator[None]:
    """Let torch's loader of weights make these, and tables of tensors, and nothing else for a while."""
    import torch

    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    # the first textual inversion keeps its vectors in a ParameterDict, a table of tensors; torch 2.4 has no sets in it
    torch.serialization.add_safe_globals([torch.nn.ParameterDict, set, *kinds])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A table of weights by name, of a .safetensors, .pt or .pth file; raises FileNotFoundError and InputError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights at {path}")
    if path.suffix == ".safetensors":
        with open_safetensors(path, "file of weights") as file:
            return tensors_of(file)
    from torch import Tensor

    table = read_pickled(path)
    if not isinstance(table, dict) or not all(isinstance(value, Tensor) for value in table.values()):
        raise InputError(f"{path} is no table of weights, name -> tensor")
    return table


def digest_of_files(paths: Iterable[Path]) -> str:
    """Digest of the contents of several files, in their order, hex."""
    return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()


def reason(error: Exception) -> str:
    """What a loader says, in short; torch adds advice on how to open a file unsafely, which is left out."""
    told = str(error).rpartition("WeightsUnpickler error:")[2]  # what is wrong stands behind this, maybe a line below
    lines = [line.strip() for line in told.splitlines() if line.strip() and not line.startswith(ADVICE)]
    return shown(lines[0] if lines else type(error).__name__, 120).rstrip(" .")


def shown(text: str, length: int = 60) -> str:
    """The beginning of a stranger's text, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:length])
