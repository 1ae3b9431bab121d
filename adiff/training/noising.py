"""The forward process in training: latents noised to a random step, with noise that means the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backbone import Backbone


def noise_like(z: Tensor, generator: torch.Generator) -> Tensor:
    """Return Gaussian noise of z's shape, drawn on the CPU."""
    return torch.randn(z.shape, generator=generator).to(z)


def add_noise(backbone: Backbone, z: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, Eq. 4).

    z, noise: (B, C, h, w). t: (B,) int64. Returns (B, C, h, w), dtype of z; computed in float32.
    """
    level = backbone.alphas_cumprod.to(z.device)[t.to(z.device)].view(-1, 1, 1, 1)
    return (level.sqrt() * z.float() + (1 - level).sqrt() * noise.float()).to(z.dtype)
