"""What the baselines share: their sources, their result, and where a patch goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..geometry import mask_box

DRAWS = 64
"""Masks that are drawn for a normal image until one lies on its object."""


@dataclass(frozen=True)
class Sources:
    """shots: (image (H, W, 3) uint8, mask (H, W) bool) each. textures: (H, W, 3) uint8 each."""

    shots: Sequence[tuple[np.ndarray, np.ndarray]] = ()
    textures: Sequence[np.ndarray] = ()


class Pasted(NamedTuple):
    """A pair: image (H, W, 3) uint8, the normal image's own pixels outside mask (H, W) bool; normal: its number."""

    image: np.ndarray
    mask: np.ndarray
    normal: int


def place_for(
    patch: tuple[int, int], frame: tuple[int, int], mask: np.ndarray | None, rng: np.random.Generator
) -> tuple[int, int]:
    """Row and column of a patch's corner inside a frame: around the middle of the mask, without one anywhere.

    patch, frame: (H, W) in pixels, the patch no larger than the frame.
    """
    if mask is None:
        return int(rng.integers(frame[0] - patch[0] + 1)), int(rng.integers(frame[1] - patch[1] + 1))
    box = mask_box(mask)
    top, left = (box.top + box.bottom - patch[0]) // 2, (box.left + box.right - patch[1]) // 2
    return min(max(top, 0), frame[0] - patch[0]), min(max(left, 0), frame[1] - patch[1])


def on_object(
    draw: Callable[[], tuple[np.ndarray, np.ndarray]], normal: np.ndarray, foreground: np.ndarray, whole: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Draw image and mask until the mask lies on the object; the part of the last one that does is taken else.

    foreground: where the object is, (H, W) bool. whole: False takes that part of the first mask that has any, as of
    noise that covers the image (MemSeg, arXiv 2205.00908, sec. 3.2). Raises InputError if none of DRAWS has any.
    """
    found = None
    for _ in range(DRAWS):
        image, mask = draw()
        inside = mask & foreground
        if inside.any() and not (whole and (inside != mask).any()):
            return np.where(inside[..., None], image, normal), inside
        found = (image, inside) if inside.any() else found
    if found is None:
        raise InputError(f"nothing of {DRAWS} masks lies on the object; give a larger foreground")
    image, inside = found
    return np.where(inside[..., None], image, normal), inside


def paste(normal: np.ndarray, patch: np.ndarray, on: np.ndarray, top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay a patch (h, w, 3) over a copy of the normal image where on (h, w) says; returns image and mask (H, W)."""
    image, mask = normal.copy(), np.zeros(normal.shape[:2], bool)
    rows, columns = slice(top, top + on.shape[0]), slice(left, left + on.shape[1])
    image[rows, columns][on] = patch[on]
    mask[rows, columns] = on
    return image, mask
