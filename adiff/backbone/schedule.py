"""SD 1.x's noise schedule."""

from __future__ import annotations

from diffusers import DDIMScheduler


def sd1_scheduler() -> DDIMScheduler:
    """Return a DDIM scheduler (Song et al. 2021) on SD 1.x's schedule; its timesteps start at pure noise, end at zero."""
    return DDIMScheduler(
        1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
