"""Paired augmentation of shots: flips, rotation, crop; the defect stays inside the frame (METHOD 2, "Training facts").

A view maps the target frame, u in [-1/2, 1/2]^2, onto the photo: p = c + R(angle) (extent * u), in pixels. Image and
mask go through the same view; beyond the photo's border both are reflected, so that they stay paired there too.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..geometry import CONTEXT, MINIMUM_SIDE, Box, context_box, crop_resize, resize_mask

MAX_ANGLE = 20.0
"""Largest rotation, degrees either way (the release)."""
PROBABILITY = 0.5
"""Chance of each change (the release)."""
CROP_ZOOM, CROP_SHIFT = 1.25, 0.25
"""Largest zoom of a crop, either way, and shift as a share of its side."""
FRAME_ZOOM, FRAME_SHIFT = 1.1, 0.1
"""The same for the whole frame."""
MASK_DENSITY = math.sqrt(2)
"""Samples a pixel of the photo's side: with fewer a rotated grid can step over a pixel of the mask."""


class View(NamedTuple):
    """What a view shows: its centre and extent (x, y; pixels of the photo), rotation (radians), and flipped axes."""

    centre: np.ndarray
    extent: np.ndarray
    angle: float
    flips: tuple[int, ...]


def augment_pair(
    image: np.ndarray, mask: np.ndarray, size: int, rng: np.random.Generator, **how: Any
) -> tuple[np.ndarray, np.ndarray]:
    """One random view of a shot at the model's size; how: as `draw_view` takes it.

    image: (H, W, 3) uint8. mask: (H, W) bool, not empty (InputError). size: pixels.
    Returns (size, size, 3) uint8 and (size, size) bool.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image of {image.shape[1]}x{image.shape[0]} with a mask of {mask.shape[1]}x{mask.shape[0]}")
    view = draw_view(mask, size, rng, **how)
    return view_image(image, view, size), view_mask(mask, view, size)


def augment_mask(mask: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """One random view of a mask in its whole frame, so that place and size stay about what they are.

    mask: (H, W) bool, not empty (InputError). size: pixels. Returns (size, size) bool.
    """
    return view_mask(mask, draw_view(mask, size, rng, crop=False), size)


def draw_view(
    mask: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    crop: bool = True,
    context: float = CONTEXT,
    minimum: int = MINIMUM_SIDE,
    p: float = PROBABILITY,
    max_angle: float = MAX_ANGLE,
) -> View:
    """Draw a view of a mask's photo; each change (flips, rotation, zoom, shift) comes with chance p.

    mask: (H, W) bool, not empty (InputError). size, minimum: pixels. crop: view the context box of the mask
    (`context_box`) rather than the whole frame. max_angle: degrees. The whole mask is inside every view, and none of
    its parts vanishes. With p = 0 the view is the context box, or the frame, itself.
    """
    mask = mask.astype(bool)
    height, width = mask.shape
    box = context_box(mask, size, context=context, minimum=minimum)
    if not crop:
        box = Box(0, 0, width, height)
    # always the same number of draws, so that p and crop do not change which numbers later calls see
    chances, draws = rng.random(5) < p, rng.uniform(-1, 1, size=4)
    zoom, shift = (CROP_ZOOM, CROP_SHIFT) if crop else (FRAME_ZOOM, FRAME_SHIFT)
    angle = math.radians(max_angle * draws[0]) if chances[0] else 0.0
    scale = zoom ** draws[1] if chances[1] else 1.0
    shifts = shift * draws[2:] if chances[2] else np.zeros(2)
    centre, extent = _fit_view(mask, box, angle, scale, shifts)
    return View(centre, extent, angle, tuple(axis for axis in (0, 1) if chances[3 + axis]))


def view_image(image: np.ndarray, view: View, size: int) -> np.ndarray:
    """A view of an image, (H, W, 3) uint8 -> (size, size, 3) uint8."""
    if view.angle:
        factor = max(1, math.ceil(float(view.extent.max()) / size))
        # where the view is shrunk anyway, its average makes up for the plainer interpolation
        method = Image.Resampling.BICUBIC if factor == 1 else Image.Resampling.BILINEAR
        seen = _rotated(image, view, size * factor, method)
        if factor > 1:
            seen = np.array(Image.fromarray(seen).reduce(factor))
    else:
        cut = _upright(image, view)
        seen = crop_resize(cut, Box(0, 0, cut.shape[1], cut.shape[0]), size)
    return np.ascontiguousarray(np.flip(seen, view.flips))


def view_mask(mask: np.ndarray, view: View, size: int) -> np.ndarray:
    """A view of a mask, (H, W) bool -> (size, size) bool; none of its parts vanishes."""
    if view.angle:
        dense = max(1, math.ceil(MASK_DENSITY * float(view.extent.max()) / size)) * size
        seen = _rotated(mask.astype(np.uint8), view, dense, Image.Resampling.NEAREST) > 0
    else:
        seen = _upright(mask.astype(bool), view)
    return np.ascontiguousarray(np.flip(resize_mask(seen, size, size), view.flips))


def _turn(angle: float) -> np.ndarray:
    """Matrix (2, 2) that turns a point (x, y) of the view into the photo's axes."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _fit_view(mask: np.ndarray, box: Box, angle: float, scale: float, shifts: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Centre and extent (x, y; pixels) of a view: the box, scaled and shifted, inside the photo if it can be, and
    holding the whole mask in any case."""
    turn = _turn(angle)
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    # the ends of each row, in the view's axes: no point between them is further out
    points = np.stack([np.concatenate([first, last]) + 0.5, np.concatenate([rows, rows]) + 0.5], axis=1) @ turn
    margin = np.abs(turn).sum(axis=0) / 2  # half a pixel's own extent there
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    whole = np.array([mask.shape[1], mask.shape[0]], dtype=np.float64)
    extent = np.maximum(np.array([box.width, box.height]) * scale, high - low)
    if not angle:
        extent = np.ceil(extent)
    centre = np.array([box.left + box.right, box.top + box.bottom]) / 2 + turn @ (shifts * extent)
    reach = np.abs(turn) @ extent / 2
    centre = np.where(2 * reach <= whole, np.clip(centre, reach, whole - reach), centre)
    centre = turn @ np.clip(centre @ turn, high - extent / 2, low + extent / 2)
    return centre, extent


def _reflected(start: int, stop: int, length: int) -> np.ndarray:
    """Indices start..stop-1 into an axis of `length`, reflected at both its ends."""
    index = np.arange(start, stop) % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)


def _window(array: np.ndarray, box: Box) -> np.ndarray:
    """Cut out a box that may reach beyond the array."""
    if box.left >= 0 and box.top >= 0 and box.right <= array.shape[1] and box.bottom <= array.shape[0]:
        return array[box.slices]
    rows = _reflected(box.top, box.bottom, array.shape[0])
    return array[np.ix_(rows, _reflected(box.left, box.right, array.shape[1]))]


def _upright(array: np.ndarray, view: View) -> np.ndarray:
    """What a view without rotation shows, on whole pixels: exactly what the crop gives elsewhere."""
    width, height = (int(round(side)) for side in view.extent)
    # the mask's own edges are whole pixels, so that rounding cannot push it out
    left, top = (math.floor(c - side / 2 + 0.5) for c, side in zip(view.centre, (width, height), strict=True))
    return _window(array, Box(left, top, left + width, top + height))


def _rotated(array: np.ndarray, view: View, side: int, method: Image.Resampling) -> np.ndarray:
    """What a rotated view shows, sampled side x side times; for both uses at least as densely as the photo."""
    turn = _turn(view.angle)
    reach = np.abs(turn) @ view.extent / 2
    corner = np.floor(view.centre - reach).astype(int) - 2  # room for the interpolation's neighbours
    far = np.ceil(view.centre + reach).astype(int) + 2
    step = turn * (view.extent / side)  # columns: one sample to the right, one down
    start = view.centre - corner - turn @ (view.extent / 2)
    matrix = (step[0, 0], step[0, 1], start[0], step[1, 0], step[1, 1], start[1])
    cut = _window(array, Box(*(int(edge) for edge in (*corner, *far))))
    picture = Image.fromarray(np.ascontiguousarray(cut))
    return np.array(picture.transform((side, side), Image.Transform.AFFINE, matrix, resample=method))
