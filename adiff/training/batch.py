"""The gradient of one step's batch, in as many parts as memory and number format ask for.

The mean over B samples is the sum of its parts' sums over B, so a batch taken in parts has the whole batch's gradient.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..devices import free_cache, is_out_of_memory
from ..errors import InputError
from .processes import gather_losses, share_of, sum_gradients

log = logging.getLogger("adiff")
HALF_SCALE = 2.0**12
"""First factor on a float16 model's loss: its gradients would fall below the format's smallest number."""


@dataclass(frozen=True)
class Batch:
    """The samples of one step, drawn; their losses can be asked for in parts, and again.

    size: B, samples. losses(part): loss of each sample of a slice, (len,), with a graph. note: is told all losses
    (B,), detached, once the step is taken. spare: asked out of memory; True if the losses take less from then on, so
    that the batch is tried again before it is halved.
    """

    size: int
    losses: Callable[[slice], Tensor]
    note: Callable[[Tensor], None] = lambda losses: None
    spare: Callable[[], bool] = lambda: False


def first_scale(dtype: torch.dtype) -> float:
    """Return the first factor on the loss of a model of this number format."""
    return HALF_SCALE if dtype == torch.float16 else 1.0


class Gradient:
    """Puts gradients into parameters; what it has learned about memory and scale holds for the steps to come.

    most: samples a part, None for whole batches. scale: factor on the loss while gradients are computed.
    """

    def __init__(self, parameters: Sequence[Tensor], scale: float = 1.0):
        self.parameters, self.scale = parameters, scale
        self.most: int | None = None

    def of(self, batch: Batch) -> Tensor:
        """Compute the gradient of the batch's mean loss; returns the losses (B,), detached, on the CPU.

        Out of memory, the batch is asked to spare it, else the parts are halved from here on, with a warning. A scaled
        gradient that is not finite is computed again with a smaller scale. Raises InputError if a single sample does
        not fit.
        """
        while True:
            losses = self._in_parts(batch)
            if losses is None:
                self._make_room(batch)
            elif self.scale > 1 and losses.isfinite().all() and not self._finite():
                self.scale = max(1.0, self.scale / 4)
            else:
                return losses

    def _in_parts(self, batch: Batch) -> Tensor | None:
        """The losses of all parts, their gradients summed; None where memory did not suffice."""
        self._clear()
        most, share, losses = self.most or batch.size, share_of(batch.size), [torch.empty(0)]
        try:
            for first in range(share.start, share.stop, most):
                part = batch.losses(slice(first, min(first + most, share.stop)))
                (part.sum() * (self.scale / batch.size)).backward()
                losses.append(part.detach().float().cpu())
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None
        if self.scale != 1:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad /= self.scale
        sum_gradients(self.parameters)
        return gather_losses(torch.cat(losses), batch.size, self.parameters[0].device)

    def _make_room(self, batch: Batch) -> None:
        self._clear()
        free_cache()
        if not batch.spare():
            self._halve(batch.size)

    def _halve(self, size: int) -> None:
        now = self.most or size
        if now == 1:
            raise InputError(
                "out of memory with a single sample; free memory on the device, use a smaller base model, or train on "
                "another device"
            )
        self.most = math.ceil(now / 2)
        log.warning(
            "out of memory: each step's batch of %d is now taken in parts of %d; steps take longer, what is learned "
            "stays the same", size, self.most,
        )  # fmt: skip

    def _finite(self) -> bool:
        known = [p.grad.isfinite().all() for p in self.parameters if p.grad is not None]
        return not known or bool(torch.stack(known).all())  # asked of the device once, not for each of hundreds

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
