"""Pixel grid <-> latent grid: masks and maps as tensors.

| symbol | meaning | shape |
|---|---|---|
| m | binary mask, 1 = paint here | (B, 1, H, W) |
| d | latent downscale, pixels of a latent cell's side | int |

Apart from `geometry`, which commands without a model use: torch takes a second or more to import.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def latent_mask(mask: Tensor, downscale: int) -> Tensor:
    """Bring a mask to the latent grid: a cell is on if any of its pixels is (METHOD 2, "Spatial anomaly embedding").

    The release cuts an interpolated mask at 0.5, which deletes thin scratches; max pooling keeps them.

    mask: (B, 1, H, W) bool, or float with pixels on from 0.5. downscale: pixels of a cell's side.
    Returns (B, 1, ceil(H / d), ceil(W / d)) float32 in {0, 1}, on the mask's device.
    """
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"mask of shape {tuple(mask.shape)}; expected (B, 1, H, W)")
    if downscale < 1:
        raise ValueError(f"downscale {downscale}; expected 1 or more")
    pixels = (mask.to(torch.float32) >= 0.5).to(torch.float32)
    return F.max_pool2d(pixels, downscale, stride=downscale, ceil_mode=True)


def area_resize(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize maps by area average along axes that shrink, by repetition along axes that grow.

    maps: (B, C, h, w) float. grid: (rows, columns). Returns (B, C, rows, columns), dtype and device kept.
    """
    shrunk = (min(maps.shape[-2], grid[0]), min(maps.shape[-1], grid[1]))
    if shrunk != tuple(maps.shape[-2:]):
        maps = F.adaptive_avg_pool2d(maps, shrunk)
    if shrunk != tuple(grid):
        maps = F.interpolate(maps, size=tuple(grid), mode="nearest-exact")
    return maps
