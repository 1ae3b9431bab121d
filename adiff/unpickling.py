"""Pickled weights of other programs, by torch's loader for weights alone: nothing else is built, nothing is run."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from .errors import InputError

BROKEN = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error, RuntimeError, EOFError,
          LookupError, ValueError, TypeError, AttributeError, ArithmeticError, AssertionError, MemoryError,
          NotImplementedError, ImportError)  # fmt: skip
"""What a damaged file raises, which depends on where it is damaged."""


def read_pickled(path: Path) -> Any:
    """Return what a .pt, .bin or .ckpt file holds; its tensors' values stay on disk where torch's format allows it.

    Raises InputError for a file that is damaged or holds more than weights; it is not opened in another way then.
    """
    # the first textual inversion keeps its vectors in one; it is a table of tensors
    torch.serialization.add_safe_globals([torch.nn.ParameterDict])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats are deprecated, not wrong
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except BROKEN as error:
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
