"""Pictures as files have them, and as the networks take them."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor


def as_images(pixels: np.ndarray) -> Tensor:
    """Pixels (..., H, W, 3) in [0, 255] -> images (..., 3, H, W) float32 in [-1, 1], on the CPU."""
    return rearrange(torch.from_numpy(np.ascontiguousarray(pixels)), "... h w c -> ... c h w").float() / 127.5 - 1


def masks_as_images(masks: Tensor) -> Tensor:
    """Masks (B, H, W) bool -> images (B, 3, H, W) float32, white (1) on black (-1)."""
    return repeat(masks.float() * 2 - 1, "b h w -> b rgb h w", rgb=3)


def as_pixels(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] -> pixels (B, H, W, 3) uint8, rounded."""
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return rearrange(levels.to(torch.uint8), "b c h w -> b h w c").cpu().numpy()
