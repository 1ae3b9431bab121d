"""The sampling loop: DDIM steps under a condition, blended with the normal image (Eq. 1), re-weighted (Eq. 7, 8).

| symbol | meaning | shape |
|---|---|---|
| y, m | clean latents of the normal images, their masks on the latent grid | (B, 4, h, w), (B, 1, h, w) |
| x_t, x0_hat | latents at step t, the model's clean estimate from them | (B, 4, h, w) |
| e | condition {e_a, e_s} | (B, T, D) |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from ..backbone import Backbone
from ..backbone.schedule import alpha_bar_at, clean_estimate, ddim_step, sampling_timesteps
from ..blending import Blender, noised_normal
from ..embedding import Condition
from ..reweighting import Reweighter, fit_latent_rgb, latent_rgb
from .settings import GenerationSettings


def seeded_noise(shape: Sequence[int], generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Return noise (B, *shape), image i's from its own CPU generator, on the device and in the dtype of `like`."""
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators]).to(like)


def guided_noise(
    backbone: Backbone, x: Tensor, t: int, condition: Condition, guidance: float, reweighter: Reweighter | None = None
) -> Tensor:
    """eps = eps_null + s (eps_e - eps_null) (Ho and Salimans 2022); s = 1 asks the model once, without null context.

    Only the conditional rows are re-weighted.
    """
    count = x.shape[0]
    times = torch.full((count,), t, dtype=torch.long)
    context = condition.context.to(x)

    def edit(rows: slice) -> Callable | None:
        return None if reweighter is None else reweighter.edit(rows, condition.span)

    if guidance == 1:
        return backbone.predict_noise(x, times, context, edit(slice(0, count)))
    null = backbone.null_context.to(x).expand(count, -1, -1)
    if null.shape[1] == context.shape[1]:
        both = backbone.predict_noise(
            x.repeat(2, 1, 1, 1), times.repeat(2), torch.cat([null, context]), edit(slice(count, 2 * count))
        )
        without, conditional = both.chunk(2)
    else:  # contexts of different lengths do not fit into one batch
        without = backbone.predict_noise(x, times, null)
        conditional = backbone.predict_noise(x, times, context, edit(slice(0, count)))
    return without + guidance * (conditional - without)


def make_reweighter(
    backbone: Backbone, y: Tensor, images: Tensor, cells: Tensor, settings: GenerationSettings
) -> Reweighter | None:
    """Return the run's re-weighting, None for `off`; images (B, 3, H, W) in [-1, 1] are those that y encodes."""
    if settings.reweighting == "off":
        return None
    to_pixels: dict[str, Callable[[], Callable[[Tensor], Tensor] | None]] = {
        "latent": lambda: None,
        "rgb": lambda: _linear_rgb(y, images),
        "vae": lambda: backbone.decode,
        "preview": lambda: _preview(settings),
    }
    return Reweighter(
        cells,
        y,
        mode=settings.reweighting,
        strength=settings.strength,
        level=settings.level,
        distance=settings.distance,
        interval=settings.interval,
        lookahead=settings.lookahead,
        to_pixels=to_pixels[settings.distance](),
    )


def _linear_rgb(y: Tensor, images: Tensor) -> Callable[[Tensor], Tensor]:
    weight, bias = fit_latent_rgb(y, images.to(y))
    return partial(latent_rgb, weight=weight, bias=bias)


def _preview(settings: GenerationSettings) -> Callable[[Tensor], Tensor] | None:
    if settings.preview_decoder is None:  # `uniform` measures no distance
        return None
    return _open_preview(settings.preview_decoder)


@lru_cache(maxsize=1)
def _open_preview(path: str) -> Callable[[Tensor], Tensor]:  # a run asks for it again with each batch
    from ..backbone.preview import PreviewDecoder

    return PreviewDecoder(path)


def last_timesteps(steps: int, share: float) -> list[int]:
    """Return the last `share` of the timesteps of a run of `steps`, and DONE; only all of them begin at noise."""
    return sampling_timesteps(steps)[round((1 - share) * steps) :]


@torch.no_grad()
def sample_blended(
    backbone: Backbone,
    y: Tensor,
    cells: Tensor,
    condition: Condition,
    settings: GenerationSettings,
    generators: Sequence[torch.Generator],
    reweighter: Reweighter | None = None,
    on_step: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """Paint under `condition` inside the masks of normal latents; one generator an image. Returns x_0, (B, 4, h, w).

    A severity S below 1 begins at the noised y, for the last share S of the steps (Meng et al. 2022, SDEdit): S = 0
    gives y itself. One above 1 is a factor on the guidance.
    """
    guidance = settings.guidance * max(settings.severity, 1)
    timesteps = last_timesteps(settings.steps, min(settings.severity, 1))
    alpha_bars = alpha_bar_at(backbone.alphas_cumprod, timesteps)
    noise = seeded_noise(y.shape[1:], generators, y)
    x = noise if len(timesteps) > settings.steps else noised_normal(y, noise, alpha_bars[0])
    fixed = settings.blending == "fixed"
    blender = Blender(y, cells, backbone.alphas_cumprod, settings.blending, noise if fixed else None)
    if reweighter is not None:
        reweighter.reset()
    for number, (t, after) in enumerate(zip(timesteps, timesteps[1:], strict=False)):
        eps = guided_noise(backbone, x, t, condition, guidance, reweighter)
        if reweighter is not None:
            reweighter.observe(clean_estimate(x, eps, alpha_bars[number]).to(x), x, t)
            if settings.lookahead:  # the paper's exact reading: the map of x0_hat at t acts at t
                eps = guided_noise(backbone, x, t, condition, guidance, reweighter)
        variance = seeded_noise(y.shape[1:], generators, y) if settings.eta > 0 else None
        x = ddim_step(x, eps, (alpha_bars[number], alpha_bars[number + 1]), settings.eta, variance)
        fresh = seeded_noise(y.shape[1:], generators, y) if after >= 0 and not fixed else None
        # the last blend uses the mask itself: what is dilated early must be back to m at the end
        mask = reweighter.blend_mask(t, settings.steps) if reweighter is not None and after >= 0 else None
        x = blender(x, after, fresh, mask)
        on_step(number + 1)
    return x


@torch.no_grad()
def sample_plain(
    backbone: Backbone, condition: Condition, steps: int, guidance: float, generators: Sequence[torch.Generator],
    y: Tensor | None = None, share: float = 1.0,
) -> Tensor:
    """Sample whole images under `condition`, native size; one generator an image. Returns x_0 latents.

    From noise, or from latents y (B, 4, h, w), noised, for the last `share` of the steps (Meng et al. 2022, SDEdit).
    """
    timesteps = last_timesteps(steps, 1.0 if y is None else share)
    alpha_bars = alpha_bar_at(backbone.alphas_cumprod, timesteps)
    side = backbone.native_size // backbone.latent_downscale
    x = seeded_noise((4, side, side), generators, condition.context)
    if len(timesteps) <= steps:
        x = noised_normal(y.to(x), x, alpha_bars[0])
    for number, t in enumerate(timesteps[:-1]):
        eps = guided_noise(backbone, x, t, condition, guidance)
        x = ddim_step(x, eps, (alpha_bars[number], alpha_bars[number + 1]))
    return x
