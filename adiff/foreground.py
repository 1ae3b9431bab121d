"""Foregrounds found by themselves: where the object is in normal images.

| symbol | meaning | shape |
|---|---|---|
| y | normal images | (H, W, 3) uint8, or (H, W, 4) with transparency |
| c | colour of the background: a plane through the border line's pixels, levels | (H, W, 3) |
| d | distance from c: the largest over the channels, levels | (H, W) |
| v | variation: deviation across aligned normals, mean over the channels, smoothed, levels | (H, W) |

Every way either tells the object from the background for sure, or says why it cannot: a defect beside the object is
worse than a question.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple, TypeVar

import numpy as np
from scipy import ndimage

from .errors import InputError
from .masks import clean_mask
from .refinement import otsu

AUTOMATIC, ALPHA, BORDER, CONSTANT, WHOLE = WAYS = (
    "automatic", "alpha", "border colour", "constant part", "whole picture",
)  # fmt: skip
"""The first of the next three that works; the transparency; what differs from the border's colour; what is the same in
all normals; everything."""
OPAQUE = 128
"""Alpha from which a pixel belongs to the object."""
LEAST_DISTANCE = 20.0
"""Levels by which an object differs from its background, at least."""
NOISE = 4.0
"""Deviations of the border from c that count as background."""
SAME_BORDER = 0.6
"""Share of the border line that has the background's colour, at least; the object may cover the rest."""
ROUNDS = 4
"""Times that c is fitted, each time to the pixels near the last one."""
CLEAR = 2.0
"""How many times as far from c as (nearly) all of the background an object is, at least."""
SPECK = 0.003
"""Share of the image below which a part of a foreground is dropped, and a hole in it closed."""
SOLID = 0.02
"""Share of an object's area that a disc in it must have: less is an outline or a shadow of what was not found."""
LEAST, MOST = 0.01, 0.97
"""Shares of the image that an object covers."""
ALIGNED = 3
"""Normals that it takes to see what is constant."""
CONTRAST = 2.5
"""How many times as much as the constant part the rest varies, at least."""
MAD = 1.4826
"""Deviation of normal noise, in its median absolute deviations."""
HINT = f"give masks of the object, or choose {WHOLE!r} if the surface fills it"


Found = TypeVar("Found")


class Foregrounds(NamedTuple):
    """masks: (H, W) bool, one for each normal; way: one of `WAYS` that found them."""

    masks: list[np.ndarray]
    way: str


def find_foregrounds(normals: Sequence[np.ndarray], way: str = AUTOMATIC) -> Foregrounds:
    """Find the object in normal images; raises InputError that says why it was not found, and what to do."""
    _check(normals, way)
    if way == WHOLE:
        return Foregrounds([np.ones(image.shape[:2], dtype=bool) for image in normals], way)
    return _first(way, lambda name: Foregrounds(FINDERS[name](normals), name))


def _check(normals: Sequence[np.ndarray], way: str) -> None:
    if way not in WAYS:
        raise InputError(f"foreground {way!r} is unknown; choose one of {', '.join(WAYS)}")
    if not len(normals):
        raise InputError("no normal images to find the object in; give at least one")


def _first(way: str, attempt: Callable[[str], Found]) -> Found:
    """What the first way that works comes to; the automatic way is to try all of them."""
    if way != AUTOMATIC:
        return attempt(way)
    reasons = []
    for name in FINDERS:
        try:
            return attempt(name)
        except InputError as error:
            reasons.append(f"{name}: {str(error).removesuffix(f'; {HINT}')}")
    raise InputError(f"the object was not found ({'; '.join(reasons)}); {HINT}")


@dataclass(frozen=True, eq=False)
class ForegroundFinder:
    """Finds the object in normal images one by one, in a way that finds it in most of some of them.

    way: one of `WAYS`, not automatic. constant: what is constant in those, (H, W) bool, where that is the way.
    """

    way: str
    constant: np.ndarray | None = None

    @classmethod
    def of(cls, normals: Sequence[np.ndarray], way: str = AUTOMATIC) -> ForegroundFinder:
        """Choose the way by some normal images; raises InputError where the object is found in fewer than half."""
        _check(normals, way)
        if way == WHOLE:
            return cls(way)
        return _first(way, lambda name: cls._by(name, normals))

    @classmethod
    def _by(cls, way: str, normals: Sequence[np.ndarray]) -> ForegroundFinder:
        if way == CONSTANT:
            return cls(way, by_constancy(normals)[0])
        finder, reasons = cls(way), []
        for normal in normals:
            try:
                finder.find(normal)
            except InputError as error:
                reasons.append(str(error))
        if 2 * len(reasons) > len(normals):
            raise InputError(f"not found in {len(reasons)} of {len(normals)} normals, the first: {reasons[0]}")
        return finder

    def find(self, normal: np.ndarray) -> np.ndarray:
        """The object in one image, (H, W) bool; InputError where it is not found, or `constant` has another size."""
        if self.constant is None:
            try:
                return find_foregrounds([normal], self.way).masks[0]
            except InputError as error:
                raise InputError(str(error).replace("normal 1 of 1", "the image")) from None
        if self.constant.shape != normal.shape[:2]:
            sides = [f"{shape[1]} x {shape[0]}" for shape in (normal.shape, self.constant.shape)]
            raise InputError(f"it is {sides[0]}, the images whose constant part is the object are {sides[1]}; {HINT}")
        return self.constant


def by_alpha(normals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is opaque; InputError if an image has no transparency, or is all transparent."""
    masks = []
    for number, image in enumerate(normals, 1):
        mask = image[:, :, 3] >= OPAQUE if image.shape[2] == 4 else np.ones(image.shape[:2], dtype=bool)
        if mask.all() or not mask.any():
            state = "is all transparent" if not mask.any() else "has no transparency"
            raise InputError(f"normal {number} of {len(normals)} {state}; {HINT}")
        masks.append(mask)
    return masks


def by_border_colour(normals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What differs from c, in each image by itself: d beyond NOISE deviations of the border, or Otsu's threshold.

    Raises InputError for an image whose border has no one colour, in which (nearly) nothing or everything differs, or
    in which the difference is not clear: part of the object, or its shadow, would be missed or taken for it.
    """
    masks = []
    for number, image in enumerate(normals, 1):
        where = f"normal {number} of {len(normals)}"
        levels = _median(image[:, :, :3]).astype(np.float32)
        distance = np.abs(levels - _background(levels)).max(axis=2)
        edge = _border(distance)
        threshold = max(LEAST_DISTANCE, min(NOISE * MAD * float(np.median(edge)), otsu(distance)))
        same = float((edge <= threshold).mean())
        if same < SAME_BORDER:
            raise InputError(
                f"the border of {where} has no one colour ({100 * same:.0f} % of it is alike, "
                f"{100 * SAME_BORDER:.0f} % are needed); {HINT}"
            )
        mask = _object(distance > threshold, where)
        object_, rest = float(np.median(distance[mask])), float(np.percentile(distance[~mask], 95))
        if object_ < CLEAR * rest:
            raise InputError(
                f"nothing stands out clearly in {where} (by {object_:.0f} levels, the rest by up to {rest:.0f}); {HINT}"
            )
        masks.append(mask)
    return masks


def _median(image: np.ndarray) -> np.ndarray:
    """The median of each pixel's 3 x 3 surroundings in each channel, as SciPy's filter has it, 20 times as fast.

    Of three sorted columns it is the middle one of the largest low, the middle middle and the smallest high.
    """
    padded = np.pad(image, [(1, 1), (1, 1), (0, 0)], mode="symmetric")
    above, at, below = padded[:-2], padded[1:-1], padded[2:]
    low, high = np.minimum(at, below), np.maximum(at, below)
    sorted_ = np.minimum(above, low), _middle(above, low, high), np.maximum(above, high)
    lows, middles, highs = ((part[:, :-2], part[:, 1:-1], part[:, 2:]) for part in sorted_)
    return _middle(reduce(np.maximum, lows), _middle(*middles), reduce(np.minimum, highs))


def _middle(one: np.ndarray, other: np.ndarray, third: np.ndarray) -> np.ndarray:
    """The middle one of three, for each element."""
    return np.maximum(np.minimum(one, other), np.minimum(np.maximum(one, other), third))


def _background(levels: np.ndarray) -> np.ndarray:
    """c, (H, W, 3) float32: light that falls off to one side is no object. levels: (H, W, 3) float32."""
    rows, columns = np.indices(levels.shape[:2], dtype=np.float32)
    plane = np.stack([np.ones_like(rows), rows / len(levels) - 0.5, columns / levels.shape[1] - 0.5], axis=2)
    places, colours = _border(plane), _border(levels)
    near = np.abs(colours - np.median(colours, axis=0)).max(axis=1)
    for _ in range(ROUNDS):  # what lies farther off than most is the object, where it reaches over the border
        kept = near <= max(float(np.median(near)) * NOISE, 1.0)
        slopes = np.linalg.lstsq(places[kept], colours[kept], rcond=None)[0]
        near = np.abs(colours - places @ slopes).max(axis=1)
    return plane @ slopes.astype(np.float32)


def by_constancy(normals: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What is constant across aligned normals, before backgrounds that change: v below Otsu's threshold.

    One mask for all. Raises InputError for fewer than ALIGNED normals, normals of several sizes, a v that does not fall
    into two parts, and a constant part that holds the border: that is the background, and of objects that are not
    aligned before it the outline cannot be told.
    """
    sizes = {image.shape[:2] for image in normals}
    if len(normals) < ALIGNED or len(sizes) > 1:
        few = f"{len(normals)} normals" if len(normals) < ALIGNED else f"normals of {len(sizes)} sizes"
        raise InputError(f"{few} do not show what is constant, {ALIGNED} aligned ones of one size are needed; {HINT}")
    variation = _variation(normals)
    varies = variation > otsu(variation)
    low, high = (float(variation[part].mean()) if part.any() else 0.0 for part in (~varies, varies))
    if high < max(CONTRAST * low, 1.0):
        raise InputError(
            f"the normals vary everywhere alike (by {low:.1f} to {high:.1f} levels): they are not aligned, or show "
            f"one background; {HINT}"
        )
    if _border(varies).mean() < 0.5:
        raise InputError(
            f"what is constant in the normals is their border, so it is the background, and the object moves or "
            f"changes; {HINT}"
        )
    return [_object(~varies, "the normals")] * len(normals)


FINDERS: dict[str, Callable[[Sequence[np.ndarray]], list[np.ndarray]]] = {
    ALPHA: by_alpha, BORDER: by_border_colour, CONSTANT: by_constancy,
}  # fmt: skip


def _variation(normals: Sequence[np.ndarray]) -> np.ndarray:
    """v, (H, W) float64, from running sums: one image at a time is in memory."""
    total = np.zeros(normals[0].shape[:2] + (3,))
    squares = np.zeros_like(total)
    for image in normals:
        levels = image[:, :, :3].astype(np.float64)
        total += levels
        squares += levels**2
    mean = total / len(normals)
    deviation = np.sqrt(np.maximum(squares / len(normals) - mean**2, 0)).mean(axis=2)
    return ndimage.uniform_filter(deviation, max(3, min(deviation.shape) // 64))


def _object(mask: np.ndarray, where: str) -> np.ndarray:
    """The mask without specks and pin holes; raises InputError if it is no object: too little, all, or lines only."""
    mask = clean_mask(mask, max(round(SPECK * mask.size), 1))
    share = float(mask.mean())
    if not LEAST <= share <= MOST:
        raise InputError(
            f"what stands out in {where} covers {100 * share:.1f} % of the picture, expected {100 * LEAST:.0f} to "
            f"{100 * MOST:.0f} %; {HINT}"
        )
    radius = math.ceil(math.sqrt(SOLID * float(mask.sum()) / math.pi))
    if not ndimage.minimum_filter(mask, 2 * radius + 1).any():
        raise InputError(f"only thin lines stand out in {where}, the outline or the shadow of an object; {HINT}")
    return mask


def _border(image: np.ndarray) -> np.ndarray:
    """Pixels of the border line of an image (H, W, ...)."""
    return np.concatenate([image[0], image[-1], image[1:-1, 0], image[1:-1, -1]])
