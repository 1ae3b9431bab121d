"""How far the image in the making still is from the normal one, per position (Eq. 7, first half).

| symbol | meaning | shape |
|---|---|---|
| m | anomaly mask on the latent grid, 1 = paint here | (B, 1, h, w) |
| y | normal image: clean latents, or pixels | (B, C, h, w) or (B, 3, H, W) |
| x0_hat | the model's clean estimate, like y | as y |
| d | squared distance inside m | (B, 1, h, w) |
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..errors import InputError
from ..latent_grid import area_resize


def distance_map(x: Tensor, y: Tensor, m: Tensor) -> Tensor:
    """d = || m * y - m * x0_hat ||^2 per position (Eq. 7): summed over channels, 0 outside m.

    x: x0_hat (in `release` x_t), (B, C, H, W). y: the same shape. m: (B, 1, h, w), 0 or 1. Where x and y are finer than
    m (pixels against latent cells), d is averaged down by area; m is constant within a cell and may come after.
    Returns (B, 1, h, w) float32.
    """
    squared = (x.float() - y.float()).square().sum(dim=1, keepdim=True)
    grid = (m.shape[-2], m.shape[-1])
    d = squared if squared.shape[-2:] == m.shape[-2:] else area_resize(squared, grid)
    return d.where(m > 0, 0.0)  # not a product: what overflowed outside the mask would become NaN


def fit_latent_rgb(latents: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Fit rgb = weight z + bias by least squares: the linear look at latents behind the distance `rgb`.

    latents: (N, C, h, w). images: (N, 3, H, W) in [-1, 1], averaged down to (h, w).
    Returns weight (3, C) and bias (3,), float32, on the latents' device.
    Raises InputError where there are fewer positions than the C + 1 unknowns of each colour.
    """
    channels = latents.shape[1]
    z = rearrange(latents.cpu().double(), "n c h w -> (n h w) c")
    if latents.shape[0] != images.shape[0] or z.shape[0] <= channels:
        raise InputError(
            f"{latents.shape[0]} latents of {channels} channels ({z.shape[0]} positions) and {images.shape[0]} images: "
            f"the fit needs one image per latent and more than {channels} positions"
        )
    small = area_resize(images.cpu().double(), (latents.shape[-2], latents.shape[-1]))
    rgb = rearrange(small, "n c h w -> (n h w) c").to(z)
    with_one = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
    solution = torch.linalg.lstsq(with_one, rgb, driver="gelsd").solution  # gelsd: constant channels are allowed
    solution = solution.float().to(latents.device)
    return solution[:-1].T.contiguous(), solution[-1]


def latent_rgb(z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Look at latents through the fitted linear map: (B, C, h, w) -> (B, 3, h, w), about [-1, 1]."""
    return torch.einsum("rc,bchw->brhw", weight.to(z), z) + bias.to(z)[:, None, None]
