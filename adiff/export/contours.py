"""Outlines of masks as polygons that every common rasteriser turns back into the very mask.

| symbol | meaning | unit |
|---|---|---|
| crack | side of a pixel that is on, towards one that is off; walked with the mask on the right | 1 pixel |
| INSET | how far the outline lies inside the cracks | pixels |

Coordinates are (x, y) with pixel (column c, row r) covering [c, c + 1) x [r, r + 1). Some readers round them to fifths
of a pixel (pycocotools), some cut them to whole pixels and fill what the outline touches (OpenCV, Pillow). Pixel edges
suit the first, the outermost pixels suit the second; an outline that lies INSET inside the edges is both. Readers that
round to whole pixels (supervision) want `on_pixels`, which pycocotools would take for less than the mask.
"""

from __future__ import annotations

import numpy as np

INSET = 0.05
"""Rounds to the edge in fifths of a pixel, and cuts to the pixel inside it."""
MIDDLE = (0.47, 0.02)
"""Where in its pixel a coordinate comes to lie that rounds to it and is cut to it: from where, and over how much. Just
short of the middle, so that points between two pixels which touch at a corner change row and column nearly at once, as
ultralytics puts such points in. Not all in one place, or an outline of one pixel would have no extent and be dropped.
"""
STEP = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Directions of a crack, each the one before turned right; the mask lies towards the next one."""
RIGHT, DOWN, LEFT, UP = range(4)

Polygon = list[tuple[float, float]]
Crack = tuple[int, int, int]
"""(x, y) where it starts, and its direction."""


def outlines(mask: np.ndarray) -> list[Polygon]:
    """Return one polygon for each part of a mask, in reading order of their first pixels, without the last point again.

    Pixels that touch at a corner are one part. A hole is reached from the part's left by a cut along the middle of a
    row of pixels, walked to and fro, as no format of polygons knows holes. mask: (H, W) bool.
    """
    cracks = _cracks(mask)
    number = {crack: index for index, crack in enumerate(cracks)}
    loops, following = _loops(cracks, number)
    outer = []
    for loop in loops:
        if _is_hole(loop, cracks):
            _cut(loop, cracks, number, following, mask)
        else:
            outer.append(loop[0])
    return [_points(first, cracks, number, following) for first in outer]


def on_pixels(polygon: Polygon) -> Polygon:
    """Return a polygon of `outlines` just short of the middles of its pixels: rounded and cut it is the same."""
    start, width = MIDDLE
    return [(x // 1 + start + width * (x % 1), y // 1 + start + width * (y % 1)) for x, y in polygon]


def _cracks(mask: np.ndarray) -> list[Crack]:
    """All cracks, by row and column of their pixels, a pixel's upper one first."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    beyond = {RIGHT: padded[:-2, 1:-1], DOWN: padded[1:-1, 2:], LEFT: padded[2:, 1:-1], UP: padded[1:-1, :-2]}
    rows, columns, ways = np.nonzero(np.stack([inside & ~beyond[way] for way in range(4)], axis=-1))
    x = columns + np.isin(ways, (DOWN, LEFT))
    y = rows + np.isin(ways, (LEFT, UP))
    return list(zip(x.tolist(), y.tolist(), ways.tolist(), strict=True))


def _loops(cracks: list[Crack], number: dict[Crack, int]) -> tuple[list[list[int]], list[int]]:
    """Closed walks over the cracks, and the crack after each; of two open ways the left one joins the corners."""
    following = [-1] * len(cracks)
    loops = []
    for first in range(len(cracks)):
        if following[first] >= 0:
            continue
        loop, here = [], first
        while following[here] < 0:
            x, y, way = cracks[here]
            end = x + STEP[way][0], y + STEP[way][1]
            turns = ((way - 1) % 4, way, (way + 1) % 4)
            following[here] = next(number[(*end, turn)] for turn in turns if (*end, turn) in number)
            loop.append(here)
            here = following[here]
        loops.append(loop)
    return loops, following


def _is_hole(loop: list[int], cracks: list[Crack]) -> bool:
    """Whether a walk goes against the clock, by its signed area."""
    return sum(x * STEP[way][1] for x, _, way in (cracks[index] for index in loop)) < 0


def _cut(
    loop: list[int], cracks: list[Crack], number: dict[Crack, int], following: list[int], mask: np.ndarray
) -> None:
    """Join a hole with what lies left of it: the part's outline, or another hole.

    Both cracks at the ends of the cut are split in their middle: the walk comes along the first half of the one, goes
    over, around the hole, back, and on along the other half.
    """
    left = min((index for index in loop if cracks[index][2] == DOWN), key=lambda index: cracks[index])
    x, row, _ = cracks[left]
    off = np.flatnonzero(~mask[row, :x])
    host = number[(int(off[-1]) + 1 if len(off) else 0, row + 1, UP)]
    for crack in (left, host):  # their second halves
        following.append(following[crack])
        cracks.append(cracks[crack])
    following[host], following[left] = len(cracks) - 2, len(cracks) - 1


def _points(first: int, cracks: list[Crack], number: dict[Crack, int], following: list[int]) -> Polygon:
    """The corners of a closed walk, each INSET into its pixel."""
    points, here = [], first
    while True:
        after = following[here]
        points += _corner(cracks[here], cracks[after], number)
        here = after
        if here == first:
            return points


def _corner(one: Crack, other: Crack, number: dict[Crack, int]) -> Polygon:
    """What the outline needs between two cracks: nothing where it goes straight on."""
    (x, y, way), turn = one, other[2]
    if way == turn:
        return []
    if {way, turn} == {UP, DOWN}:  # a cut
        return [_middle(one), _middle(other)]
    end = x + STEP[way][0], y + STEP[way][1]
    (right, down), (new_right, new_down) = STEP[(way + 1) % 4], STEP[(turn + 1) % 4]
    if turn == (way - 1) % 4 and (*end, (way + 1) % 4) in number:  # over the corner, from pixel to pixel
        right, down = right - STEP[way][0], down - STEP[way][1]
        return [_inset(end, right, down), _inset(end, -right, -down)]
    return [_inset(end, right + new_right, down + new_down)]


def _middle(crack: Crack) -> tuple[float, float]:
    """The middle of an upright crack, inset."""
    x, y, way = crack
    return _inset((x, y + STEP[way][1] / 2), STEP[(way + 1) % 4][0], 0)


def _inset(at: tuple[float, float], right: int, down: int) -> tuple[float, float]:
    return round(at[0] + INSET * right, 2), round(at[1] + INSET * down, 2)
