"""Sampling whole images and their defect parts together, DDIM under the nested conditions (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| x | latents of P wholes, then of their parts | (2, P, 4, h, w) |
| e, e_null | nested conditions; the unconditional context, alike for both branches | (2 P, T, D) |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..backbone.schedule import LENGTH, alpha_bar_at, ddim_step, sampling_timesteps
from ..errors import InputError
from ..generation.pairs import as_pixels
from ..generation.sampler import seeded_noise
from .file import DualModel, nested_contexts
from .layers import DualEdit
from .parts import GREY, mask_of

PAPER_GUIDANCE, PAPER_STEPS = 2.5, 100
"""Without BCM (DualAnoDiff, sec. 4.1)."""


@dataclass(frozen=True)
class DualSampling:
    """How pairs are sampled. Raises InputError for what is not possible.

    steps: DDIM steps. guidance: classifier-free, 1 for none. batch: pairs at a time. tries: draws of a pair until its
    part has a mask.
    """

    steps: int = PAPER_STEPS
    guidance: float = PAPER_GUIDANCE
    batch: int = 4
    tries: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= LENGTH:
            raise InputError(f"steps is {self.steps}; it must lie between 1 and the noise schedule's {LENGTH}")
        if not 1 <= self.guidance < float("inf"):
            raise InputError(
                f"guidance is {self.guidance}; below 1 it leaves out what was learned: give 1 for none, or the "
                f"method's {PAPER_GUIDANCE}"
            )
        for name in ("batch", "tries"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, eq=False)
class DualPair:
    """image, part: (S, S, 3) uint8; mask: (S, S) bool, read off the part, maybe empty."""

    image: np.ndarray
    part: np.ndarray
    mask: np.ndarray


def placed(model: DualModel, backbone: EditableBackbone) -> DualModel:
    """The model with its weights where, and as, the backbone computes: once for many batches."""
    return replace(model, weights={name: w.to(backbone.device, backbone.dtype) for name, w in model.weights.items()})


@torch.no_grad()
def sample_pairs(
    backbone: EditableBackbone, model: DualModel, settings: DualSampling, generators: Sequence[torch.Generator]
) -> list[DualPair]:
    """Sample one pair for each CPU generator, all as one batch, at the base model's native size."""
    side = backbone.native_size // backbone.latent_downscale
    x = seeded_noise((2, 4, side, side), generators, backbone.null_context).transpose(0, 1)
    x = sample_latents(backbone, model, x, settings)
    grey = torch.full((1, 3, *[backbone.native_size] * 2), GREY / 127.5 - 1)
    pixels = as_pixels(backbone.decode(torch.cat([x.flatten(0, 1), backbone.encode(grey).to(x)])))
    images, parts = pixels[: len(generators)], pixels[len(generators) : -1]
    return [DualPair(image, part, mask_of(part, pixels[-1])) for image, part in zip(images, parts, strict=True)]


@torch.no_grad()
def sample_latents(backbone: EditableBackbone, model: DualModel, x: Tensor, settings: DualSampling) -> Tensor:
    """From noise x_T to x_0, (2, P, 4, h, w), deterministic DDIM."""
    pairs = x.shape[1]
    edit = DualEdit(model.weights, torch.arange(2 * pairs).view(2, pairs))
    condition = nested_contexts(model.object_tokens, model.defect_tokens, pairs).to(x)
    null = backbone.null_context.to(x).expand(2 * pairs, -1, -1)
    timesteps = sampling_timesteps(settings.steps)
    alpha_bars = alpha_bar_at(backbone.alphas_cumprod, timesteps)
    x = x.flatten(0, 1)
    for number, t in enumerate(timesteps[:-1]):
        times = torch.full((len(x),), t, dtype=torch.long)
        eps = backbone.predict_noise_edited(x, times, condition, edit)
        if settings.guidance != 1:  # eps_null + s (eps_e - eps_null) (Ho and Salimans 2022)
            without = backbone.predict_noise_edited(x, times, null, edit)
            eps = without + settings.guidance * (eps - without)
        x = ddim_step(x, eps, (alpha_bars[number], alpha_bars[number + 1]))
    return x.unflatten(0, (2, pairs))
