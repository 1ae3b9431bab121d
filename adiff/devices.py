"""Where networks compute unless told otherwise, and what kinds of GPUs do differently."""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import nn

from .errors import InputError
from .system import DEVICE

GPUS = ("cuda", "xpu", "mps")
"""NVIDIA's or AMD's, Intel's, Apple's, as torch calls them; the first one that is there is taken."""

OUT_OF_MEMORY = ("MPS backend out of memory", "DefaultCPUAllocator")
"""What plain errors say of it."""


def best_device() -> torch.device:
    """The device that ADIFF_DEVICE names, else the GPU if there is one. Raises InputError for one that is not there."""
    counts = {kind: backend.device_count() for kind, backend in _backends().items()}
    asked = os.environ.get(DEVICE) or next(iter(counts), "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:  # no name of a device
        device = torch.device("meta")
    if device.type == "cpu" or (device.index or 0) < counts.get(device.type, 0):
        return device
    there = ["cpu", *(f"{kind}:{number}" for kind, count in counts.items() for number in range(count))]
    raise InputError(f"there is no device {asked!r} on this machine; there: {', '.join(there)}")


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that a device's memory did not suffice; Apple's and the CPU's have no kind of their own."""
    told = str(error)
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(sign in told for sign in OUT_OF_MEMORY)


def free_cache() -> None:
    """Give back what torch keeps of memory that is no longer used."""
    for backend in _backends().values():
        backend.empty_cache()


def _backends() -> dict[str, ModuleType]:
    """torch's modules for the kinds of GPUs that are there, by their names."""
    asked = {kind: getattr(torch.backends if kind == "mps" else torch, kind) for kind in GPUS}
    return {kind: getattr(torch, kind) for kind, module in asked.items() if module.is_available()}
