"""Measures of one generated pair (METHOD 6): is the defect there, does it fit, is it new, is everything else untouched?

| symbol | meaning | shape |
|---|---|---|
| output | the generated image as written | (H, W) or (H, W, 3) uint8 |
| y, normal | the defect-free image it was made from | alike |
| round trip | y encoded and decoded by the model's VAE | alike |
| m | mask, 1 = defect | (H, W) bool |
| z | latents of the mask's surroundings (`context_box`), or another network's map of them | (C, h, w) |
| a | share of each latent cell that the mask covers | (h, w) |
| f | descriptor of a region: mean and deviation of z under a | (2C,) float32 |

Each measure is defined here and nowhere else; `measure_pair` takes them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .errors import InputError
from .geometry import context_box, crop_mask, crop_resize, mask_box, resize_mask
from .latent_grid import area_resize
from .masks import best_aligned_iou, border_share, count_components
from .pixels import as_images
from .refinement import VISIBLE, overlap, refined

if TYPE_CHECKING:
    from .backbone import Backbone
    from .features import FeatureNetwork
    from .library import Key, Library

BAND = 2
"""Pixels on either side of a mask's border in which its seam is looked for: a feathered one spreads over a few."""
STEP = 1.0
"""Levels added to both jumps of `seam`: the rounding of 8 bits, so that a flat normal image does not divide by 0."""


def _check(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> None:
    """Raise ValueError unless two images and a mask fit."""
    if first.shape != second.shape or mask.shape != first.shape[:2]:
        raise ValueError(f"images {first.shape} and {second.shape}, mask {mask.shape}; expected the same size")
    if first.dtype != second.dtype or first.dtype.kind != "u":
        raise ValueError(f"images of type {first.dtype} and {second.dtype}; expected uint8 alike")


def _difference(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """|first - second|, as the images are; ValueError unless the shapes fit."""
    _check(first, second, mask)
    return np.maximum(first, second) - np.minimum(first, second)  # in no wider type: a photo may be large


def fill(output: np.ndarray, round_trip: np.ndarray, mask: np.ndarray, threshold: int = VISIBLE) -> float:
    """Share of the mask where the output departs from the round trip of y by more than `threshold` levels.

    Measured against the round trip, because the VAE's own error must not count as a defect. 0 for an empty mask.
    """
    changed = _difference(output, round_trip, mask)[mask.astype(bool)] > threshold
    changed = changed if changed.ndim == 1 else changed.any(axis=1)
    return float(changed.mean()) if changed.size else 0.0


def refined_iou(output: np.ndarray, round_trip: np.ndarray, mask: np.ndarray) -> float:
    """Overlap of the mask with the part of it that really changed (`refinement.refined`): 1 is all of it, or nothing.

    Where nothing visible changed the mask stands as it is; fill tells. 1 for an empty mask.
    """
    _check(output, round_trip, mask)
    return overlap(refined(output, round_trip, mask), mask.astype(bool)) if mask.any() else 1.0


def leak(output: np.ndarray, normal: np.ndarray, mask: np.ndarray) -> int:
    """Largest |output - y| outside the mask, levels: 0 by construction."""
    return int(_difference(output, normal, mask)[~mask.astype(bool)].max(initial=0))


def seam(output: np.ndarray, normal: np.ndarray, mask: np.ndarray) -> float:
    """How steep the mask's border is, relative to the same pixels of y: 1 is as steep, 3 three times.

    (J(output) + STEP) / (J(y) + STEP), J(I) being the mean of max_c |I(p) - I(q)| over all pairs of pixels p in m and
    q outside it that lie BAND pixels apart in a row or a column. The image's border is no border of the mask: where m
    touches it there are no pairs. A mask one pixel wide has its pairs on both sides. 1 for a mask without a border.

    A defect darker or brighter than its surroundings has an edge of its own; compare the seam with that of other pairs.
    """
    _check(output, normal, mask)
    if not mask.any():
        return 1.0
    bounds, on = mask_box(mask), mask.astype(bool)
    near = (slice(max(bounds.top - BAND, 0), bounds.bottom + BAND),
            slice(max(bounds.left - BAND, 0), bounds.right + BAND))  # fmt: skip
    return (_jump(output[near], on[near]) + STEP) / (_jump(normal[near], on[near]) + STEP)


def _jump(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean largest difference over the channels across a mask's border, levels; 0 if it has none."""
    levels = image.astype(np.int64).reshape(*mask.shape, -1)
    jumps = []
    for pixels, on in ((levels, mask), (levels.swapaxes(0, 1), mask.T)):
        across = on[BAND:] != on[:-BAND]
        jumps.append(np.abs(pixels[BAND:][across] - pixels[:-BAND][across]).max(axis=1))
    found = np.concatenate(jumps)
    return float(found.mean()) if found.size else 0.0


def area(mask: np.ndarray) -> float:
    """Share of the image that the mask covers."""
    return float(mask.astype(bool).mean())


def components(mask: np.ndarray) -> int:
    """Number of the mask's 8-connected parts."""
    return count_components(mask.astype(bool))


def border(mask: np.ndarray) -> float:
    """Largest share of one of the image's four border lines that the mask covers."""
    return border_share(mask.astype(bool))


def novelty(mask: np.ndarray, shots: Sequence[np.ndarray]) -> float:
    """1 - best overlap of the mask with any shot's over shifts, flips and quarter turns: 0 for the shape of a shot.

    shots: (S, S) bool, as a library keeps them: each photo's mask resized to the model's size. The mask is brought
    there both ways that masks go between photo and model, the whole photo squeezed into the square and the photo's own
    shape kept (`generation.run`), which differ on photos that are not square; the better overlap counts.
    """
    size, (height, width) = len(shots[0]), mask.shape
    scale = size / min(height, width)
    sizes = {(size, size), (round(height * scale), round(width * scale))}
    return 1 - max(best_aligned_iou(resize_mask(mask.astype(bool), *one), shots) for one in sizes)


class Eye(Protocol):
    """What describes regions: a base model, whose z is scaled to about 1 over photos, or a `features.FeatureNetwork`.

    native_size: side in pixels of what it looks at.
    """

    native_size: int

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] -> z (B, C, h, w)."""


@torch.no_grad()
def describe(eye: Eye, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Describe regions of images by a frozen network: f = (mean, deviation) of each channel of z under a.

    Each mask is seen in its surroundings at the network's own size, whatever the photo's size, so that real and
    generated regions compare; cells count by the share of them that the mask covers, which cuts thin defects out too.

    images: (H, W, 3) uint8. masks: (H, W) bool, not empty (InputError). Returns (n, 2C) float32.
    """
    size, rows = eye.native_size, []
    for image, mask in zip(images, masks, strict=True):  # one at a time: no number depends on what else is in a batch
        box = context_box(mask, size)
        view = as_images(crop_resize(image, box, size))[None]
        z = eye.encode(view)[0].float()
        on = torch.from_numpy(crop_mask(mask, box, size))[None, None].to(z)
        a = area_resize(on, tuple(z.shape[1:]))[0, 0]
        a = a / a.sum()
        mean = (a * z).sum((1, 2))
        deviation = (a * (z - mean[:, None, None]).square()).sum((1, 2)).sqrt()
        rows.append(torch.cat([mean, deviation]).cpu())
    return torch.stack(rows).numpy()


def likeness(descriptor: np.ndarray, shots: np.ndarray) -> float:
    """Euclidean distance of a region's descriptor (2C,) to the nearest shot's, (n, 2C): 0 is a copy, more is less like.

    Raises InputError for descriptors of another length: they come from another kind of model.
    """
    if shots.ndim != 2 or shots.shape[1] != len(descriptor):
        raise InputError(
            f"the shots' descriptors have the shape {shots.shape}, this model's {len(descriptor)} numbers each; "
            "use the base model that the library was learned on"
        )
    return float(np.linalg.norm(shots - descriptor, axis=1).min())


def spread(shots: np.ndarray) -> float | None:
    """Median `likeness` of each shot to the others, what a real one scores; None for fewer than two. shots: (n, 2C)."""
    if len(shots) < 2:
        return None
    return float(np.median([likeness(shot, np.delete(shots, i, axis=0)) for i, shot in enumerate(shots)]))


@dataclass(frozen=True, eq=False)
class ShotReference:
    """The real shots that pairs of a defect are compared with: masks (n, S, S) bool, descriptors (n, 2C) float32.

    Either is None where it is not known; the measures that need it are then None too. eye: the network that described
    them, if it was not the base model; files: names of the photos that it saw.
    """

    masks: np.ndarray | None = None
    descriptors: np.ndarray | None = None
    eye: FeatureNetwork | None = None
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, library: Library, key: Key, backbone: Backbone) -> ShotReference:
        """Take what a library holds of a defect's shots.

        Without descriptors where the library has none (it is older, or the defect came from another program) or was
        learned on another base model, whose VAE may see otherwise.
        """
        entry = library.defects[key]
        comparable = entry.likeness is not None and library.base_fingerprint == backbone.fingerprint
        return cls(entry.shot_masks, entry.likeness.numpy() if comparable else None)

    def describe(self, backbone: Eye, image: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """f of a region to be compared with these, (2C,), by the same network; None if there is nothing to compare."""
        return None if self.descriptors is None else describe(self.eye or backbone, [image], [mask])[0]

    def record(self) -> dict[str, Any] | None:
        """What tells the network and what it saw, for a run's record; None for the base model."""
        return None if self.eye is None else {**self.eye.record(), "shots": list(self.files)}

    @cached_property
    def spread(self) -> float | None:
        """The shots' own likeness to each other (`scoring.spread`)."""
        return None if self.descriptors is None else spread(self.descriptors)


def measure_pair(
    output: np.ndarray,
    normal: np.ndarray,
    round_trip: np.ndarray,
    mask: np.ndarray,
    shots: ShotReference | None = None,
    descriptor: np.ndarray | None = None,
    asked: np.ndarray | None = None,
) -> dict[str, float | None]:
    """The measures that go into a pair's record, by name; descriptor: f of the output (`describe`).

    mask: as it is written. asked: the mask that was painted, where the written one is refined; what compares with the
    normal image (fill, leak, seam, refined_iou) is taken under it.
    None where there is nothing to measure against: likeness without the shots' descriptors or without `descriptor`,
    likeness_shots (what the shots score among themselves) also for a single shot, novelty without the shots' masks.
    """
    shots = shots or ShotReference()
    alike = None if shots.descriptors is None or descriptor is None else likeness(descriptor, shots.descriptors)
    asked = mask if asked is None else asked
    return {
        "fill": fill(output, round_trip, asked),
        "leak": float(leak(output, normal, asked)),
        "seam": seam(output, normal, asked),
        "refined_iou": refined_iou(output, round_trip, asked),
        "area": area(mask),
        "components": float(components(mask)),
        "border": border(mask),
        "likeness": alike,
        "likeness_shots": shots.spread,
        "novelty": None if shots.masks is None or not len(shots.masks) else novelty(mask, shots.masks),
    }
