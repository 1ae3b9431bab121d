"""The closed curves around a mask's parts and holes, between the pixels.

| symbol | meaning | shape |
|---|---|---|
| m | mask | (H, W) bool |
| crack | side of a pixel that is on, towards one that is off; walked with the mask on the right | 1 pixel |
| way | a crack's direction: RIGHT, DOWN, LEFT or UP | |

Coordinates are (x, y) with pixel (column c, row r) covering [c, c + 1) x [r, r + 1). Of two open ways the left one is
taken: it joins pixels that touch at a corner.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RIGHT, DOWN, LEFT, UP = range(4)
STEP = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""A crack of each way, as (x, y); each is the one before turned right, and the mask lies towards the next one."""


class Cracks(NamedTuple):
    """All cracks of a mask: by their ways, of each way by row and column of their pixels.

    starts: (N, 2) int64, where each starts, (x, y). ways: (N,). after: (N,), the number of the one that follows.
    number: (4, H + 1, W + 1), the number of the crack of a way that starts at (y, x); -1 where there is none.
    """

    starts: np.ndarray
    ways: np.ndarray
    after: np.ndarray
    number: np.ndarray


def trace_cracks(mask: np.ndarray) -> Cracks:
    """Return all cracks of a mask, (H, W) bool."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    beyond = (padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2])
    ways, rows, columns = np.nonzero(np.stack([inside & ~other for other in beyond]))
    starts = np.stack([columns + np.isin(ways, (DOWN, LEFT)), rows + np.isin(ways, (LEFT, UP))], 1)
    number = np.full((4, mask.shape[0] + 1, mask.shape[1] + 1), -1, np.int64)
    number[ways, starts[:, 1], starts[:, 0]] = np.arange(len(ways))
    ends, after = starts + STEP[ways], np.full(len(ways), -1)
    for turn in (1, 0, -1):  # the last one that is open counts
        there = number[(ways + turn) % 4, ends[:, 1], ends[:, 0]]
        after = np.where(there >= 0, there, after)
    return Cracks(starts, ways, after, number)


def number_curves(after: np.ndarray) -> np.ndarray:
    """The number of the closed curve that each point is on, (N,); after: (N,), the number of the point that follows."""
    from scipy import sparse  # here, as with it ComfyUI's nodes would take half as long again to import
    from scipy.sparse import csgraph

    count = len(after)
    links = sparse.csr_matrix((np.ones(count, bool), after, np.arange(count + 1)), (count, count))
    return csgraph.connected_components(links, directed=False)[1]


def enclosed_areas(points: np.ndarray, after: np.ndarray, curve: np.ndarray) -> np.ndarray:
    """Area inside each closed curve, in pixels; a hole's is below zero. points: (N, 2); after, curve: (N,)."""
    (x, y), (next_x, next_y) = points.T, points[after].T
    return np.bincount(curve, (x * next_y - next_x * y) / 2)
