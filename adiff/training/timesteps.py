"""At which noise levels a training looks: how timesteps are drawn, and how much a sample's loss then counts.

| symbol | meaning | shape |
|---|---|---|
| t, T | timestep, length of the schedule | (B,) int64 in [0, T), scalar |
| alpha_bar_t | the model's schedule | (T,) |
| SNR(t) | alpha_bar_t / (1 - alpha_bar_t) | (T,) |

| law | t | weight |
|---|---|---|
| `uniform` | uniform, as in the method | 1 |
| `min-snr` | uniform | min(SNR, gamma) / SNR (Hang et al. 2023, arXiv 2303.09556, for predicted noise) |
| `shifted` | s u / (1 + (s - 1) u), u uniform (Esser et al. 2024, arXiv 2403.03206, Eq. 23): more noise | 1 |
"""

from __future__ import annotations

import torch
from torch import Tensor

LAWS = ("uniform", "min-snr", "shifted")
GAMMA = 5.0
"""gamma of `min-snr`, the value that the paper settles on."""
SHIFT = 3.0
"""s of `shifted`, the value that the paper settles on. There it is the noise level of a flow that is shifted, here the
timestep's place along the schedule, t / T."""


def draw_timesteps(law: str, count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw t (count,) int64 in [0, length), on the CPU."""
    if law == "shifted":
        u = torch.rand(count, generator=generator, dtype=torch.float64)
        return (length * SHIFT * u / (1 + (SHIFT - 1) * u)).long().clamp(max=length - 1)
    return torch.randint(0, length, (count,), generator=generator)


def timestep_weights(law: str, alphas_cumprod: Tensor, t: Tensor) -> Tensor:
    """Return how much the loss of a sample at t counts, (B,) float32 on the schedule's device."""
    alpha_bar = alphas_cumprod[t.to(alphas_cumprod.device)].float()
    if law == "min-snr":
        return (GAMMA * (1 - alpha_bar) / alpha_bar).clamp(max=1)
    return torch.ones_like(alpha_bar)


def fixed_timesteps(defects: int, each: int, length: int) -> Tensor:
    """Return t (defects * each,) that cover the schedule evenly for every defect, and in turn for all of them."""
    places = torch.arange(each)[None] + (torch.arange(defects)[:, None] + 0.5) / defects
    return (places.double() / each * length).long().flatten()
