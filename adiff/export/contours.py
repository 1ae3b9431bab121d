"""Outlines of masks as polygons that every common rasteriser turns back into the very mask.

| symbol | meaning | unit |
|---|---|---|
| INSET | how far the outline lies inside the cracks (`cracks`) | pixels |

Coordinates are (x, y) with pixel (column c, row r) covering [c, c + 1) x [r, r + 1). Some readers round them to fifths
of a pixel (pycocotools), some cut them to whole pixels and fill what the outline touches (OpenCV, Pillow). Pixel edges
suit the first, the outermost pixels suit the second; an outline that lies INSET inside the edges is both. Readers that
round to whole pixels (supervision) want `on_pixels`, which pycocotools would take for less than the mask.
"""

from __future__ import annotations

import numpy as np

from ..cracks import DOWN, STEP, UP, Cracks, enclosed_areas, number_curves, trace_cracks
from ..geometry import mask_box

INSET = 0.05
"""Rounds to the edge in fifths of a pixel, and cuts to the pixel inside it."""
MIDDLE = (0.47, 0.02)
"""Where in its pixel a coordinate comes to lie that rounds to it and is cut to it: from where, and over how much. Just
short of the middle, so that points between two pixels which touch at a corner change row and column nearly at once, as
ultralytics puts such points in. Not all in one place, or an outline of one pixel would have no extent and be dropped.
"""

Polygon = list[tuple[float, float]]


def outlines(mask: np.ndarray) -> list[Polygon]:
    """Return one polygon for each part of a mask, in reading order of their first pixels, without the last point again.

    Pixels that touch at a corner are one part. A hole is reached from the part's left by a cut along the middle of a
    row of pixels, walked to and fro, as no format of polygons knows holes. mask: (H, W) bool.
    """
    if not mask.any():
        return []
    box = mask_box(mask)
    cracks = trace_cracks(mask[box.slices])  # a small defect in a large photo takes no longer than in a small one
    curve = number_curves(cracks.after)
    hole = enclosed_areas(cracks.starts, cracks.after, curve) < 0
    first = np.unique(curve, return_index=True)[1]  # the upper side of a part's first pixel
    polygons = _polygons(_cut(cracks, np.where(hole[curve], curve, -1)), np.sort(first[~hole]))
    return [[(x + box.left, y + box.top) for x, y in polygon] for polygon in polygons]


def on_pixels(polygon: Polygon) -> Polygon:
    """Return a polygon of `outlines` just short of the middles of its pixels: rounded and cut it is the same."""
    start, width = MIDDLE
    return [(x // 1 + start + width * (x % 1), y // 1 + start + width * (y % 1)) for x, y in polygon]


def _cut(cracks: Cracks, hole: np.ndarray) -> Cracks:
    """Join each hole with what lies left of it: the part's outline, or another hole.

    Both cracks at the ends of the cut are split in their middle: the walk comes along the first half of the one, goes
    over, around the hole, back, and on along the other half. Second halves are added behind all cracks.
    hole: (N,), the number of the hole that each crack is at, -1 for a part's outline.
    """
    starts, ways, after, number = cracks
    x, y = starts.T
    left = np.flatnonzero((ways == DOWN) & (hole >= 0))
    left = left[np.lexsort((y[left], x[left], hole[left]))]
    left = left[np.unique(hole[left], return_index=True)[1]]  # of each hole's the leftmost, of those the uppermost
    up = np.flatnonzero(ways == UP)  # by rows and columns of their pixels
    columns = number.shape[2]
    host = up[np.searchsorted(y[up] * columns + x[up], (y[left] + 1) * columns + x[left]) - 1]
    split = np.concatenate([left, host])
    after = np.concatenate([after, after[split]])
    after[split] = len(ways) + np.roll(np.arange(len(split)), len(left))  # over to the other's second half
    return Cracks(np.concatenate([starts, starts[split]]), np.concatenate([ways, ways[split]]), after, number)


def _polygons(cracks: Cracks, firsts: np.ndarray) -> list[Polygon]:
    """The corners of closed walks, each INSET into its pixel; firsts: the number of a crack of each walk."""
    after, walk, ends = cracks.after.tolist(), [], []
    for first in firsts.tolist():
        walk.append(first)
        here = after[first]
        while here != first:
            walk.append(here)
            here = after[here]
        ends.append(len(walk))
    corners, needed = _corners(cracks)
    needed = needed[walk]
    x, y = corners[walk][needed].T.tolist()
    points = list(zip(x, y, strict=True))
    stops = np.cumsum(needed.sum(1))[np.array(ends) - 1].tolist()
    return [points[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def _corners(cracks: Cracks) -> tuple[np.ndarray, np.ndarray]:
    """Up to two points between each crack and the next, (N, 2, 2), and which are needed, (N, 2): none straight on."""
    starts, ways, after, number = cracks
    turns, ends = ways[after], starts + STEP[ways]
    inward, new_inward = STEP[(ways + 1) % 4], STEP[(turns + 1) % 4]
    cut = (turns - ways) % 4 == 2
    across = ((ways - turns) % 4 == 1) & (number[(ways + 1) % 4, ends[:, 1], ends[:, 0]] >= 0)  # to the next pixel
    middles = starts + STEP[ways] / 2 + INSET * inward
    back = inward - STEP[ways]
    one = np.where(cut[:, None], middles, ends + INSET * np.where(across[:, None], back, inward + new_inward))
    other = np.where(cut[:, None], middles[after], ends - INSET * back)
    return np.round(np.stack([one, other], 1), 2), np.stack([turns != ways, cut | across], 1)
