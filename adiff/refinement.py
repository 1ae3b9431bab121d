"""Refined masks: the part of a mask in which the image really changed (METHOD 6; threshold of Otsu 1979).

| symbol | meaning | shape |
|---|---|---|
| output | the generated image | (H, W, 3) uint8 |
| round trip | what the model's VAE makes of the normal image, pasted back alike | (H, W, 3) uint8 |
| m | the mask that was asked for | (H, W) bool |
| c | change: largest abs(output - round trip) over the channels, levels | (H, W) |
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .geometry import EIGHT, mask_box
from .masks import refine_mask

VISIBLE = 10
"""Levels of 255 beyond which a pixel counts as changed."""
RIM = 3
"""Pixels by which the mask is dilated for the threshold: without them a change that fills m has nothing to be parted
from."""


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


def refined(output: np.ndarray, round_trip: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return where in m the image changed: the parts of c > VISIBLE that hold c > Otsu's threshold; (H, W) bool.

    The threshold is over the dilated m. Alone it would part the strong change from the weak one within a defect, a
    hole's light rim from its dark ground. Gaps of a pixel are closed, holes filled, specks dropped; m itself where
    nothing visible changed. InputError for an empty mask.
    """
    box, (height, width) = mask_box(mask), mask.shape
    near = (slice(max(box.top - RIM, 0), min(box.bottom + RIM, height)),
            slice(max(box.left - RIM, 0), min(box.right + RIM, width)))  # fmt: skip
    asked = mask[near].astype(bool)
    change = np.abs(output[near].astype(np.int64) - round_trip[near].astype(np.int64)).reshape(*asked.shape, -1).max(2)
    around = ndimage.binary_dilation(asked, EIGHT, iterations=RIM)
    found = np.zeros(mask.shape, bool)
    parts, _ = ndimage.label((change > VISIBLE) & asked, EIGHT)
    strong = np.unique(parts[change > max(otsu(change[around]), VISIBLE)])
    found[near] = refine_mask(asked, np.isin(parts, strong[strong > 0]))
    return found


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks (H, W) bool; 1 if both are empty."""
    union = int((first | second).sum())
    return float((first & second).sum()) / union if union else 1.0
