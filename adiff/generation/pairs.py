"""Image-mask pairs: cut the mask's surroundings out of a normal photo, paint there, put it back inside the mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..datasets.images import Photo
from ..embedding import join_condition
from ..errors import InputError
from ..geometry import Box, context_box, crop_mask, crop_resize, feather, latent_mask, needs_crop, stitch
from ..scoring import ShotReference, describe, measure_pair
from ..spatial_encoder import SpatialEncoder
from .sampler import make_reweighter, sample_blended
from .settings import GenerationSettings


@dataclass(frozen=True)
class Pair:
    """image: array of the photo's own kind, identical to it outside the mask; mask: (H, W) bool; box: what was seen.

    measures: as `scoring.measure_pair` takes them.
    """

    image: np.ndarray
    mask: np.ndarray
    box: Box
    measures: dict[str, float | None]


def paint_box(mask: np.ndarray, backbone: Backbone, settings: GenerationSettings) -> Box:
    """Return the region of the photo that the model sees: around a small mask, else the largest square around it."""
    crop = settings.crop
    if crop is None:
        crop = needs_crop(mask, backbone.native_size, backbone.latent_downscale)
    return context_box(mask, backbone.native_size, context=settings.context if crop else max(mask.shape))


@torch.no_grad()
def make_pairs(
    backbone: Backbone,
    photos: Sequence[Photo],
    masks: Sequence[np.ndarray],
    embedding: Tensor,
    encoder: SpatialEncoder | None,
    settings: GenerationSettings,
    generators: Sequence[torch.Generator],
    on_step: Callable[[int], None] = lambda _: None,
    shots: ShotReference | None = None,
) -> list[Pair]:
    """Paint one defect (e_a, (k, D)) into each photo where its mask (H, W) bool says, all as one batch.

    generators: a CPU generator for each photo. shots: the defect's, for the measures that compare with them (likeness,
    novelty), which are None without. Raises InputError for a mask that is empty or of another size.
    """
    for photo, mask in zip(photos, masks, strict=True):
        if mask.shape != photo.size or not mask.any():
            raise InputError(
                f"the mask {mask.shape} for {photo.path.name} is empty or not of the photo's size {photo.size}"
            )
    size = backbone.native_size
    boxes = [paint_box(mask, backbone, settings) for mask in masks]
    views = np.stack([crop_resize(p.rgb, box, size) for p, box in zip(photos, boxes, strict=True)])
    on = torch.from_numpy(np.stack([crop_mask(m, b, size) for m, b in zip(masks, boxes, strict=True)]))[:, None].float()
    images = torch.from_numpy(views).permute(0, 3, 1, 2).float() / 127.5 - 1
    y = backbone.encode(images)
    cells, on = latent_mask(on, backbone.latent_downscale).to(y.device), on.to(y.device)
    e_s = None if encoder is None else encoder.to(y.device)(on)
    condition = join_condition(embedding.to(y.device)[None].expand(len(photos), -1, -1), e_s)
    reweighter = make_reweighter(backbone, y, images, cells, settings)
    x = sample_blended(backbone, y, cells, condition, settings, generators, reweighter, on_step)
    painted, rebuilt = as_pixels(backbone.decode(x)), as_pixels(backbone.decode(y))
    return [
        _finish(backbone, photo, mask, box, new, old, settings, shots)
        for photo, mask, box, new, old in zip(photos, masks, boxes, painted, rebuilt, strict=True)
    ]


def as_pixels(images: Tensor) -> np.ndarray:
    """Images (B, 3, H, W) in [-1, 1] -> (B, H, W, 3) uint8."""
    levels = ((images.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _finish(
    backbone: Backbone,
    photo: Photo,
    mask: np.ndarray,
    box: Box,
    painted: np.ndarray,
    rebuilt: np.ndarray,
    settings: GenerationSettings,
    shots: ShotReference | None,
) -> Pair:
    """Put one painted view (S, S, 3) back and measure it; rebuilt: the VAE's round trip of the normal view."""
    rgb, radius = photo.rgb, settings.feather * max(box.width, box.height) / backbone.native_size
    alpha = feather(mask, radius)
    image, unchanged = (photo.composite(stitch(rgb, view, box), alpha) for view in (painted, rebuilt))
    # the round trip goes the same way back, so that neither the feather nor a photo's grey counts as a change
    seen, reference = (Photo(pixels, photo.path).rgb for pixels in (image, unchanged))
    comparable = shots is not None and shots.descriptors is not None
    descriptor = describe(backbone, [seen], [mask])[0] if comparable else None
    return Pair(image, mask, box, measure_pair(seen, rgb, reference, mask, shots, descriptor))
