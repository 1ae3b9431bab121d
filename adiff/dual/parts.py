"""The defect part: what branch 1 is shown in training, and the mask read off what it generates (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| part | image * mask in [-1, 1], so grey outside the mask | (H, W, 3) uint8 |
| d | distance of a generated part from grey, levels | (H, W) |
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..geometry import EIGHT
from ..masks import clean_mask
from ..refinement import otsu

GREY = 127.5
"""Level outside the mask: 0 in [-1, 1]."""
LEAST = 10.0
"""Levels of 255 that a mask's threshold is at least: below is what the autoencoder makes of plain grey."""
TINT, LEFT = 48.0, 0.05
"""Levels by which the ground may differ from grey; where it does by more, the part's share of grey if not."""
EDGE, STRIPE = 12, 0.25
"""Pixels at the border, a cell and a half, where the autoencoder shows stripes; their least length in sides."""
SPECK = 1e-3
"""Share of the image below which a part of a mask is dropped, and a hole in it closed."""
FRAGMENT = 0.1
"""Share of the largest part's area below which another is a crumb of the sampler or the autoencoder's, at a border."""
SMOOTH, GAP = 1.5, 2
"""Pixels: deviation of the Gaussian against rough parts, and half the gaps that are closed; well within a cell."""


def part_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return image * mask in [-1, 1] as float levels: the image inside, exact grey outside.

    image: (H, W, 3) uint8. mask: (H, W) bool. Returns (H, W, 3) float32 in [0, 255].
    """
    return np.where(mask[..., None], image, GREY).astype(np.float32)


def mask_of(part: np.ndarray, grey: np.ndarray | None = None) -> np.ndarray:
    """Read the mask off a generated part: smoothed distance from its ground, Otsu's threshold, cleaned; may be empty.

    The ground is grey, in the tint that the model gave it: the median of the part, unless that is beyond TINT while
    some of the part is grey, and so the defect's own. Stripes along the border are the autoencoder's.
    part: (H, W, 3) uint8.
    grey: what the autoencoder makes of a plain grey image, alike; exact grey without one. Returns (H, W) bool.
    """
    away = part.astype(np.float32) - (GREY if grey is None else grey.astype(np.float32))
    tint = np.median(away, axis=(0, 1))
    if np.abs(tint).max() <= TINT or (np.abs(away).max(axis=2) <= TINT / 2).mean() < LEFT:
        away -= tint
    distance = np.abs(ndimage.gaussian_filter(away, (SMOOTH, SMOOTH, 0))).max(axis=2)
    mask = distance > max(otsu(distance), LEAST)
    mask |= ndimage.binary_closing(np.pad(mask, GAP), iterations=GAP)[GAP:-GAP, GAP:-GAP]
    return _without_fragments(clean_mask(_without_stripes(mask), max(round(SPECK * mask.size), 1)))


def _without_stripes(mask: np.ndarray) -> np.ndarray:
    """The mask without what runs along a border of the image, within EDGE pixels of it, and hardly goes on inwards."""
    kept = mask.copy()
    for turns in range(4):
        turned, left = np.rot90(mask, turns), np.rot90(kept, turns)  # views: this border is on top
        labels, count = ndimage.label(turned[:EDGE], EIGHT)
        for n in range(1, count + 1):
            columns = (labels == n).any(axis=0)
            if columns.sum() > STRIPE * len(columns) and (columns & turned[EDGE]).sum() < columns.sum() / 2:
                left[:EDGE][labels == n] = False
    return kept


def _without_fragments(mask: np.ndarray) -> np.ndarray:
    """The mask without what is small beside its largest part."""
    labels, count = ndimage.label(mask, EIGHT)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.isin(labels, np.flatnonzero(sizes >= max(FRAGMENT * sizes.max(), 1)))
