"""Variation: new masks that are the shots' own, mirrored, stretched, turned, scaled and moved.

For masks true to the photos' shapes where few photos teach crooked ones, as of long straight scratches, or where none
were learned. What comes out has a size and, where the shots have a common one, a direction within their range
(`placement.ShotSpread`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import InputError
from .geometry import mask_box, resize_mask
from .placement import Ground, Placing, ShotSpread, place_mask

STRETCH = 1.25
"""Largest factor by which one side of a mask is stretched, and the other one shortened."""


@dataclass(frozen=True, eq=False)
class Varied:
    """A mask (H, W) bool; shot: number of the one that it was; turn: degrees counterclockwise; scale: of its sides."""

    mask: np.ndarray
    shot: int
    turn: float
    scale: float


class MaskVariation:
    """The masks of shots, to be varied for pictures of any size.

    shots: (h, w) bool each, not empty. Raises InputError for none, or an empty one.
    """

    def __init__(self, shots: Sequence[np.ndarray]):
        self.shots, self.spread = [np.asarray(shot, bool) for shot in shots], ShotSpread.of(shots)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Varied:
        """Make a mask (H, W) of a picture's size; it lies in the picture whole. InputError if none fits into it."""
        ground, refused = Ground.of(np.ones(size, bool), Placing()), Counter()
        for number in rng.permutation(len(self.shots)):
            placed = place_mask(_stretched(self.shots[number], rng), ground, Placing(), rng, self.spread)
            if not isinstance(placed, str):
                return Varied(placed[0], int(number), placed[1], placed[2])
            refused[placed] += 1
        reasons = ", ".join(reason.replace("object", "picture") for reason in refused)
        raise InputError(f"none of {len(self.shots)} shots' masks fits into {size[1]} x {size[0]} pixels: {reasons}; "
                         "give larger pictures, or masks of your own")  # fmt: skip


def _stretched(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mask, mirrored or not, one side longer and the other one shorter; its place is lost."""
    shape = mask[mask_box(mask).slices]
    shape = shape[:, ::-1] if rng.integers(2) else shape
    factor = math.exp(rng.uniform(-math.log(STRETCH), math.log(STRETCH)))
    rows, columns = max(1, round(shape.shape[0] * factor)), max(1, round(shape.shape[1] / factor))
    new = resize_mask(shape, rows, columns)
    side = max(*new.shape, min(mask.shape))
    return np.pad(new if new.any() else np.ones((1, 1), bool), [(0, side - length) for length in new.shape])
