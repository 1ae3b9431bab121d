"""The defect part: what branch 1 is shown in training, and the mask read off what it generates (METHOD 4).

| symbol | meaning | shape |
|---|---|---|
| part | image * mask in [-1, 1], so grey outside the mask | (H, W, 3) uint8 |
| d | distance of a generated part from grey, levels | (H, W) |
"""

from __future__ import annotations

import numpy as np

from ..masks import clean_mask

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


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """Return the threshold that parts values into two classes of the largest variance between them (Otsu 1979, Eq. 14).

    Of many equally good ones the middle; for values that are all the same, these.
    """
    low, high = float(values.min()), float(values.max())
    if low == high:
        return low
    counts, edges = np.histogram(values, bins, (low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1] / values.size  # omega of the lower class
    mean = np.cumsum(counts * centres)[:-1] / values.size
    total = float((counts * centres).sum()) / values.size
    between = (total * below - mean) ** 2 / np.maximum(below * (1 - below), 1e-12)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:-1][best].mean())
