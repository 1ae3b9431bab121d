"""Blended generation: outside the mask every step is put back to the noised normal image (Eq. 1).

| symbol | meaning | shape |
|---|---|---|
| y_0, y_t | latents of the normal image, clean and noised to step t | (B, C, h, w) |
| x_t | latents in the making | (B, C, h, w) |
| m | binary anomaly mask on the latent grid | (B, 1, h, w) |
| alpha_bar_t | cumulative product of the noise schedule, falls from 1 to 0 | scalar |
"""

from __future__ import annotations

from torch import Tensor

from .errors import InputError

KINDS = ("fixed", "fresh")


def noised_normal(y: Tensor, noise: Tensor, alpha_bar: float) -> Tensor:
    """Sample q(y_t | y_0): y_t = sqrt(alpha_bar_t) y_0 + sqrt(1 - alpha_bar_t) eps (DDPM, Ho et al. 2020, Eq. 4).

    y, noise: (B, C, h, w). alpha_bar: 0 to 1. Returns (B, C, h, w), dtype of y; computed in float32.
    """
    noised = alpha_bar**0.5 * y.float() + (1 - alpha_bar) ** 0.5 * noise.to(y.device).float()
    return noised.to(y.dtype)


def blend(x_inside: Tensor, y_noised: Tensor, m: Tensor) -> Tensor:
    """x_{t-1} = p(x_{t-1} | x_t, e) * m + q(y_{t-1} | y_0) * (1 - m) (Eq. 1).

    As a choice, which for a binary m is the same sum, and 0 * inf is no NaN.
    x_inside, y_noised: (B, C, h, w). m: (B, 1, h, w), 0 or 1. Returns (B, C, h, w), device and dtype of x_inside.
    """
    return x_inside.where(m.to(x_inside.device) > 0, y_noised.to(x_inside))


class Blender:
    """Eq. 1 along one sampling run, with one noise for all steps (`fixed`) or one drawn for each (`fresh`).

    `fixed` keeps the outside on one trajectory, `fresh` (the literal q(y_{t-1} | y_0), as the release) on none.
    """

    def __init__(
        self, y: Tensor, mask: Tensor, alphas_cumprod: Tensor, kind: str = "fresh", noise: Tensor | None = None
    ) -> None:
        """y: (B, C, h, w), clean latents. mask: (B, 1, h, w). alphas_cumprod: (1000,). kind: one of KINDS.

        noise: (B, C, h, w), the noise of all steps; given for `fixed` (the noise the run starts from, as a rule) and
        for no other. Noise comes from the caller, who holds one generator an image.
        """
        if kind not in KINDS:
            raise InputError(f"blending {kind!r} is unknown; choose one of {', '.join(KINDS)}")
        if mask.shape != (y.shape[0], 1, *y.shape[2:]):
            raise InputError(f"mask {tuple(mask.shape)} does not fit the normal latents {tuple(y.shape)}")
        if (kind == "fixed") != (noise is not None):
            raise ValueError("give Blender the run's noise if blending is 'fixed', and only then")
        self.y, self.mask, self.kind = y, mask, kind
        self._fixed = noise
        self._alpha_bars = alphas_cumprod.cpu().double().tolist()

    def __call__(
        self, x: Tensor, timestep_prev: int, noise: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Put the outside of x_{t-1} back to y_{t-1}.

        x: (B, C, h, w). timestep_prev: the timestep that x is at now; below 0 after the last step, where no noise is
        left and the outside is y_0 itself. noise: (B, C, h, w), new at each call, for `fresh`. mask: (B, 1, h, w) in
        the place of the run's own (`release` dilates it early).
        """
        m = self.mask if mask is None else mask
        if timestep_prev < 0:
            return blend(x, self.y, m)
        if (self.kind == "fresh") != (noise is not None):
            raise ValueError("give each call a new noise if blending is 'fresh', and only then")
        chosen = self._fixed if noise is None else noise
        return blend(x, noised_normal(self.y, chosen, self._alpha_bars[timestep_prev]), m)
