"""SD 1.x's noise schedule and the deterministic or noisy step back along it.

| symbol | meaning | shape |
|---|---|---|
| x_t, eps, x0_hat | latents at step t, the noise predicted in them, the clean estimate | (B, C, h, w) |
| alpha_bar_t | cumulative product of the schedule | scalar; 1 after the last step |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from diffusers import DDIMScheduler

LENGTH = 1000
"""Timesteps of the schedule."""
DONE = -1
"""The timestep after the last step, where no noise is left."""


def sd1_scheduler() -> DDIMScheduler:
    """Return diffusers' DDIM scheduler on SD 1.x's schedule, the source of its alphas."""
    from diffusers import DDIMScheduler  # the rest of this module serves hosts that have no diffusers

    return DDIMScheduler(
        LENGTH,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def sampling_timesteps(steps: int) -> list[int]:
    """Return `steps` timesteps from pure noise down, evenly spaced from the end, then DONE.

    As diffusers' `trailing` spacing, in whole numbers: its own is one too long at steps = 61, 103, ...
    """
    return [round(LENGTH * (steps - i) / steps) - 1 for i in range(steps)] + [DONE]


def clean_estimate(x: Tensor, eps: Tensor, alpha_bar: float) -> Tensor:
    """x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t) (Song et al. 2021, Eq. 9), in float32."""
    return (x.float() - (1 - alpha_bar) ** 0.5 * eps.float()) / alpha_bar**0.5


def ddim_step(
    x: Tensor, eps: Tensor, alpha_bars: tuple[float, float], eta: float = 0, noise: Tensor | None = None
) -> Tensor:
    """x_t -> x_{t'} (Song et al. 2021, Eq. 12 and 16): DDIM for eta 0, DDPM for 1.

    alpha_bars: at t and at the timestep t' that comes next; diffusers' own assumes t - 1000 // steps, which
    the timesteps only follow where `steps` divides 1000. noise: (B, C, h, w), for eta above 0. Returns x's dtype.
    """
    now, after = alpha_bars
    sigma = eta * ((1 - after) / (1 - now) * (1 - now / after)) ** 0.5
    direction = max(1 - after - sigma**2, 0.0) ** 0.5 * eps.float()
    stepped = after**0.5 * clean_estimate(x, eps, now) + direction
    if sigma > 0:
        if noise is None:
            raise ValueError(f"a DDIM step with eta {eta} needs noise")
        stepped = stepped + sigma * noise.float()
    return stepped.to(x.dtype)


def alpha_bar_at(alphas_cumprod: Tensor, timesteps: Sequence[int]) -> list[float]:
    """Return alpha_bar of each timestep, 1 at DONE."""
    alphas = alphas_cumprod.cpu().double().tolist()
    return [1.0 if t < 0 else alphas[t] for t in timesteps]
