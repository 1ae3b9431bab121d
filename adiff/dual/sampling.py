"""Sampling whole images and their defect parts together, DDIM under the nested conditions (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| x | latents of P wholes, then of their parts | (2, P, 4, h, w) |
| e, e_null | nested conditions; the unconditional context, alike for both branches | (2 P, T, D) |
| z_bg, eps_bg | backgrounds for BCM, their noise, one for all steps | (P, 4, h, w) |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..backbone.attentions import EditableBackbone
from ..backbone.schedule import LENGTH, alpha_bar_at, ddim_step, sampling_timesteps
from ..errors import InputError
from ..generation.sampler import seeded_noise
from ..pixels import as_pixels
from .background import Background, encode_black, see_background
from .file import DualModel, nested_contexts
from .layers import DualEdit, batch_of, branches_of
from .parts import GREY, mask_of

PAPER_GUIDANCE, PAPER_STEPS = 2.5, 100
"""Without BCM (DualAnoDiff, sec. 4.1)."""
BCM_GUIDANCE, BCM_STEPS = 2.0, 50
"""With BCM (the release)."""


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

    @classmethod
    def of(cls, model: DualModel, steps: int | None = None, guidance: float | None = None, batch: int = 4):
        """Return the settings for a model: what is not said is the method's with, or without, BCM."""
        usual = (PAPER_STEPS, PAPER_GUIDANCE) if model.bcm == "off" else (BCM_STEPS, BCM_GUIDANCE)
        return cls(usual[0] if steps is None else steps, usual[1] if guidance is None else guidance, batch)


class Learned(Protocol):
    """What is sampled from: a DualModel, or what a training has learned by now."""

    weights: dict[str, Tensor]
    object_tokens: Tensor
    defect_tokens: Tensor
    prompts: Tensor | None


@dataclass(frozen=True, eq=False)
class DualPair:
    """image, part: (S, S, 3) uint8; mask: (S, S) bool, read off the part, maybe empty."""

    image: np.ndarray
    part: np.ndarray
    mask: np.ndarray


def placed(model: DualModel, backbone: EditableBackbone) -> DualModel:
    """The model with its weights where, and as, the backbone computes: once for many batches."""
    where = {"device": backbone.device, "dtype": backbone.edited_dtype}
    return replace(model, weights={name: tensor.to(**where) for name, tensor in model.weights.items()})


@torch.no_grad()
def sample_pairs(
    backbone: EditableBackbone, model: DualModel, settings: DualSampling, generators: Sequence[torch.Generator],
    behind: Tensor | None = None,
) -> list[DualPair]:  # fmt: skip
    """Sample one pair for each CPU generator, all as one batch, squares of the size that was learned on.

    behind: for BCM, latents of each pair's background, (P, 4, h, w).
    """
    x, background = first_noise(backbone, model, generators, behind)
    return shown_pairs(backbone, sample_latents(backbone, model, x, settings, background))


def first_noise(
    backbone: EditableBackbone, model: DualModel, generators: Sequence[torch.Generator], behind: Tensor | None
) -> tuple[Tensor, Background | None]:
    """x_T of pairs, (2, P, 4, h, w), one for each CPU generator, and what BCM sees; behind: z_bg, (P, 4, h, w)."""
    side = model.size // backbone.latent_downscale
    x = seeded_noise((2, 4, side, side), generators, backbone.null_context)
    x = rearrange(x, "pair branch c h w -> branch pair c h w")
    if model.bcm == "off":
        return x, None
    if behind is None:
        raise InputError("the dual model was learned with BCM and got no background; give one for each pair")
    noise = seeded_noise((4, side, side), generators, x)
    black = encode_black(backbone, model.size).to(x) if model.bcm == "release" else None
    return x, Background(behind.to(x), noise, black)


@torch.no_grad()
def shown_pairs(backbone: EditableBackbone, x: Tensor) -> list[DualPair]:
    """Decode x_0, (2, P, 4, h, w), and read each mask off its part."""
    sides = [side * backbone.latent_downscale for side in x.shape[-2:]]
    grey = torch.full((1, 3, *sides), GREY / 127.5 - 1)
    pixels = as_pixels(backbone.decode(torch.cat([batch_of(x), backbone.encode(grey).to(x)])))
    images, parts = pixels[: x.shape[1]], pixels[x.shape[1] : -1]
    return [DualPair(image, part, mask_of(part, pixels[-1])) for image, part in zip(images, parts, strict=True)]


@torch.no_grad()
def sample_latents(
    backbone: EditableBackbone, model: Learned, x: Tensor, settings: DualSampling, background: Background | None = None
) -> Tensor:
    """From noise x_T to x_0, (2, P, 4, h, w), deterministic DDIM."""
    pairs = x.shape[1]
    condition = nested_contexts(model.object_tokens, model.defect_tokens, pairs, model.prompts).to(x)
    null = backbone.null_context.to(x).expand(2 * pairs, -1, -1)
    timesteps = sampling_timesteps(settings.steps)
    alpha_bars = alpha_bar_at(backbone.alphas_cumprod, timesteps)
    x = batch_of(x)
    for number, t in enumerate(timesteps[:-1]):
        times = torch.full((len(x),), t, dtype=torch.long)
        edit, edit_null = step_edits(backbone, model, pairs, t, background, settings.guidance != 1)
        eps = backbone.predict_noise_edited(x, times, condition, edit)
        if edit_null is not None:  # eps_null + s (eps_e - eps_null) (Ho and Salimans 2022)
            without = backbone.predict_noise_edited(x, times, null, edit_null)
            eps = without + settings.guidance * (eps - without)
        x = ddim_step(x, eps, (alpha_bars[number], alpha_bars[number + 1]))
    return branches_of(x)


def step_edits(
    backbone: EditableBackbone, model: Learned, pairs: int, t: int, background: Background | None, guided: bool
) -> tuple[DualEdit, DualEdit | None]:
    """The edit of a batch of wholes and parts at timestep t, and that of the unconditional one where there is guidance.

    The background passes through the model once, or twice where the unconditional rows see black in its place.
    """
    rows, times = torch.arange(2 * pairs).view(2, pairs), torch.full((pairs,), t, dtype=torch.long)
    if background is None:
        edit = DualEdit(model.weights, rows)
        return edit, edit if guided else None
    edit = DualEdit(model.weights, rows, see_background(backbone, background.latents, background.noise, times))
    if not guided or background.black is None:
        return edit, edit if guided else None
    black = background.black.expand_as(background.noise)
    return edit, DualEdit(model.weights, rows, see_background(backbone, black, background.noise, times))
