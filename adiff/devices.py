"""Where networks compute unless told otherwise."""

from __future__ import annotations

import torch
from torch import nn


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(network.parameters()).device
