"""Geometry: the crop around a mask, the stitch back, the feathered paste.

| symbol | meaning | shape |
|---|---|---|
| m | binary mask, True = paint here | (H, W) bool |
| native | side of the image the model was trained on | pixels |
| alpha | share of the generated image in the output | (H, W) float32 in [0, 1] |

Images are NumPy arrays, rows first; boxes are (left, top, right, bottom) in pixels, half open.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage, sparse

from .errors import InputError

CONTEXT = 2.5
"""Side of the crop, as a multiple of the mask's longest side."""
MINIMUM_SIDE = 32
"""Least side of the crop, pixels of the photo."""
MAX_ENLARGEMENT = 4
"""A crop is enlarged at most this much: beyond it the model sees blur, not the surface."""
FEW_CELLS = 16
"""A mask over fewer latent cells than this is painted in a crop."""
THIN_LOSS = 0.5
"""A part of a mask that loses more than this share of its pixels in a resize counts as thin."""
EIGHT = np.ones((3, 3), dtype=bool)
"""Neighbours that make pixels one part."""
STRIPE = 256
"""Columns of a mask that are weighed at a time."""
FEATHER_STEP = 2
"""Ratio of neighbouring feather radii tried on the thin parts of a mask."""


class Box(NamedTuple):
    """A rectangle of pixels, half open: columns left..right-1, rows top..bottom-1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an array (H, W, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def mask_box(mask: np.ndarray) -> Box:
    """Bounding box of a mask, (H, W) bool; InputError for an empty one."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise InputError(f"the mask ({mask.shape[1]}x{mask.shape[0]}) is empty; it must mark at least one pixel")
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def box_of(boxes: Sequence[Box]) -> Box:
    """The least box around others."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return Box(min(lefts), min(tops), max(rights), max(bottoms))


def _place(start: int, stop: int, length: int, limit: int) -> tuple[int, int]:
    """Interval of `length` around [start, stop), shifted into [0, limit); stop - start <= length <= limit."""
    first = min(max((start + stop - length) // 2, 0), limit - length)
    return first, first + length


def context_box(mask: np.ndarray, native: int, *, context: float = CONTEXT, minimum: int = MINIMUM_SIDE) -> Box:
    """Box around a mask to be generated at the model's own size: square, or as square as the image allows.

    Its side is `context` times the longest side of the mask's bounding box, at least `minimum` and native /
    MAX_ENLARGEMENT, at most the image's short side unless the bounding box itself is longer. It lies inside the image
    and always contains the mask.

    mask: (H, W) bool, not empty (InputError). native, minimum: pixels. context: at least 1.
    """
    return box_around(mask_box(mask), mask.shape, native, context=context, minimum=minimum)


def box_around(
    bounds: Box, shape: tuple[int, int], native: int, *, context: float = CONTEXT, minimum: int = MINIMUM_SIDE
) -> Box:
    """`context_box` of a mask of which the bounding box and the image's shape (H, W) are known."""
    if context < 1:
        raise ValueError(f"context {context}; expected 1 or more, as a multiple of the mask's longest side")
    height, width = shape
    longest = max(bounds.width, bounds.height)
    side = max(math.ceil(context * longest), minimum, native // MAX_ENLARGEMENT)
    side = min(side, max(min(height, width), longest))
    left, right = _place(bounds.left, bounds.right, min(side, width), width)
    top, bottom = _place(bounds.top, bounds.bottom, min(side, height), height)
    return Box(left, top, right, bottom)


def needs_crop(mask: np.ndarray, native: int, downscale: int) -> bool:
    """Whether a mask is to be painted in a crop: the image exceeds the model's size, or the mask covers few cells.

    mask: (H, W) bool. native: pixels. downscale: pixels of a latent cell. Cells are counted by area, as they would be
    with the whole image resized to native x native.
    """
    if max(mask.shape) > native:
        return True
    return float(mask.mean()) * (native / downscale) ** 2 < FEW_CELLS


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 by Lanczos, antialiased; the size it has already gives an exact copy."""
    if image.shape[:2] == (height, width):
        return image.copy()
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(resized)


def _check_box(box: Box, shape: tuple[int, ...]) -> None:
    if not (0 <= box.left < box.right <= shape[1] and 0 <= box.top < box.bottom <= shape[0]):
        raise ValueError(f"box {tuple(box)} does not lie in an image of {shape[1]}x{shape[0]}")


def crop_resize(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Cut a box out of an image and resize it to the model's size.

    image: (H, W, 3) uint8. size: pixels. Returns (size, size, 3) uint8; a box of that size is copied exactly.
    """
    _check_box(box, image.shape)
    return resize_image(image[box.slices], size, size)


def _overlap(source: int, target: int) -> sparse.csc_array:
    """Shares of `source` cells in each of `target` cells over the same length; (target, source), rows sum to 1."""
    edges = np.sort(np.concatenate([np.arange(target + 1) * (source / target), np.arange(source + 1.0)]))
    middle = (edges[:-1] + edges[1:]) / 2  # each piece between two edges lies in one cell of both
    of_target = np.minimum((middle * (target / source)).astype(int), target - 1)
    of_source = np.minimum(middle.astype(int), source - 1)
    shares = np.diff(edges) * (target / source)
    return sparse.csc_array((shares, (of_target, of_source)), shape=(target, source))


def _shares(rows: sparse.csc_array, mask: np.ndarray, columns: sparse.csc_array) -> np.ndarray:
    """Share of each target cell that a mask covers; stripes of it, as floats, fit the processor's cache."""
    stripes = [mask[:, left : left + STRIPE].view(np.uint8) for left in range(0, mask.shape[1], STRIPE)]
    # in the order of rows, which scipy's product is not: what is made of it goes into files and tensors
    return np.ascontiguousarray(np.concatenate([rows @ stripe for stripe in stripes], axis=1) @ columns.T)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a mask by exact area: a target pixel is on from half covered, in thin parts from any cover at all.

    Thin is a connected part that would fall to pieces or lose more than half of its pixels; so no part of a mask ever
    vanishes, and a scratch is never broken into dots.

    mask: (H, W) bool. Returns (height, width) bool.
    """
    mask = mask.astype(bool)
    if mask.shape == (height, width) or not mask.any():
        return mask if mask.shape == (height, width) else np.zeros((height, width), dtype=bool)
    box = mask_box(mask)  # beyond it there is nothing to weigh, and it is most of a photo
    rows = _overlap(mask.shape[0], height)[:, box.top : box.bottom]
    columns = _overlap(mask.shape[1], width)[:, box.left : box.right]
    # the target pixel over each source pixel's centre: where it is off, that source pixel is lost
    y = ((np.arange(box.top, box.bottom) + 0.5) * height / mask.shape[0]).astype(int)
    x = ((np.arange(box.left, box.right) + 0.5) * width / mask.shape[1]).astype(int)
    mask = mask[box.slices]
    kept = _shares(rows, mask, columns) >= 0.5 - 1e-9
    stays = kept[np.ix_(y, x)]
    lost, met = mask & ~stays, mask & stays
    if not lost.any():
        return kept
    labels, count = ndimage.label(mask, structure=EIGHT)
    losses = np.bincount(labels[lost], minlength=count + 1)
    pieces, _ = ndimage.label(kept, structure=EIGHT)
    part, piece = labels[met], pieces[np.ix_(y, x)][met]
    thin = losses > THIN_LOSS * (losses + np.bincount(part, minlength=count + 1))
    one = np.zeros(count + 1, dtype=piece.dtype)
    one[part] = piece  # any of a part's pieces: all of them, unless it is broken
    thin[part[piece != one[part]]] = True
    if not thin.any():
        return kept
    return kept | (_shares(rows, thin[labels] & mask, columns) > 1e-9)


def crop_mask(mask: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Cut a box out of a mask and resize it (`resize_mask`); (H, W) bool -> (size, size) bool."""
    _check_box(box, mask.shape)
    return resize_mask(mask[box.slices], size, size)


def stitch(base: np.ndarray, patch: np.ndarray, box: Box) -> np.ndarray:
    """Resize a patch back into its box of a copy of the base.

    base: (H, W, 3) uint8. patch: (s, s, 3) uint8. Returns (H, W, 3) uint8, the base's own pixels outside the box.
    """
    _check_box(box, base.shape)
    out = base.copy()
    out[box.slices] = resize_image(patch, box.height, box.width)
    return out


def feather(mask: np.ndarray, radius: float) -> np.ndarray:
    """Blend weight of a mask: exactly 0 outside, rising to 1 over `radius` pixels inside it.

    Where the mask is thinner than that, the radius shrinks to the local half width (the largest disc in the mask that
    covers the pixel), so that a scratch one pixel wide still gets its full colour. The image's border is no border of
    the mask.

    mask: (H, W) bool. radius: pixels; 1 or less gives the mask itself. Returns (H, W) float32 in [0, 1].
    """
    mask = mask.astype(bool)
    alpha = mask.astype(np.float32)
    if radius <= 1 or not mask.any() or mask.all():
        return alpha
    bounds = mask_box(mask)
    height, width = mask.shape
    # one ring of outside pixels is enough: none further out can be nearer
    ring = Box(max(bounds.left - 1, 0), max(bounds.top - 1, 0), min(bounds.right + 1, width),
               min(bounds.bottom + 1, height)).slices  # fmt: skip
    inside = mask[ring]
    distance = ndimage.distance_transform_edt(inside)
    ramp = np.ones_like(distance)
    todo, reach = inside.copy(), float(radius)
    while reach > 1 and todo.any():
        core = distance >= reach
        if core.any():
            covered = todo & (ndimage.distance_transform_edt(~core) < reach)
            ramp[covered] = np.minimum(distance[covered] / reach, 1)
            todo &= ~covered
        reach /= FEATHER_STEP
    alpha[ring] = np.where(inside, ramp, 0)
    return alpha


def paste_back(normal: np.ndarray, generated: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay the generated image over the normal one; bit-identical to it where alpha is 0 (METHOD 2, Eq. 1).

    normal, generated: (H, W) or (H, W, C), both uint8 or both uint16. alpha: (H, W) in [0, 1].
    Returns the same kind, rounded to the nearest level.
    """
    if normal.shape != generated.shape or normal.dtype != generated.dtype:
        raise ValueError(f"normal image {normal.shape} {normal.dtype}, generated {generated.shape} {generated.dtype}; "
                         "expected the same shape and type")  # fmt: skip
    if alpha.shape != normal.shape[:2]:
        raise ValueError(f"alpha of shape {alpha.shape} for an image of shape {normal.shape}; expected (H, W) alike")
    if normal.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"images of type {normal.dtype}; expected uint8 or uint16")
    weight = alpha.astype(np.float64).reshape(alpha.shape + (1,) * (normal.ndim - 2))
    # float64 holds every level, so that a weight of 0 gives back the very pixel
    return np.rint(normal + weight * (generated.astype(np.float64) - normal)).astype(normal.dtype)
