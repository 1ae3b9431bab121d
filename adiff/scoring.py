"""Measures of one generated pair (METHOD 6): is the defect there, and is everything else untouched?

| symbol | meaning | shape |
|---|---|---|
| output | the generated image as written | (H, W) or (H, W, 3) uint8 |
| y, normal | the defect-free image it was made from | alike |
| round trip | y encoded and decoded by the model's VAE | alike |
| m | mask, 1 = defect | (H, W) bool |
"""

from __future__ import annotations

import numpy as np

from .masks import count_components

VISIBLE = 10
"""Levels of 255 beyond which a pixel counts as changed."""


def _difference(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Largest |first - second| over the channels, (H, W) int; ValueError unless the shapes fit."""
    if first.shape != second.shape or mask.shape != first.shape[:2]:
        raise ValueError(f"images {first.shape} and {second.shape}, mask {mask.shape}; expected the same size")
    if first.dtype != second.dtype or first.dtype.kind != "u":
        raise ValueError(f"images of type {first.dtype} and {second.dtype}; expected uint8 alike")
    change = np.abs(first.astype(np.int64) - second.astype(np.int64))
    return change if change.ndim == 2 else change.max(axis=2)


def fill(output: np.ndarray, round_trip: np.ndarray, mask: np.ndarray, threshold: int = VISIBLE) -> float:
    """Share of the mask where the output departs from the round trip of y by more than `threshold` levels.

    Measured against the round trip, because the VAE's own error must not count as a defect. 0 for an empty mask.
    """
    changed = _difference(output, round_trip, mask)[mask.astype(bool)] > threshold
    return float(changed.mean()) if changed.size else 0.0


def leak(output: np.ndarray, normal: np.ndarray, mask: np.ndarray) -> int:
    """Largest |output - y| outside the mask, levels: 0 by construction."""
    return int(_difference(output, normal, mask)[~mask.astype(bool)].max(initial=0))


def area(mask: np.ndarray) -> float:
    """Share of the image that the mask covers."""
    return float(mask.astype(bool).mean())


def components(mask: np.ndarray) -> int:
    """Number of the mask's 8-connected parts."""
    return count_components(mask.astype(bool))


def measure_pair(output: np.ndarray, normal: np.ndarray, round_trip: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The measures that go into a pair's record: fill, leak, area, components."""
    return {
        "fill": fill(output, round_trip, mask),
        "leak": float(leak(output, normal, mask)),
        "area": area(mask),
        "components": float(components(mask)),
    }
