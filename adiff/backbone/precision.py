"""The number format that a base model computes in. Latents, noise and losses are float32 whatever it is.

| precision | for |
|---|---|
| `auto` | bfloat16 where the device computes in it, else float16 with CUDA, else float32 |
| `float32`, `bfloat16`, `float16` | what they say |

On the embedded model a picture through the autoencoder differs by 0.2 levels (rms) in bfloat16, of 6 to 20 that the
autoencoder itself changes (benchmarks/README.md).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from ..errors import InputError

AUTO = "auto"
PRECISIONS = (AUTO, "float32", "bfloat16", "float16")


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """Return the number format of a precision's name on a device; InputError for a name that is none."""
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is unknown; choose one of {PRECISIONS}")
    if precision != AUTO:
        return getattr(torch, precision)
    if _computes_in_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def _computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies matrices of bfloat16 by itself: CUDA from 8.0 on, Intel's GPUs, CPUs with AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "xpu":
        return True
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)  # torch has no public name for it
    return device.type == "cpu" and has_tiles is not None and torch.backends.mkldnn.is_available() and has_tiles()


class WideAttention(TorchFunctionMode):
    """While gradients are computed on a CPU, attention is done in float32: torch's narrow backward there is slow.

    A training step of the embedded model takes 1.4 times as long without it (batch 8, one core).
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        query, *others = args
        wide = [tensor.float() for tensor in (query, *others[:2])]
        return function(*wide, *others[2:], **(kwargs or {})).to(query.dtype)
