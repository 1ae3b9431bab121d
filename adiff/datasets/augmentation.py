"""Paired augmentation of shots: flips, rotation, crop; the defect stays inside the frame (METHOD 2, "Training facts").

A view maps the target frame, u in [-1/2, 1/2]^2, onto the photo: p = c + R(angle) (extent * u), in pixels. Image and
mask go through the same view; beyond the photo's border both are reflected, so that they stay paired there too.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ..geometry import CONTEXT, MINIMUM_SIDE, Box, context_box, crop_mask, crop_resize, resize_mask

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


def augment_pair(
    image: np.ndarray,
    mask: np.ndarray,
    size: int,
    rng: np.random.Generator,
    *,
    crop: bool = True,
    context: float = CONTEXT,
    minimum: int = MINIMUM_SIDE,
    p: float = PROBABILITY,
    max_angle: float = MAX_ANGLE,
) -> tuple[np.ndarray, np.ndarray]:
    """One random view of a shot at the model's size; each change (flips, rotation, zoom, shift) comes with chance p.

    image: (H, W, 3) uint8. mask: (H, W) bool, not empty (InputError). size, minimum: pixels. crop: view the context box
    of the mask (`context_box`) rather than the whole frame. max_angle: degrees. The whole mask is inside every view,
    and none of its parts vanishes. With p = 0 the view is the context box, or the frame, itself.

    Returns (size, size, 3) uint8 and (size, size) bool.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"image of {image.shape[1]}x{image.shape[0]} with a mask of {mask.shape[1]}x{mask.shape[0]}")
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
    if angle:
        view = _rotated_view(image, mask, size, centre, extent, angle)
    else:
        view = _upright_view(image, mask, size, centre, extent)
    for axis, flipped in zip((0, 1), chances[3:], strict=True):
        if flipped:
            view = tuple(np.flip(array, axis) for array in view)
    return np.ascontiguousarray(view[0]), np.ascontiguousarray(view[1])


def _turn(angle: float) -> np.ndarray:
    """Matrix (2, 2) that turns a point (x, y) of the view into the photo's axes."""
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _fit_view(mask: np.ndarray, box: Box, angle: float, scale: float, shifts: np.ndarray
              ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Centre and extent (x, y; pixels) of a view: the box, scaled and shifted, inside the photo if it can be, and
    holding the whole mask in any case."""
    turn = _turn(angle)
    rows, columns = np.nonzero(mask)
    points = np.stack([columns + 0.5, rows + 0.5], axis=1) @ turn  # each point in the view's axes
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
    rows = _reflected(box.top, box.bottom, array.shape[0])
    return array[np.ix_(rows, _reflected(box.left, box.right, array.shape[1]))]


def _upright_view(image: np.ndarray, mask: np.ndarray, size: int, centre: np.ndarray, extent: np.ndarray
                  ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A view without rotation, on whole pixels: exactly what the crop and the mask's resize give elsewhere."""
    width, height = (int(round(side)) for side in extent)
    # the mask's own edges are whole pixels, so that rounding cannot push it out
    left, top = math.floor(centre[0] - width / 2 + 0.5), math.floor(centre[1] - height / 2 + 0.5)
    cut, whole = Box(left, top, left + width, top + height), Box(0, 0, width, height)
    return crop_resize(_window(image, cut), whole, size), crop_mask(_window(mask, cut), whole, size)


def _rotated_view(image: np.ndarray, mask: np.ndarray, size: int, centre: np.ndarray, extent: np.ndarray, angle: float
                  ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A rotated view: sampled at least as densely as the photo, then brought to the size by area."""
    turn = _turn(angle)
    reach = np.abs(turn) @ extent / 2
    corner = np.floor(centre - reach).astype(int) - 2  # room for the interpolation's neighbours
    far = np.ceil(centre + reach).astype(int) + 2
    cut = Box(int(corner[0]), int(corner[1]), int(far[0]), int(far[1]))

    def sample(array: np.ndarray, side: int, method: Image.Resampling) -> np.ndarray:
        step = turn * (extent / side)  # columns: one sample to the right, one down
        start = centre - corner - turn @ (extent / 2)
        matrix = (step[0, 0], step[0, 1], start[0], step[1, 0], step[1, 1], start[1])
        picture = Image.fromarray(np.ascontiguousarray(_window(array, cut)))
        return np.array(picture.transform((side, side), Image.Transform.AFFINE, matrix, resample=method))

    longest = float(extent.max())
    factor = max(1, math.ceil(longest / size))
    # where the view is shrunk anyway, its average makes up for the plainer interpolation
    pixels = sample(image, size * factor, Image.Resampling.BICUBIC if factor == 1 else Image.Resampling.BILINEAR)
    if factor > 1:
        pixels = np.array(Image.fromarray(pixels).reduce(factor))
    dense = max(1, math.ceil(MASK_DENSITY * longest / size)) * size
    marks = sample(mask.astype(np.uint8), dense, Image.Resampling.NEAREST) > 0
    return pixels, resize_mask(marks, size, size)
