"""Pictures as files have them, and as the networks take them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def as_images(pixels: np.ndarray) -> Tensor:
    """Pixels (..., H, W, 3) in [0, 255] -> images (..., 3, H, W) float32 in [-1, 1], on the CPU."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3).float() / 127.5 - 1


def as_pixels(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] -> pixels (B, H, W, 3) uint8, rounded."""
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
