"""Does a mask lie where the image shows something? Told from the image itself, as dual pairs have no normal image.

| symbol | meaning | shape |
|---|---|---|
| x, x' | colours around each place, smoothed at SCALES; around one place of APART | (N, 9), (M, 9) |
| c | novelty: distance of x to its NEIGHBOURS-th nearest x' among places FAR away in the image, levels | (N,) |
| o, a | overlap (IoU) of the mask with the change; share of the image that the mask covers | |

Grain, light that falls off and the object's outline occur at many places, so they have near neighbours; a defect has
none. The change in an image is where c is largest, at as many pixels as the mask covers. A mask at random has an
overlap of r = a / (2 - a), so alignment = (o - r) / (1 - r): 0 for such a one, 1 for the change itself. True masks of
drawn defects have 0.5 to 0.7 (of dents 0.2, as light and shadow occur elsewhere): compare with those of real photos.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from ..geometry import resize_image, resize_mask
from ..refinement import overlap

SIDE, STEP = 128, 2
"""Pixels of the square on which it is told, so that photos of any size compare, and those from place to place."""
APART = 5
"""Of so many places one is compared with: a knight's move apart, so that edges along rows and columns have it too."""
SCALES = (1.0, 2.5, 6.0)
"""Deviations of the Gaussians, pixels."""
FAR = SIDE / 4
"""Pixels from a place within which nothing is compared with it: a defect is not to be its own neighbour."""
NEIGHBOURS = 2


def alignment(image: np.ndarray, mask: np.ndarray) -> float:
    """Overlap of a mask with the change in its image beyond chance, at most 1; 0 for a mask that parts nothing.

    image: (H, W, 3) uint8. mask: (H, W) bool.
    """
    c, on = novelty_of(image), resize_mask(mask, SIDE, SIDE)
    changed = np.zeros(c.size, bool)
    changed[np.argsort(-c, axis=None, kind="stable")[: on.sum()]] = True
    chance = on.mean() / (2 - on.mean())
    if on.all() or not on.any():
        return 0.0
    return float((overlap(changed.reshape(c.shape), on) - chance) / (1 - chance))


def novelty_of(image: np.ndarray) -> np.ndarray:
    """c of each pixel, (SIDE, SIDE) float32, the places between interpolated. image: (H, W, 3) uint8."""
    levels = resize_image(image, SIDE, SIDE).astype(np.float32)
    smooth = [ndimage.gaussian_filter(levels, (scale, scale, 0))[::STEP, ::STEP] for scale in SCALES]
    x = np.concatenate(smooth, axis=2).reshape(-1, 3 * len(SCALES))
    x -= x.mean(0)  # which keeps the squares small
    compared, near = _places()
    away = _squares(x, x[compared])
    away[near] = np.inf
    nearest = np.partition(away, NEIGHBOURS - 1, axis=1)[:, NEIGHBOURS - 1]
    c = np.sqrt(np.maximum(nearest, 0)).reshape(SIDE // STEP, -1)
    return ndimage.zoom(c, STEP, order=1, grid_mode=True, mode="nearest")


@cache
def _places() -> tuple[np.ndarray, np.ndarray]:
    """Places that are compared with, (N,) bool, and which places are too near to which of them, (N, M) bool."""
    rows, columns = np.indices((SIDE // STEP,) * 2).reshape(2, -1)
    compared = (rows + 2 * columns) % APART == 0
    where = np.stack([rows, columns], axis=1).astype(np.float32) * STEP
    return compared, _squares(where, where[compared]) < FAR**2


def _squares(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances of (N, C) to (M, C): (N, M)."""
    return (x**2).sum(1)[:, None] + (others**2).sum(1) - 2 * x @ others.T
