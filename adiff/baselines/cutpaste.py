"""CutPaste: a patch of the normal image pasted elsewhere in it (Li et al., CVPR 2021, arXiv 2104.04015, sec. 2.2)."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance

from ..geometry import mask_box
from .pasting import Sources, paste, place_for

AREA = (0.02, 0.15)
"""Share of the image that a patch covers."""
ASPECT = (0.3, 1 / 0.3)
"""Of a patch, width to height."""
SCAR_WIDTH, SCAR_LENGTH, SCAR_ANGLE = (2, 16), (10, 25), 45.0
"""Pixels of an image with a short side of SCAR_SIDE; degrees either way."""
SCAR_SIDE = 256
JITTER = 0.1
"""Largest change of brightness, contrast, saturation and hue."""


def cutpaste(
    normal: np.ndarray, mask: np.ndarray | None, sources: Sources, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a jittered patch, by even chance a rectangle or a thin turned scar, somewhere else in the image.

    mask: the place and the shape of the patch, which is then cut from elsewhere. sources: not used. The pair's mask is
    what was pasted, also where the patch happens to look like what it covers. Returns image (H, W, 3) uint8 and mask.
    """
    frame = normal.shape[:2]
    if mask is not None:
        box = mask_box(mask)
        patch = jitter(_cut(normal, (box.height, box.width), rng), rng)
        return paste(normal, patch, mask[box.slices].astype(bool), box.top, box.left)
    if rng.random() < 0.5:
        patch = jitter(_cut(normal, _patch_size(frame, rng), rng), rng)
        on = np.ones(patch.shape[:2], bool)
    else:
        patch, on = _scar(normal, rng)
    return paste(normal, patch, on, *place_for(on.shape, frame, None, rng))


def _patch_size(frame: tuple[int, int], rng: np.random.Generator) -> tuple[int, int]:
    area = rng.uniform(*AREA) * frame[0] * frame[1]
    aspect = math.exp(rng.uniform(*np.log(ASPECT)))
    height, width = math.sqrt(area / aspect), math.sqrt(area * aspect)
    return min(max(round(height), 1), frame[0]), min(max(round(width), 1), frame[1])


def _cut(normal: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    top, left = place_for(size, normal.shape[:2], None, rng)
    return normal[top : top + size[0], left : left + size[1]].copy()


def _scar(normal: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A long thin patch, jittered and turned: (h, w, 3) uint8 and where it is, (h, w) bool."""
    frame = normal.shape[:2]
    scale = min(frame) / SCAR_SIDE
    width, length = (max(round(scale * rng.uniform(*span)), 1) for span in (SCAR_WIDTH, SCAR_LENGTH))
    patch, angle = jitter(_cut(normal, (length, width), rng), rng), rng.uniform(-SCAR_ANGLE, SCAR_ANGLE)
    around = np.pad(patch, ((1, 1), (1, 1), (0, 0)), mode="edge")  # so that turning it mixes in no black
    on = np.pad(np.full((length, width), 255, np.uint8), 1)
    turned, shape = (np.array(Image.fromarray(array).rotate(angle, Image.Resampling.BILINEAR, expand=True))
                     for array in (around, on))  # fmt: skip
    inside = shape[: frame[0], : frame[1]] >= 128
    return (turned[: frame[0], : frame[1]], inside) if inside.any() else (patch, np.ones((length, width), bool))


def jitter(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and hue of (h, w, 3) uint8 by up to JITTER each."""
    image = Image.fromarray(patch)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(1 + rng.uniform(-JITTER, JITTER))
    hue, saturation, value = image.convert("HSV").split()
    turned = (np.array(hue).astype(int) + round(255 * rng.uniform(-JITTER, JITTER))) % 256
    channels = Image.fromarray(turned.astype(np.uint8)), saturation, value
    return np.array(Image.merge("HSV", channels).convert("RGB"))
