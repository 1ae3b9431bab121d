"""Masks enlarged with a smooth outline: what the model drew small must not have stairs on a large photo.

| symbol | meaning | shape |
|---|---|---|
| m | mask | (H, W) bool |
| p | outline: (x, y) of the middles of the cracks (`cracks`), in pixels | (N, 2) |

The outline is smoothed as a curve, not the mask as a picture: a scratch one pixel wide keeps its width, parts stay
whole, and nothing moves by more than REACH.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .cracks import STEP, enclosed_areas, number_curves, trace_cracks
from .geometry import resize_mask

SMOOTH_FROM = 1.5
"""Enlargement from which stairs are seen; below it masks are resized by area."""
PASSES = 12
"""Averages of each point with its neighbours: a Gaussian of sqrt(PASSES / 2) cracks along the outline."""
REACH = 0.45
"""Pixels of the small mask that a point moves by, at most: stairs are half a pixel off the line that they stand for."""
FITS = 4
"""Steps in which an outline gets its area back, each of half a pixel at most: a speck would overshoot."""
RIM = 8
"""Pixels by which a mask is continued beyond the image's border, so that an outline is not bent there."""


class Outline(NamedTuple):
    """points: (N, 2) float64; after: (N,), the number of the point that follows each one on its closed curve."""

    points: np.ndarray
    after: np.ndarray


def enlarge_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask; one that grows by SMOOTH_FROM or more along both sides gets a smooth outline and keeps its area.

    mask: (H, W) bool. Returns (height, width) bool; the size it has already gives the mask itself.
    """
    rows, columns = height / mask.shape[0], width / mask.shape[1]
    if min(rows, columns) < SMOOTH_FROM or not mask.any():
        return resize_mask(mask, height, width)
    points, after = smooth_outline(np.pad(mask.astype(bool), RIM, mode="edge"))
    return fill_outline(Outline((points - RIM) * (columns, rows), after), height, width)


def smooth_outline(mask: np.ndarray) -> Outline:
    """The outline of a mask, (H, W) bool, without stairs; each closed curve encloses the area that it did before."""
    starts, ways, after, _ = trace_cracks(mask)
    before = np.empty_like(after)
    before[after] = np.arange(len(after))
    middles, curve = starts + STEP[ways] / 2, number_curves(after)
    area, points = enclosed_areas(starts, after, curve), middles.copy()
    for _ in range(PASSES):
        points = (points[before] + 2 * points + points[after]) / 4
    moved = points - middles
    points = middles + moved * np.minimum(1, REACH / np.maximum(np.linalg.norm(moved, axis=1), 1e-12))[:, None]
    for _ in range(FITS):
        along = points[after] - points
        length = np.bincount(curve, np.linalg.norm(along, axis=1))
        along = points[after] - points[before]
        outward = np.stack([along[:, 1], -along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1), 1e-12)[:, None]
        lacking = (area - enclosed_areas(points, after, curve)) / np.maximum(length, 1e-12)
        points = points + outward * lacking.clip(-0.5, 0.5)[curve, None]
    return Outline(points, after)


def fill_outline(outline: Outline, height: int, width: int) -> np.ndarray:
    """The pixels whose centres lie inside an outline, (height, width) bool: those that it goes around to the right."""
    start, end = outline.points, outline.points[outline.after]
    # rows whose centre an edge crosses: those from its upper end's to the one before its lower end's
    top, bottom = (np.ceil(side(start[:, 1], end[:, 1]) - 0.5).clip(0, height) for side in (np.minimum, np.maximum))
    count = (bottom - top).astype(np.int64)
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + top[edge].astype(np.int64)
    (x, y), (dx, dy) = start[edge].T, (end - start)[edge].T
    column = np.ceil(x + (row + 0.5 - y) / dy * dx - 0.5).clip(0, width).astype(np.int64)
    turns = np.zeros((height, width + 1), np.int16)
    np.add.at(turns, (row, column), np.where(dy < 0, 1, -1).astype(np.int16))
    return np.cumsum(turns[:, :-1], axis=1, dtype=np.int16) > 0
