"""Masks: rules for generated ones, cleaning, likeness to the real ones (METHOD 2, "Mask generation").

Masks are (H, W) bool; parts are 8-connected, holes 4-connected; areas are shares of the image unless in pixels. The
masks of the shots are meant at the size of the masks to be checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft, ndimage

from .errors import InputError
from .geometry import EIGHT, mask_box, resize_mask

MAX_BORDER = 1 / 3
"""Share of one border line of the image that a mask may cover (the release)."""
SPECK = 4
"""Pixels below which a part of a real mask is taken for noise."""
LEAST_SHARE = 0.02
"""Share of its mask below which it is too: a droplet beside one stain would let the sampler's noise through for all."""


@dataclass(frozen=True, eq=False)
class MaskRules:
    """What a mask must be to be used.

    min_area, max_area: shares of the image. max_components: number of parts. min_component: pixels of each part.
    max_border: share of any one border line. foreground: (H, W) bool where the object is, or None; min_foreground:
    share of the mask that must lie there.
    """

    min_area: float = 0.0
    max_area: float = 1.0
    max_components: int = 10_000
    min_component: int = 1
    max_border: float = 1.0
    foreground: np.ndarray | None = None
    min_foreground: float = 1.0

    @classmethod
    def from_shots(cls, masks: Sequence[np.ndarray], slack: float = 0.5) -> MaskRules:
        """The range of real masks, widened by `slack` (0.5: from half the least to one and a half times the most).

        Parts smaller than half the smallest real part are noise of the sampler (real parts below SPECK and LEAST_SHARE
        do not count).
        The border rule is the release's, unless a shot itself covers more of a border line. Raises InputError for an
        empty list or an empty mask.
        """
        if not len(masks):
            raise InputError("no masks to take rules from; expected at least one shot")
        if slack < 0:
            raise ValueError(f"slack {slack}; expected 0 or more")
        for mask in masks:
            mask_box(mask)
        areas = [float(mask.mean()) for mask in masks]
        sizes = [_part_sizes(mask) for mask in masks]
        parts_of_size = [part for of_one in sizes for part in of_one if part >= max(SPECK, LEAST_SHARE * sum(of_one))]
        speck = max(int(min(parts_of_size, default=1) * max(1 - slack, 0)), 1)
        parts = max(int((sizes_of_one >= speck).sum()) for sizes_of_one in sizes)
        return cls(
            min_area=min(areas) * max(1 - slack, 0),
            max_area=min(max(areas) * (1 + slack), 1.0),
            max_components=math.ceil(parts * (1 + slack)),
            min_component=speck,
            max_border=max(MAX_BORDER, *(border_share(mask) for mask in masks)),
        )

    def record(self) -> dict[str, float | int | bool]:
        """The rules as plain numbers for a run's record; of the foreground only whether there is one."""
        numbers = {name: getattr(self, name) for name in ("min_area", "max_area", "max_components", "min_component",
                                                          "max_border", "min_foreground")}  # fmt: skip
        return numbers | {"foreground": self.foreground is not None}


def _part_sizes(mask: np.ndarray) -> np.ndarray:
    """Pixels of each part."""
    labels, count = ndimage.label(mask, structure=EIGHT)
    return np.bincount(labels.ravel(), minlength=count + 1)[1:]


def count_components(mask: np.ndarray) -> int:
    """Number of parts of a mask."""
    return int(ndimage.label(mask, structure=EIGHT)[1])


def border_share(mask: np.ndarray) -> float:
    """Largest share of one of the four border lines that a mask covers."""
    return float(max(mask[0].mean(), mask[-1].mean(), mask[:, 0].mean(), mask[:, -1].mean()))


def check_mask(mask: np.ndarray, rules: MaskRules) -> tuple[str, ...]:
    """Names of the rules a mask breaks, () for none: empty, area too small, area too large, components, border,
    foreground."""
    if not mask.any():
        return ("empty",)
    area, sizes = float(mask.mean()), _part_sizes(mask)
    broken = {
        "area too small": area < rules.min_area,
        "area too large": area > rules.max_area,
        "components": len(sizes) > rules.max_components or int(sizes.min()) < rules.min_component,
        "border": border_share(mask) > rules.max_border,
        "foreground": _foreground_share(mask, rules.foreground) < rules.min_foreground,
    }
    return tuple(name for name, is_broken in broken.items() if is_broken)


def _foreground_share(mask: np.ndarray, foreground: np.ndarray | None) -> float:
    """Share of a mask that lies on the foreground, 1 if there is none; the foreground is resized to the mask."""
    if foreground is None:
        return 1.0
    return float(resize_mask(foreground.astype(bool), *mask.shape)[mask].mean())


def clean_mask(mask: np.ndarray, min_component: int) -> np.ndarray:
    """Drop parts and fill holes of fewer than `min_component` pixels; may return an empty mask."""
    labels, count = ndimage.label(mask, structure=EIGHT)
    large = np.bincount(labels.ravel(), minlength=count + 1) >= min_component
    large[0] = False
    clean = large[labels]
    holes, count = ndimage.label(~clean)
    pin = np.bincount(holes.ravel(), minlength=count + 1) < min_component
    edge = np.concatenate([holes[0], holes[-1], holes[:, 0], holes[:, -1]])
    pin[edge] = False  # open to the border: no hole
    return clean | pin[holes]


def refine_mask(mask: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Shrink a mask to where the image really changed; gaps of a pixel are closed, holes filled, specks dropped.

    mask, changed: (H, W) bool. Returns (H, W) bool, a part of the mask, or the mask itself where nothing changed.
    """
    inside = mask & changed
    whole = ndimage.binary_fill_holes(ndimage.binary_closing(inside, structure=EIGHT)) | inside
    refined = clean_mask(whole & mask, SPECK) & mask
    return refined if refined.any() else mask


def _shape(mask: np.ndarray) -> np.ndarray:
    """The mask cut to its bounding box."""
    return mask[mask_box(mask).slices].astype(np.float64)


def aligned_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Best overlap of two masks over all translations and the 8 flips and turns by 90 degrees.

    The largest intersection over translations is the peak of the cross-correlation, taken by FFT; the masks' places and
    the sizes of their images do not matter. Returns intersection over union in [0, 1]; 0 if either mask is empty.
    """
    if not a.any() or not b.any():
        return 0.0
    first, second = _shape(a), _shape(b)
    longest = max(second.shape)
    grid = tuple(fft.next_fast_len(side + longest - 1, real=True) for side in first.shape)
    spectrum = np.conj(fft.rfft2(first, grid))
    most = 0.0
    for turns in range(4):
        turned = np.rot90(second, turns)
        for shape in (turned, turned[:, ::-1]):
            most = max(most, float(fft.irfft2(spectrum * fft.rfft2(shape, grid), grid).max()))
    common = round(most)
    return common / (first.sum() + second.sum() - common)


def best_aligned_iou(mask: np.ndarray, shots: Sequence[np.ndarray]) -> float:
    """Best `aligned_iou` of a mask with any shot's mask: near 1 for a copy; 0 without shots."""
    return max((aligned_iou(mask, shot) for shot in shots), default=0.0)
