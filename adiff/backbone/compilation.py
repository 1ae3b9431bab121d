"""torch.compile of a base model's U-Net: for training steps, which repeat one graph.

What a re-weighting or another edit does to the attentions is a graph of its own at every step, and what is computed
without gradients comes in other sizes: both are left as they are. The first step takes as long as the compilation.
"""

from __future__ import annotations

import warnings
from subprocess import SubprocessError

import torch
from torch import nn

from ..errors import InputError
from ..tensor_files import reason

BACKEND = "inductor"
"""torch's own; the others are for special devices."""


def compile_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a network that is compiled when it is first called; it shares the weights.

    Raises InputError where torch finds no compiler that works for the device, by compiling next to nothing.
    """
    try:
        torch.compile(torch.sin, backend=BACKEND)(torch.zeros(4, device=device))
    except (RuntimeError, ImportError, OSError, SubprocessError) as error:
        needs = "Triton" if device.type == "cuda" else "a C++ compiler"
        raise InputError(f"nothing can be compiled for {device.type} ({reason(error)}): torch needs {needs} for it; "
                         "install that, or train without compiling") from error  # fmt: skip
    # of diffusers' checks of versions, which are the same at every call
    warnings.filterwarnings("ignore", "Dynamo detected a call to a `functools.lru_cache`", UserWarning)
    return torch.compile(network, backend=BACKEND)
