"""One training by several processes, as `accelerate launch` and `torchrun` start them: each takes part of every batch.

What a step draws follows from (seed, step), so all processes draw the same batch. Each computes its share of the
samples, the gradients are summed, and all take the same step. The first process alone writes and speaks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from ..devices import best_device
from ..errors import InputError
from ..system import launched

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}
"""What processes speak by, on each kind of device that several can train on."""


@contextlib.contextmanager
def joined() -> Iterator[str | None]:
    """Join the processes that a launcher's environment tells of, for a while; yields this one's device, None for any.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are what both launchers set; without them nothing is
    joined. Raises InputError as `best_device` does, and for GPUs that processes cannot share a training on.
    """
    if launched() == 1:
        yield None
        return
    asked = best_device()
    if asked.type not in BACKENDS or not dist.is_backend_available(BACKENDS[asked.type]):
        raise InputError(
            f"{launched()} processes cannot train together on {asked.type} with this torch; start one, or all of them "
            "with --device cpu"
        )
    if asked.type != "cpu":
        getattr(torch, asked.type).set_device(asked)
    dist.init_process_group(BACKENDS[asked.type])
    try:
        yield str(asked)
    finally:
        dist.destroy_process_group()


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return count() == 1 or dist.get_rank() == 0


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if count() > 1:
        dist.barrier()


def share_of(size: int) -> range:
    """Return this process's samples of a batch."""
    if count() == 1:
        return range(size)
    rank, processes = dist.get_rank(), count()
    return range(size * rank // processes, size * (rank + 1) // processes)


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Sum the gradients over all processes; a parameter that none has a gradient for keeps none."""
    if count() == 1:
        return
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(has)
    known = [p for p, one in zip(parameters, has.tolist(), strict=True) if one]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in known])
    dist.all_reduce(flat)
    for parameter, total in zip(known, flat.split([p.numel() for p in known]), strict=True):
        parameter.grad = total.view_as(parameter).clone()


def gather_losses(losses: Tensor, size: int, device: torch.device) -> Tensor:
    """Return the losses (size,) of the whole batch on the CPU, of the shares' (len,)."""
    if count() == 1:
        return losses
    whole = torch.zeros(size, device=device)
    share = share_of(size)
    whole[share.start : share.stop] = losses.to(device)
    dist.all_reduce(whole)
    return whole.cpu()


def of_first(value: float, device: torch.device) -> float:
    """Return the first process's value, so that all decide alike."""
    if count() == 1:
        return value
    told = torch.tensor(value, dtype=torch.float32, device=device)  # some of Intel's GPUs have no float64
    dist.broadcast(told, 0)
    return float(told)
