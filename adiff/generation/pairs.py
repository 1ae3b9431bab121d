"""Image-mask pairs: cut the mask's surroundings out of a normal photo, paint there, put it back inside the mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..backbone import Backbone
from ..crops import Crop, blend_weight, crops_of, within
from ..datasets.images import Photo
from ..embedding import join_condition
from ..errors import InputError
from ..geometry import Box, box_of, context_box, crop_resize, needs_crop, resize_image, resize_mask
from ..latent_grid import latent_mask
from ..memory import Parts
from ..pixels import as_images, as_pixels
from ..refinement import refined
from ..scoring import ShotReference, measure_pair
from ..spatial_encoder import SpatialEncoder
from .sampler import make_reweighter, sample_blended
from .settings import GenerationSettings


@dataclass(frozen=True)
class Pair:
    """image: array of the photo's own kind, identical to it outside the mask; mask: (H, W) bool; box: what was seen, of
    several crops the least box around them.

    measures: as `scoring.measure_pair` takes them. asked: the mask that was painted where `mask` is a refined one.
    """

    image: np.ndarray
    mask: np.ndarray
    box: Box
    measures: dict[str, float | None]
    asked: np.ndarray | None = None


def paint_box(mask: np.ndarray, backbone: Backbone, settings: GenerationSettings) -> Box:
    """Return the region of the photo that the model sees: around a small mask, else the largest square around it."""
    context = settings.context if _is_cropped(mask, backbone, settings) else max(mask.shape)
    return context_box(mask, backbone.native_size, context=context)


def paint_crops(mask: np.ndarray, backbone: Backbone, settings: GenerationSettings) -> list[Crop]:
    """Return what is painted: `paint_box` with the mask, or a crop for each group of a small mask's far parts."""
    if _is_cropped(mask, backbone, settings):
        return crops_of(mask, backbone.native_size, context=settings.context)
    box = paint_box(mask, backbone, settings)
    return [Crop(box, mask[box.slices])]


def _is_cropped(mask: np.ndarray, backbone: Backbone, settings: GenerationSettings) -> bool:
    if settings.crop is not None:
        return settings.crop
    return needs_crop(mask, backbone.native_size, backbone.latent_downscale)


class _View(NamedTuple):
    """One of the views that a batch is painted in: the photo's number in the batch, its crop, its noise."""

    photo: int
    crop: Crop
    generator: torch.Generator


def _views(crops: Sequence[Sequence[Crop]], generators: Sequence[torch.Generator]) -> list[_View]:
    """The views of all photos; the first of each has the photo's own noise, further ones have noise that follows it."""
    views = []
    for number, (of_photo, generator) in enumerate(zip(crops, generators, strict=True)):
        more = torch.randint(2**62, (len(of_photo) - 1,), generator=generator).tolist() if len(of_photo) > 1 else []
        noises = [generator, *(torch.Generator().manual_seed(seed) for seed in more)]
        views += [_View(number, crop, noise) for crop, noise in zip(of_photo, noises, strict=True)]
    return views


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
    parts: Parts | None = None,
) -> list[Pair]:
    """Paint one defect (e_a, (k, D)) into each photo where its mask (H, W) bool says, `settings.batch` views at a time.

    generators: a CPU generator for each photo. shots: the defect's, for the measures that compare with them (likeness,
    novelty), which are None without. parts: what is known of the device's memory; out of it, fewer views are painted at
    a time. Raises InputError for a mask that is empty or of another size.
    """
    parts = parts or Parts()
    for photo, mask in zip(photos, masks, strict=True):
        if mask.shape != photo.size or not mask.any():
            raise InputError(
                f"the mask {mask.shape} for {photo.path.name} is empty or not of the photo's size {photo.size}"
            )
    views = _views([paint_crops(mask, backbone, settings) for mask in masks], generators)
    found: list[list[_Painted]] = [[] for _ in photos]
    for start in range(0, len(views), settings.batch):
        together = views[start : start + settings.batch]

        def paint(part: slice, of: list[_View] = together) -> list[_Painted]:
            return _paint(backbone, photos, of[part], embedding, encoder, settings, on_step)

        for view, one in zip(together, parts.of(len(together), paint), strict=True):
            found[view.photo].append(one)
    return [
        _finish(backbone, photo, mask, of_photo, settings, shots)
        for photo, mask, of_photo in zip(photos, masks, found, strict=True)
    ]


class _Painted(NamedTuple):
    """A crop with its view (S, S, 3) uint8 as it was painted, and the VAE's round trip of the normal one."""

    crop: Crop
    painted: np.ndarray
    rebuilt: np.ndarray


def _paint(
    backbone: Backbone,
    photos: Sequence[Photo],
    views: Sequence[_View],
    embedding: Tensor,
    encoder: SpatialEncoder | None,
    settings: GenerationSettings,
    on_step: Callable[[int], None],
) -> list[_Painted]:
    """Paint views as one batch."""
    size = backbone.native_size
    pictures = np.stack([crop_resize(photos[view.photo].rgb, view.crop.box, size) for view in views])
    on = torch.from_numpy(np.stack([resize_mask(view.crop.mask, size, size) for view in views]))[:, None].float()
    images = as_images(pictures)
    y = backbone.encode(images)
    cells, on = latent_mask(on, backbone.latent_downscale).to(y.device), on.to(y.device)
    e_s = None if encoder is None else encoder.to(y.device)(on)
    condition = join_condition(embedding.to(y.device)[None].expand(len(views), -1, -1), e_s)
    reweighter = make_reweighter(backbone, y, images, cells, settings)
    # what did not fit into memory is painted anew from the same noise
    noises = [torch.Generator().set_state(view.generator.get_state()) for view in views]
    x = sample_blended(backbone, y, cells, condition, settings, noises, reweighter, on_step)
    pixels = as_pixels(backbone.decode(x)), as_pixels(backbone.decode(y))
    return [_Painted(view.crop, *both) for view, *both in zip(views, *pixels, strict=True)]


def _finish(
    backbone: Backbone,
    photo: Photo,
    mask: np.ndarray,
    painted: Sequence[_Painted],
    settings: GenerationSettings,
    shots: ShotReference | None,
) -> Pair:
    """Put a photo's painted views back and measure the whole."""
    box = box_of([one.crop.box for one in painted])
    part = Photo(photo.pixels[box.slices], photo.path)  # of a large photo a small one
    new, old, alpha = part.rgb.copy(), part.rgb.copy(), np.zeros(part.size, np.float32)
    for crop, *views in painted:
        weight = blend_weight(crop, mask.shape, settings.feather, backbone.native_size)
        there, inside = within(crop.box, box).slices, weight > 0
        for canvas, view in zip((new, old), views, strict=True):
            canvas[there][inside] = resize_image(view, crop.box.height, crop.box.width)[inside]
        alpha[there] = np.maximum(alpha[there], weight)
    image, unchanged = photo.pixels.copy(), photo.pixels.copy()
    image[box.slices], unchanged[box.slices] = part.composite(new, alpha), part.composite(old, alpha)
    # the round trip goes the same way back, so that neither the feather nor a photo's grey counts as a change
    seen, reference = (Photo(pixels, photo.path).rgb for pixels in (image, unchanged))
    asked, mask = mask, refined(seen, reference, mask) if settings.refine else mask
    descriptor = None if shots is None else shots.describe(backbone, seen, mask)
    measures = measure_pair(seen, photo.rgb, reference, mask, shots, descriptor, asked)
    return Pair(image, mask, box, measures, asked if settings.refine else None)
