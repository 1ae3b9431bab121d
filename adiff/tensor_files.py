"""Files of tensors: ours, and pickled ones of other programs by torch's loader for weights alone; nothing is run."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .errors import InputError
from .storage import check_readable

BROKEN = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError,
          LookupError, ValueError, TypeError, AttributeError, ArithmeticError, AssertionError, MemoryError,
          NotImplementedError, ImportError)  # fmt: skip
"""What a damaged file raises, which depends on where it is damaged."""


@contextmanager
def open_safetensors(path: Path, what: str, remedy: str = "copy or download it again") -> Iterator[safe_open]:
    """Open a file of ours. what: it should be, for FileNotFoundError; remedy: ends the InputError for a damaged one."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}")
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({reason(error)}); {remedy}") from None


def read_pickled(path: Path) -> Any:
    """Return what a .pt, .bin or .ckpt file holds; its tensors' values stay on disk where torch's format allows it.

    Raises InputError for a file that is damaged or holds more than weights; it is not opened in another way then.
    """
    check_readable(path)
    # the first textual inversion keeps its vectors in one; it is a table of tensors
    torch.serialization.add_safe_globals([torch.nn.ParameterDict])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats are deprecated, not wrong
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (*BROKEN, OSError) as error:  # a place beyond the end cannot be mapped
        raise InputError(
            f"{path} holds more than weights or is damaged ({reason(error)}); it is not opened: "
            "convert it to .safetensors"
        ) from None


def reason(error: Exception) -> str:
    """What a loader says, in short; torch adds advice on how to open a file unsafely, which is left out."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = next((line for line in lines if line.startswith("WeightsUnpickler error")), lines[0])
    return shown(told.removeprefix("WeightsUnpickler error: "), 120).rstrip(" .")


def shown(text: str, length: int = 60) -> str:
    """The beginning of a stranger's text, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text[:length])
