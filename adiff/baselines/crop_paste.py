"""Crop-Paste: defects cut out of the shots and pasted on normal images (Lin et al., ICME 2021, arXiv 2007.09438)."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..geometry import mask_box
from .pasting import Sources, paste, place_for

ZOOM = 1.25
"""Largest scaling of a crop, either way."""
EDGE = 2
"""Pixels of its surroundings that go with a crop, so that turning it mixes in no black."""


def crop_paste(
    normal: np.ndarray, mask: np.ndarray | None, sources: Sources, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a random shot's defect, flipped, turned and scaled, with hard edges; its own shape is the pair's mask.

    mask: its middle is the place; None: anywhere. A shot of another size is first brought to the normal image's. A crop
    that would not fit is made smaller. Returns image (H, W, 3) uint8 and mask (H, W) bool.
    """
    image, defect = sources.shots[int(rng.integers(len(sources.shots)))]
    flips, angle, zoom = rng.random(2) < 0.5, rng.uniform(-180, 180), ZOOM ** rng.uniform(-1, 1)
    frame = normal.shape[:2]
    scale = zoom * min(frame) / min(image.shape[:2])
    crop, on = _turned(*_cut(image, defect, flips), angle)
    scale = min(scale, frame[0] / on.shape[0], frame[1] / on.shape[1])
    size = tuple(min(max(round(scale * side), 1), most) for side, most in zip(on.shape, frame, strict=True))
    patch = np.array(Image.fromarray(crop).resize(size[::-1], Image.Resampling.BILINEAR))
    shape = np.array(Image.fromarray(on.astype(np.uint8) * 255).resize(size[::-1], Image.Resampling.BILINEAR)) >= 128
    if not shape.any():  # a thin defect made smaller: keep its strongest pixels
        shape = _any_cover(on, size)
    return paste(normal, patch, shape, *place_for(size, frame, mask, rng))


def _cut(image: np.ndarray, defect: np.ndarray, flips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The defect's bounding box with EDGE pixels around it, repeated beyond the photo's border, flipped."""
    box = mask_box(defect)
    rows = np.clip(np.arange(box.top - EDGE, box.bottom + EDGE), 0, image.shape[0] - 1)
    columns = np.clip(np.arange(box.left - EDGE, box.right + EDGE), 0, image.shape[1] - 1)
    on = np.pad(defect[box.slices].astype(bool), EDGE)
    crop = image[np.ix_(rows, columns)]
    for axis in np.flatnonzero(flips):
        crop, on = np.flip(crop, axis), np.flip(on, axis)
    return np.ascontiguousarray(crop), np.ascontiguousarray(on)


def _turned(crop: np.ndarray, on: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Both turned by an angle in degrees and cut to the defect again."""
    turned = Image.fromarray(crop).rotate(angle, Image.Resampling.BILINEAR, expand=True)
    marked = Image.fromarray(on.astype(np.uint8) * 255).rotate(angle, Image.Resampling.BILINEAR, expand=True)
    shape = np.array(marked) >= 128
    if not shape.any():  # a defect of a pixel or two
        return crop, on
    box = mask_box(shape).slices
    return np.ascontiguousarray(np.array(turned)[box]), np.ascontiguousarray(shape[box])


def _any_cover(on: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A smaller mask in which a pixel is on if any that it covers is."""
    small = np.zeros(size, bool)
    rows, columns = np.nonzero(on)
    small[rows * size[0] // on.shape[0], columns * size[1] // on.shape[1]] = True
    return small
