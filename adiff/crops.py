"""Crops: what the model sees of a photo, one view for a whole mask or one for each of its parts, and the way back.

| symbol | meaning | shape |
|---|---|---|
| m | mask of a photo, 1 = paint here | (H, W) bool |
| native | side of the image the model was trained on | pixels |

Parts are 8-connected. A small part far from the others gets a view of its own, as large as the model sees best; in one
view of them all it would cover too few latent cells to be painted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from .errors import InputError
from .geometry import (
    CONTEXT,
    EIGHT,
    MAX_ENLARGEMENT,
    MINIMUM_SIDE,
    Box,
    box_around,
    box_of,
    context_box,
    feather,
    mask_box,
)
from .scoring import area, border, components

NEAR, EACH, TOGETHER = PARTS = ("near together", "one by one", "together")
"""Parts near each other share a crop and far ones have their own; a crop for each part; one crop for the whole mask."""
REACH = 1.5
"""Parts are near if a common crop is at most this much longer than the longer one of their own, ..."""
SPAN = 6
"""... or at most this many times as long as the smallest part."""
MOST = 256
"""Parts that are looked at one by one; more are a texture, not defects."""
WORST = {"leak": max, "seam": max, "likeness": max, "novelty": min}
"""Which of several crops' measures stands for their photo."""


class Crop(NamedTuple):
    """A view of a photo: its box there, and what is to be painted in it, (box.height, box.width) bool."""

    box: Box
    mask: np.ndarray

    @property
    def bounds(self) -> Box:
        """Bounding box of what is painted, in the photo."""
        inner = mask_box(self.mask)
        left, top = self.box.left, self.box.top
        return Box(left + inner.left, top + inner.top, left + inner.right, top + inner.bottom)


def crops_of(mask: np.ndarray, native: int, parts: str = NEAR, *, context: float = CONTEXT) -> list[Crop]:
    """Views to paint a mask in, one of `PARTS`; each holds its part whole, and every pixel is painted in exactly one.

    mask: (H, W) bool. native: pixels. context: a view's side in longest sides of what is painted in it (`context_box`).
    Raises InputError for an empty mask, an unknown kind, and more than MOST parts one by one.
    """
    if parts not in PARTS:
        raise InputError(f"parts {parts!r} is unknown; choose one of {', '.join(PARTS)}")
    bounds = mask_box(mask)
    labels, count = ndimage.label(mask[bounds.slices], structure=EIGHT)
    if parts == EACH and count > MOST:
        raise InputError(
            f"the mask has {count} separate parts, at most {MOST} are painted one by one; choose {NEAR!r} or "
            f"{TOGETHER!r}, or clean the mask"
        )
    if parts == TOGETHER or count == 1 or count > MOST:
        box = context_box(mask, native, context=context)
        return [Crop(box, mask[box.slices])]
    boxes = [
        Box(x.start + bounds.left, y.start + bounds.top, x.stop + bounds.left, y.stop + bounds.top)
        for y, x in ndimage.find_objects(labels)
    ]
    groups = [[part] for part in range(count)] if parts == EACH else near_groups(boxes, mask.shape, native, context)
    return [_crop(labels, bounds, [boxes[n] for n in group], group, mask.shape, native, context) for group in groups]


def near_groups(boxes: Sequence[Box], shape: tuple[int, int], native: int, context: float = CONTEXT) -> list[list[int]]:
    """Join parts, the nearest first, as long as a common crop is not much longer than need be (REACH, SPAN).

    boxes: bounding boxes of the parts. Returns the parts' numbers by group, both in rising order.
    """
    groups = [[part] for part in range(len(boxes))]
    bounds = np.array(boxes, dtype=np.int64).reshape(-1, 4)
    least = (bounds[:, 2:] - bounds[:, :2]).max(-1)  # longest side of each group's smallest part
    while len(groups) > 1:
        low = np.minimum(bounds[:, None, :2], bounds[None, :, :2])
        high = np.maximum(bounds[:, None, 2:], bounds[None, :, 2:])
        common = _side((high - low).max(-1), shape, native, context)
        own = np.diag(common)
        most = np.maximum(REACH * np.maximum.outer(own, own), SPAN * np.minimum.outer(least, least))
        distance = common / most
        distance[np.tril_indices(len(groups))] = np.inf
        first, second = np.unravel_index(int(distance.argmin()), distance.shape)
        if distance[first, second] > 1:
            break
        bounds[first] = *low[first, second], *high[first, second]
        least[first] = min(least[first], least[second])
        bounds, least = np.delete(bounds, second, axis=0), np.delete(least, second)
        groups[first] = sorted(groups[first] + groups.pop(second))
    return sorted(groups)


def _side(longest: np.ndarray, shape: tuple[int, int], native: int, context: float) -> np.ndarray:
    """Sides of the crops around bounding boxes by their longest side (`box_around`), without rounding."""
    side = np.maximum(context * longest, max(MINIMUM_SIDE, native // MAX_ENLARGEMENT))
    return np.minimum(side, np.maximum(min(shape), longest))


def _crop(
    labels: np.ndarray,
    whole: Box,
    boxes: Sequence[Box],
    group: Sequence[int],
    shape: tuple[int, int],
    native: int,
    context: float,
) -> Crop:
    """The view of some parts. labels: of the mask within its bounding box, `whole`; boxes: of the parts."""
    bounds = box_of(boxes)
    box = box_around(bounds, shape, native, context=context)
    wanted = np.zeros(int(labels.max()) + 1, dtype=bool)
    wanted[[part + 1 for part in group]] = True
    mask = np.zeros((box.height, box.width), dtype=bool)
    mask[within(bounds, box).slices] = wanted[labels[within(bounds, whole).slices]]
    return Crop(box, mask)


def within(box: Box, other: Box) -> Box:
    """A box of the photo in the pixels of another one."""
    return Box(box.left - other.left, box.top - other.top, box.right - other.left, box.bottom - other.top)


def blend_weight(crop: Crop, shape: tuple[int, int], radius: float, native: int) -> np.ndarray:
    """The feather of what a crop paints (`geometry.feather`), as on the whole photo, in the memory of the crop.

    shape: (H, W) of the photo. radius: pixels of the model's image, whose side is `native`. Returns (box.height,
    box.width) float32 in [0, 1].
    """
    bounds = crop.bounds
    ring = Box(max(bounds.left - 1, 0), max(bounds.top - 1, 0), min(bounds.right + 1, shape[1]),
               min(bounds.bottom + 1, shape[0]))  # fmt: skip
    mask, weight = np.zeros((ring.height, ring.width), dtype=bool), np.zeros(crop.mask.shape, dtype=np.float32)
    inside, painted = within(bounds, ring).slices, within(bounds, crop.box).slices
    mask[inside] = crop.mask[painted]
    weight[painted] = feather(mask, radius * max(crop.box.width, crop.box.height) / native)[inside]
    return weight


def join_measures(measures: Sequence[Mapping[str, Any]], crops: Sequence[Crop], mask: np.ndarray) -> dict[str, Any]:
    """Measures of a photo from those of its crops (METHOD 6); mask: the photo's, (H, W) bool.

    fill is the mean by area, which is the share of all pixels painted; of the others the worst counts. area, components
    and border are the mask's own. Several crops' measures are kept as `parts`.
    """
    sizes = [int(crop.mask.sum()) for crop in crops]
    common = [name for name in measures[0] if all(isinstance(one.get(name), (int, float)) for one in measures)]
    joined = {name: measures[0][name] for name in common}
    for name in common:
        values = [one[name] for one in measures]
        if name == "fill":
            joined[name] = float(np.average(values, weights=sizes))
        elif name in WORST:
            joined[name] = WORST[name](values)
    joined |= {"area": area(mask), "components": float(components(mask)), "border": border(mask)}
    return joined if len(measures) == 1 else {**joined, "parts": [dict(one) for one in measures]}
