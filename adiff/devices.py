"""Where networks compute unless told otherwise, and what kinds of GPUs do differently."""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import nn

from .errors import InputError
from .system import DEVICE, launched

GPUS = ("cuda", "xpu", "mps")
"""NVIDIA's or AMD's, Intel's, Apple's, as torch calls them; the first one that is there is taken."""

OUT_OF_MEMORY = ("MPS backend out of memory", "DefaultCPUAllocator")
"""What plain errors say of it."""


def best_device() -> torch.device:
    """The device that ADIFF_DEVICE names, else the GPU if there is one.

    Of the processes of a launcher each takes its own GPU, by LOCAL_RANK, which it sets; `accelerate launch --cpu` says
    so in ACCELERATE_USE_CPU. Raises InputError for a device that is not there, where there are too few GPUs, and where
    one was named for several processes.
    """
    counts = {kind: backend.device_count() for kind, backend in _backends().items()}
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    asked = "cpu" if on_cpu else os.environ.get(DEVICE) or next(iter(counts), "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:  # no name of a device
        device = torch.device("meta")
    if device.type == "cpu":
        return device
    if (device.index or 0) < counts.get(device.type, 0):
        return device if launched() == 1 else _own_gpu(device, counts[device.type])
    there = ["cpu", *(f"{kind}:{number}" for kind, count in counts.items() for number in range(count))]
    raise InputError(f"there is no device {asked!r} on this machine; there: {', '.join(there)}")


def _own_gpu(asked: torch.device, gpus: int) -> torch.device:
    """The GPU of the kind asked for, of which there are some, of this one of a machine's processes."""
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if asked.index is not None:
        raise InputError(
            f"{asked} is a single GPU, and each process takes its own; give --device {asked.type}, or start one process"
        )
    if place >= gpus:
        raise InputError(
            f"process {place + 1} on this machine has no GPU of its own, of {gpus} GPU{'s' * (gpus != 1)}; start as "
            "many processes as there are GPUs"
        )
    return torch.device(asked.type, place)


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
