"""Where networks compute unless told otherwise, and what kinds of GPUs do differently."""

from __future__ import annotations

import os

import torch
from torch import nn

from .errors import InputError
from .system import DEVICE

GPUS = ("cuda", "xpu", "mps")
"""NVIDIA's or AMD's, Intel's, Apple's, as torch calls them; the first one that is there is taken."""


def best_device() -> torch.device:
    """The device that ADIFF_DEVICE names, else the GPU if there is one. Raises InputError for one that is not there."""
    there = [kind for kind in GPUS if _backend(kind)]
    asked = os.environ.get(DEVICE, "")
    if not asked:
        return torch.device(there[0] if there else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        device = None
    found = device is not None and (device.type == "cpu" or (device.type in there and _has(device)))
    if device is None or not found:
        known = ", ".join(["cpu", *(name for kind in there for name in _names(kind))])
        raise InputError(f"there is no device {asked!r} on this machine; there: {known}")
    return device


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a device's memory did not suffice; Apple's has no kind of its own."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def free_cache() -> None:
    """Give back what torch keeps of memory that is no longer used."""
    for kind in GPUS:
        backend = _backend(kind)
        if backend:
            backend.empty_cache()


def _backend(kind: str):
    """torch's module for a kind of GPU; None where there is none of it."""
    backend = torch.backends.mps if kind == "mps" else getattr(torch, kind)
    return getattr(torch, kind) if backend.is_available() else None


def _names(kind: str) -> list[str]:
    count = _backend(kind).device_count()
    return [kind] if count < 2 else [f"{kind}:{number}" for number in range(count)]


def _has(device: torch.device) -> bool:
    return (device.index or 0) < _backend(device.type).device_count()
