"""The defect part: what branch 1 is shown in training, and the mask read off what it generates (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| part | image * mask in [-1, 1], so grey outside the mask | (H, W, 3) uint8 |
| d | distance of a generated part from grey, levels | (H, W) |
"""

from __future__ import annotations

import numpy as np

from ..masks import clean_mask
from ..refinement import otsu

GREY = 127.5
"""Level outside the mask: 0 in [-1, 1]."""
LEAST = 10.0
"""Levels of 255 that a mask's threshold is at least: below is what the autoencoder makes of plain grey."""
SPECK = 1e-3
"""Share of the image below which a part of a mask is dropped, and a hole in it closed."""


def part_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return image * mask in [-1, 1] as float levels: the image inside, exact grey outside.

    image: (H, W, 3) uint8. mask: (H, W) bool. Returns (H, W, 3) float32 in [0, 255].
    """
    return np.where(mask[..., None], image, GREY).astype(np.float32)


def mask_of(part: np.ndarray, grey: np.ndarray | None = None) -> np.ndarray:
    """Read the mask off a generated part: distance from grey, Otsu's threshold, cleaned; may be empty.

    part: (H, W, 3) uint8. grey: what the autoencoder makes of a plain grey image, alike; exact grey without one.
    Returns (H, W) bool.
    """
    reference = GREY if grey is None else grey.astype(np.float32)
    distance = np.abs(part.astype(np.float32) - reference).max(axis=2)
    return clean_mask(distance > max(otsu(distance), LEAST), max(round(SPECK * distance.size), 1))
